"""What an ensemble's run is good for: painted by turns, audited site by site, refused where one generator is meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedphantom.cli import run as fedphantom
from fedphantom.client.local_training import LocalTrainer
from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.device import choose_device
from fedphantom.common.errors import DataError, VerificationFailed
from fedphantom.common.gan.generation import generate_cohort, initial_parameters, load_generators
from fedphantom.common.gan.weights import generator_metadata, save_weights
from fedphantom.common.labels.sampler import make_label_sampler
from fedphantom.common.phantom.patients import write_phantom_cohort
from fedphantom.common.signing import generate_key
from fedphantom.common.site_folder import SiteFolder
from fedphantom.common.study import FederationTable, NetworkTable, PublicLabelsTable, RolesTable, Study, TrainingTable
from fedphantom.common.study_template import study_for, to_toml
from fedphantom.privacy.audit.run import AuditSizes, audit_run_folder
from fedphantom.privacy.policy import TIERS
from fedphantom.privacy.release.run import pack_run
from fedphantom.server.simulation import simulate

SITES = ("site-a", "site-b")
CPU = choose_device("cpu")


def the_study(root: Path) -> Study:
    study = study_for(
        read_cohort(root / "site-a"), name="ensemble", seed=4, public_labels=PublicLabelsTable(source="atlas")
    )
    changes: dict[str, Any] = {
        "network": NetworkTable(preset="tiny"),
        "training": TrainingTable(rounds=1, local_steps=2),
        "federation": FederationTable(sharing="ensemble"),
        "roles": RolesTable(test=0.1, control=0.2, audit=0.6),
    }
    return study.model_copy(update=changes)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated ensemble of two sites in ``run``."""
    root = tmp_path_factory.mktemp("ensemble")
    for seed, name in enumerate(SITES):
        write_phantom_cohort(root / name, 10, spacing_mm=12.0, seed=seed)
    write_phantom_cohort(root / "public", 4, spacing_mm=12.0, seed=9)
    simulate(
        to_toml(the_study(root)),
        {name: root / name for name in SITES},
        root / "run",
        engine="local",
        prepare_site=create_site_folder,
        open_site=lambda folder: Site(SiteFolder.open(folder), LocalTrainer.open),
        initial=initial_parameters,
        progress=lambda record: None,
    )
    return root


def painters(cohort: Path) -> list[str]:
    return [json.loads(path.read_text())["GeneratorSha256"] for path in sorted(cohort.rglob("*_dseg.json"))]


def test_members_take_turns_and_each_volume_names_its_painter(root: Path, tmp_path: Path) -> None:
    generators = load_generators(root / "run" / "generators", CPU)
    sampler = make_label_sampler(generators[0].study, None)
    maps = [sampler.sample(0, index) for index in range(3)]
    generate_cohort(generators, maps, tmp_path / "both", seed=1)
    one, two = (generator.sha256 for generator in generators)
    assert one != two
    assert painters(tmp_path / "both") == [one, two, one]
    # Who else paints changes nothing of a volume: the same map, number and seed give the same bytes.
    generate_cohort(generators[1], maps, tmp_path / "alone", seed=1)
    name = "sub-synthetic00002/anat/sub-synthetic00002_FLAIR.nii.gz"
    assert (tmp_path / "both" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_generate_takes_the_folder_that_the_run_names(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = root / "run" / json.loads((root / "run" / "summary.json").read_text())["generator"]
    picture = tmp_path / "montage.png"
    command = ["generate", str(named), str(tmp_path / "out"), "--sample", "2", "--montage", str(picture), "--json"]
    assert fedphantom([*command, "--device", "cpu"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["generators_sha256"] == painters(tmp_path / "out")
    assert (root / "run" / "public-labels.json").exists()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_generators_or_with_those_of_two_studies_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without a generator"):
        load_generators(tmp_path, CPU)
    study = the_study(root)
    for seed in (4, 5):
        changed = study.model_copy(update={"seed": seed})
        save_weights(tmp_path / f"{seed}.safetensors", initial_parameters(changed), generator_metadata(changed, 1))
    with pytest.raises(DataError, match="2 generators, not all of one study"):
        load_generators(tmp_path, CPU)


def audit(root: Path, run: Path, generator: str, synthetic: Path, out: Path) -> dict[str, Any]:
    return audit_run_folder(
        run,
        synthetic,
        read_cohort(root / "public"),
        out,
        AuditSizes(steps=2, negative_seeds=1, draws=2, blind_permutations=5),
        TIERS["internal"],
        generator_file=root / "run" / "generators" / f"{generator}.safetensors",
        device="cpu",
    )


def painted_by(root: Path, site: str, out: Path) -> Path:
    generators = load_generators(root / "run" / "generators" / f"{site}.safetensors", CPU)
    sampler = make_label_sampler(generators[0].study, None)
    generate_cohort(generators, [sampler.sample(0, index) for index in range(3)], out, seed=1)
    return out


def test_each_site_is_audited_with_its_own_generator_and_no_other(root: Path, tmp_path: Path) -> None:
    sites = root / "run" / "sites"
    volumes = painted_by(root, "site-a", tmp_path / "by-a")
    assert audit(root, sites / "site-a", "site-a", volumes, tmp_path / "audit")["counts"]["sites"] == 1
    # Site b's members never trained site a's generator: such an audit would find nothing, whatever a leaks.
    with pytest.raises(VerificationFailed, match="this site's journal does not know"):
        audit(root, sites / "site-b", "site-a", volumes, tmp_path / "wrong")


def test_the_whole_run_is_neither_audited_nor_packed_as_if_it_had_one_generator(root: Path, tmp_path: Path) -> None:
    volumes = painted_by(root, "site-a", tmp_path / "by-a")
    with pytest.raises(DataError, match="each have a generator of their own") as refused:
        audit(root, root / "run", "site-a", volumes, tmp_path / "audit")
    assert "run/sites" in refused.value.remedy
    generate_key(tmp_path / "keys")
    with pytest.raises(DataError, match="each have a generator of their own"):
        pack_run(
            root / "run",
            tmp_path / "release",
            "volumes",
            "internal",
            tmp_path / "keys" / "key.pem",
            tmp_path / "audit.json",
            volumes,
            None,
            lambda done, total: None,
        )
    assert not (tmp_path / "release").exists()
