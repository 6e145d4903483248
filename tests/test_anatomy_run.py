"""A federation that learns anatomy: the same rounds, egress and files as any other, and a file that says which way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from promised import promised_text, write_start
from tiny_anatomy import anatomy_study, anatomy_text
from tiny_cohorts import tiny_text, write_tiny_cohort

from fedphantom.cli import run
from fedphantom.client.egress import FAKE_METRICS, EgressRule, check_reply
from fedphantom.client.local_training import LocalTrainer, made_of_schema
from fedphantom.client.site_setup import check_site_cohort, create_site_folder
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.device import choose_device
from fedphantom.common.errors import PolicyRefused
from fedphantom.common.exchange import RoundRequest
from fedphantom.common.gan.generation import initial_parameters, load_generator
from fedphantom.common.gan.networks import make_generator
from fedphantom.common.gan.parameters import ParameterSpec
from fedphantom.common.gan.weights import load_weights
from fedphantom.common.labels.choice import public_cohort
from fedphantom.common.labels.schematic import schematic_classes
from fedphantom.common.labels.stated_origin import TRAINED_ON_KEY
from fedphantom.common.site_folder import site_material
from fedphantom.common.study import Study, parse_study
from fedphantom.server.pretraining import pretrain

ROLES = "test = 0\nreference = 0.1\ncontrol = 0.1\naudit = 0.4"
TEXT = anatomy_text(text=tiny_text(roles=ROLES, rounds=1, local_steps=3))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two sites of ten patients, and an eleventh patient elsewhere."""
    root = tmp_path_factory.mktemp("anatomy")
    (root / "study.toml").write_text(TEXT)
    cohorts = [write_tiny_cohort(root / name, 10, seed=seed) for seed, name in enumerate("ab")]
    write_tiny_cohort(root / "other", 1, seed=7)
    sites = [f"--site=site-{c.name}={c}" for c in cohorts]
    assert run(["simulate", str(root / "study.toml"), *sites, "--out", str(root / "run")]) == 0
    return root


def test_the_runs_file_says_which_way_it_maps_and_what_it_was_trained_on(made: Path) -> None:
    parameters, metadata = load_weights(made / "run" / "generator.safetensors")
    assert (metadata["maps"], metadata["trained_on"], metadata["dp"]) == ("images-to-labels", "private", "none")
    loaded = load_generator(made / "run" / "generator.safetensors", choose_device("cpu"), "images-to-labels")
    assert loaded.study == parse_study(TEXT)
    start = initial_parameters(loaded.study)
    assert parameters.keys() == start.keys()
    assert any(not np.array_equal(parameters[name], start[name]) for name in start)


