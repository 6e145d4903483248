"""A cohort given as public is held against what its own files say: nothing private or painted becomes public."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from promised import promised_text, write_start
from tiny_cohorts import tiny_study, tiny_text, write_tiny_cohort

from fedphantom.cli import run
from fedphantom.client.site_setup import check_site_cohort
from fedphantom.common.cohort import PUBLIC_SITE
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.errors import DataError, PolicyRefused
from fedphantom.common.gan.generation import initial_parameters
from fedphantom.common.gan.weights import generator_metadata, save_weights
from fedphantom.common.labels.choice import public_cohort
from fedphantom.common.labels.private_name import private_scan_source
from fedphantom.common.labels.sampler import public_label_maps
from fedphantom.common.study import Study, parse_study
from fedphantom.server.pretraining import pretrain

STUDY = tiny_study()
PROMISED = parse_study(promised_text("0" * 64))
PRIVATE = private_scan_source("a patient", b"0" * 32).model_dump(mode="json")
PUBLIC = {**PRIVATE, "kind": "public", "name": "balls", "licence": "CC0-1.0"}


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Four patients without a site: whoever gives them as public says that they are."""
    return write_tiny_cohort(tmp_path / "cohort", 4)


def say(cohort: Path, pattern: str, **facts: Any) -> None:
    """Add to what lies beside every file of that name."""
    files = sorted(cohort.rglob(pattern))
    assert files
    for file in files:
        sidecar = file.with_name(file.name.replace(".nii.gz", ".json"))
        known = json.loads(sidecar.read_text()) if sidecar.exists() else {}
        sidecar.write_text(json.dumps(known | facts))


def start(study: Study, cohort: Path, out: Path) -> object:
    return pretrain(study, cohort, out / "start.safetensors", 1, lambda _: lambda *_: None)


@pytest.mark.parametrize(
    "facts",
    [
        {"Private": True},
        {"LabelChain": {"source": PRIVATE}},
        {"LabelChain": {"source": PUBLIC, "steps": [{"name": "unknown"}]}},
        {"NetworkTrainedOn": "private"},
        {"NetworkTrainedOn": "public"},  # and nobody marked its patient public
    ],
    ids=["private", "private chain", "unreadable chain", "inferred", "inferred by a public network"],
)
def test_label_maps_that_are_private_by_their_own_words_are_never_public(
    cohort: Path, tmp_path: Path, facts: dict[str, Any]
) -> None:
    assert len(public_label_maps(STUDY, read_cohort(cohort))) == 4
    say(cohort, "*_dseg.nii.gz", **facts)
    for use in (
        lambda: public_label_maps(STUDY, read_cohort(cohort)),  # the sampler's, and where a release is held against it
        lambda: public_cohort(STUDY, cohort),
        lambda: start(STUDY, cohort, tmp_path),
    ):
        with pytest.raises(PolicyRefused, match="4 of 4 label maps private by what lies beside") as refused:
            use()
        assert refused.value.exit_code == 4
    assert not (tmp_path / "start.safetensors").exists()


def test_label_maps_of_a_publicly_trained_network_are_public_where_their_patients_are_marked_so(cohort: Path) -> None:
    table = cohort / "participants.tsv"
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    place = rows[0].index("site")
    for row in rows[1:]:
        row[place] = PUBLIC_SITE
    table.write_text("".join("\t".join(row) + "\n" for row in rows))
    say(cohort, "*_dseg.nii.gz", Private=True, NetworkTrainedOn="public", LabelChain={"source": PRIVATE})
    assert public_cohort(STUDY, cohort)
    say(cohort, "*_dseg.nii.gz", NetworkTrainedOn="private")
    with pytest.raises(PolicyRefused):
        public_cohort(STUDY, cohort)


@pytest.mark.parametrize("study", [STUDY, PROMISED], ids=["dp: none", "promised"])
@pytest.mark.parametrize("pattern", ["*_T1w.nii.gz", "*_dseg.nii.gz"])
def test_painted_scans_are_no_public_start(cohort: Path, tmp_path: Path, study: Study, pattern: str) -> None:
    say(cohort, pattern, GeneratorSha256="0" * 64)
    with pytest.raises(PolicyRefused, match="4 of 4 scans painted by a generator"):
        start(study, cohort, tmp_path)


def test_no_promise_covers_the_patients_of_the_generator_that_painted_a_site_s_scans(cohort: Path) -> None:
    def checked(study: Study) -> str:
        return check_site_cohort(cohort / "new", "site-a", read_cohort(cohort), study, lambda *_: None)

    checked(PROMISED)
    say(cohort, "*_T1w.nii.gz", GeneratorSha256="0" * 64)
    checked(STUDY)
    with pytest.raises(PolicyRefused, match="painted by a generator"):
        checked(PROMISED)


def test_a_damaged_sidecar_is_refused_and_not_passed_over(cohort: Path) -> None:
    (file, *_) = cohort.rglob("*_dseg.nii.gz")
    file.with_name(file.name.replace(".nii.gz", ".json")).write_text("{")
    with pytest.raises(DataError, match="damaged"):
        public_cohort(STUDY, cohort)


def test_what_generate_and_labels_edit_wrote_of_patients_is_refused_by_every_command(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.toml").write_text(tiny_text())
    (tmp_path / "promised.toml").write_text(promised_text(write_start(tmp_path / "public-start.safetensors")))
    generator = tmp_path / "generator.safetensors"
    save_weights(generator, initial_parameters(STUDY), generator_metadata(STUDY, 1))
    (tmp_path / "maps").mkdir()
    for file in cohort.rglob("*_dseg.nii.gz"):
        (tmp_path / "maps" / file.name).write_bytes(file.read_bytes())
    painted = ["generate", str(generator), str(tmp_path / "painted"), "--labels", str(tmp_path / "maps")]
    assert run([*painted, "--device", "cpu"]) == 0
    public = ["--public", str(tmp_path / "painted")]
    studies = [str(tmp_path / "study.toml"), str(tmp_path / "promised.toml")]
    out = str(tmp_path / "out")
    for command in (
        ["labels", "sample", out, "-n", "2", "--study", studies[0], *public],
        ["generate", str(generator), out, "--sample", "2", *public],
        *(["study", "pretrain", study, f"{out}.safetensors", *public, "--steps", "1"] for study in studies),
    ):
        assert run(command) == 4
        assert "error: --public: " in capsys.readouterr().err
        assert not Path(out).exists()
        assert not Path(f"{out}.safetensors").exists()