def test_the_runs_network_infers_label_maps_that_the_other_direction_can_train_on(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(made / "other"), str(tmp_path / "out"), "--network", str(made / "run" / "generator.safetensors")]
    assert run(["labels", "infer", *arguments, "--threshold", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == 1
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0
    (tmp_path / "forward.toml").write_text(tiny_text())
    study = ["--study", str(tmp_path / "forward.toml")]
    assert run(["cohort", "check", str(tmp_path / "out" / "cohort.tsv"), *study]) == 0
    (scan,) = read_cohort(tmp_path / "out" / "cohort.tsv").scans
    assert set(scan.channels) == {"T1", "FLAIR"}


def test_a_sites_reply_passes_the_same_egress_filter(made: Path, tmp_path: Path) -> None:
    study = parse_study(TEXT)
    start = initial_parameters(study)
    create_site_folder(tmp_path / "site", "site-a", made / "a", TEXT, ParameterSpec.of(start))
    request = RoundRequest(study.digest(), 1, start)
    reply = LocalTrainer.open(tmp_path / "site").train_round(request)
    check_reply(reply, EgressRule(ParameterSpec.of(start)), site="site-a", request=request)
    assert reply.metrics.keys() == set(FAKE_METRICS)
    assert 0 <= reply.metrics["fake_mean"] <= 1  # classes 0 and 1: what is laid over is never inferred


def test_metrics_are_of_what_the_network_sees_in_a_public_image() -> None:
    study = anatomy_study()
    network = make_generator(study, 3)
    seen = made_of_schema(network, study, 0, choose_device("cpu"))
    assert seen.shape == schematic_classes(study).shape
    assert np.array_equal(seen, made_of_schema(network, study, 99, choose_device("cpu")))  # no noise in this direction
    assert set(np.unique(seen)) <= {0.0, 1.0}


# Under a promise.


def test_a_promise_refuses_label_maps_of_a_network_that_read_private_scans(made: Path, tmp_path: Path) -> None:
    network = ["--network", str(made / "run" / "generator.safetensors"), "--threshold", "0"]
    assert run(["labels", "infer", str(made / "a"), str(tmp_path / "inferred"), *network]) == 0
    table = tmp_path / "inferred" / "cohort.tsv"
    sha256 = write_start(tmp_path / "start.safetensors")
    promised, free = promised_text(sha256), tiny_text()
    folder = create_site_folder(
        tmp_path / "site", "site-a", table, promised, ParameterSpec(()), start=tmp_path / "start.safetensors"
    )

    def checked(text: str) -> str:
        return check_site_cohort(tmp_path / "new", "site-a", read_cohort(table), parse_study(text), lambda *_: None)

    def said(word: str) -> None:
        for sidecar in (tmp_path / "inferred").rglob("*_dseg.json"):
            sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {TRAINED_ON_KEY: word}))

    for word in ("private", "", None, "anything else"):
        if word != "private":  # as it was written
            said(str(word))
        for refused in (lambda: checked(promised), lambda: site_material(folder, folder.study())):
            with pytest.raises(PolicyRefused, match="trained on private scans") as caught:
                refused()
            assert caught.value.exit_code == 4
        checked(free)
    assert not folder.coins.exists()  # refused before anything is drawn
    said("public")
    checked(promised)
    site_material(folder, folder.study())


def test_public_label_maps_under_a_promise_are_held_to_it_too(made: Path, tmp_path: Path) -> None:
    network = ["--network", str(made / "run" / "generator.safetensors"), "--threshold", "0"]
    assert run(["labels", "infer", str(made / "other"), str(tmp_path / "inferred"), *network]) == 0
    table = tmp_path / "inferred" / "cohort.tsv"
    promised = parse_study(promised_text("0" * 64))
    with pytest.raises(PolicyRefused, match="trained on private scans"):
        public_cohort(promised, table)
    with pytest.raises(PolicyRefused, match="trained on private scans"):
        pretrain(promised, table, tmp_path / "start.safetensors", 1, lambda _: lambda *_: None)
    # Without a promise they are private all the same.
    with pytest.raises(PolicyRefused, match="private by what lies beside"):
        public_cohort(parse_study(tiny_text()), table)
    with pytest.raises(PolicyRefused, match="private by what lies beside"):
        pretrain(parse_study(tiny_text()), table, tmp_path / "start.safetensors", 1, lambda _: lambda *_: None)


# Trained on public material alone.


def public_site(root: Path, cohort: Path, sites: list[str]) -> Path:
    rows = [f"sub-p{number:02d}\t{site}" for number, site in enumerate(sites)]
    (cohort / "participants.tsv").write_text("\n".join(["participant_id\tsite", *rows]) + "\n")
    text = TEXT + '\n[privacy]\ntrained_on = "public"\n'
    create_site_folder(root, "site-a", cohort, text, ParameterSpec.of(initial_parameters(parse_study(text))))
    return root


def test_a_study_of_public_material_is_refused_by_a_site_with_one_private_patient(tmp_path: Path) -> None:
    cohort = write_tiny_cohort(tmp_path / "cohort", 10)
    for sites in (["public"] * 9 + ["site-a"], ["public"] * 9 + ["n/a"]):
        folder = public_site(tmp_path / sites[-1].replace("/", ""), cohort, sites)
        with pytest.raises(PolicyRefused, match="not marked public") as refused:
            LocalTrainer.open(folder)
        assert refused.value.exit_code == 4
    LocalTrainer.open(public_site(tmp_path / "all", cohort, ["public"] * 10))


def test_what_a_network_was_trained_on_is_part_of_the_study_and_private_unless_said(made: Path) -> None:
    private = parse_study(TEXT)
    public: Study = parse_study(TEXT + '\n[privacy]\ntrained_on = "public"\n')
    assert private.privacy.trained_on == "private"
    assert private.digest() != public.digest()
