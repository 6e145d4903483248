"""A test patient's label map, as it is or edited, never lies under a synthetic scan that is evaluated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from little_brain import HEAD

from fedphantom.cli import run as fedphantom
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.gan.generation import initial_parameters
from fedphantom.common.gan.weights import generator_metadata, save_weights
from fedphantom.common.labels.chain import CHAIN_KEY
from fedphantom.common.labels.private_name import known_secret, private_scan_source
from fedphantom.common.phantom.patients import write_phantom_cohort
from fedphantom.common.study import NetworkTable, PublicLabelsTable
from fedphantom.common.study_template import study_for, to_toml

GROW = HEAD + '[[edit]]\noperation = "grow"\npart = "oedema"\nmm = 5\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cohorts, edited label maps of both, and scans painted from each, by an untrained generator."""
    root = tmp_path_factory.mktemp("origin")
    for seed, name in enumerate(("train", "test")):
        write_phantom_cohort(root / name, 3, spacing_mm=8.0, seed=seed)
    renamed(root / "test")
    study = study_for(
        read_cohort(root / "train"), name="origin", seed=4, public_labels=PublicLabelsTable(source="atlas")
    ).model_copy(update={"network": NetworkTable(preset="tiny")})
    (root / "study.toml").write_text(to_toml(study))
    (root / "recipe.toml").write_text(GROW)
    generator = root / "generator.safetensors"
    save_weights(generator, initial_parameters(study), generator_metadata(study, 1))
    for name in ("train", "test"):
        edited = [
            "labels",
            "edit",
            str(root / name),
            str(root / f"{name}-edited"),
            "--recipe",
            str(root / "recipe.toml"),
        ]
        assert fedphantom([*edited, "--study", str(root / "study.toml"), "--site-secret", str(root / "secret")]) == 0
        (root / f"{name}-maps").mkdir()
        for path in (root / name).rglob("*_dseg.nii.gz"):
            shutil.copy(path, root / f"{name}-maps")
        for labels, out in ((f"{name}-edited", f"of-{name}"), (f"{name}-maps", f"under-{name}")):
            arguments = ["generate", str(generator), str(root / out), "--labels", str(root / labels), "--device", "cpu"]
            assert fedphantom(arguments) == 0
    return root


def renamed(cohort: Path) -> None:
    """Procedural patients are numbered alike whatever their seed."""
    table = cohort / "participants.tsv"
    table.write_text(table.read_text().replace("sub-", "sub-t"))
    for path in sorted(cohort.rglob("sub-*"), reverse=True):  # what lies in a folder before the folder
        path.rename(path.with_name(path.name.replace("sub-", "sub-t")))


def evaluate(root: Path, synthetic: str, *more: str) -> int:
    real = ["--real-train", str(root / "train"), "--real-test", str(root / "test"), "--study", str(root / "study.toml")]
    command = ["evaluate", *real, "--synthetic", str(root / synthetic), "--steps", "2", "--device", "cpu"]
    return fedphantom([*command, *more])


def secret(root: Path) -> tuple[str, str]:
    return "--site-secret", str(root / "secret")


def test_a_test_patients_own_map_is_refused_without_a_secret(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(made, "under-test") == 3
    assert "a synthetic scan with the label map of a test patient" in capsys.readouterr().err


def test_a_test_patients_edited_map_is_refused_by_the_secret(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(made, "of-test", *secret(made)) == 3
    assert "an edited or inferred label map of a test patient" in capsys.readouterr().err


def test_a_map_inferred_from_a_test_patients_scan_is_refused_by_the_secret(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `labels infer` names its source: by the scan, of which there was no label map to name it by."""
    scan, inferred = read_cohort(made / "test").scans[0].scan_id, made / "of-inferred"
    shutil.copytree(made / "of-train", inferred)
    sidecar = next(path for path in sorted(inferred.rglob("*_dseg.json")) if CHAIN_KEY in path.read_text())
    content = json.loads(sidecar.read_text())
    source = private_scan_source(scan, known_secret(made / "secret")).model_dump(mode="json")
    content[CHAIN_KEY]["source"] = source
    sidecar.write_text(json.dumps(content))
    assert evaluate(made, "of-inferred", *secret(made)) == 3
    assert "inferred label map of a test patient" in capsys.readouterr().err


def test_a_picture_with_patients_label_maps_is_for_its_owner_alone(made: Path) -> None:
    modes = {}
    for labels in ("--labels", "--sample"):
        given = str(made / "test-edited") if labels == "--labels" else "2"
        picture = made / f"montage{labels}.png"
        command = ["generate", str(made / "generator.safetensors"), str(made / f"pictured{labels}"), labels, given]
        assert fedphantom([*command, "--montage", str(picture), "--device", "cpu"]) == 0
        modes[labels] = picture.stat().st_mode & 0o077
    assert modes["--labels"] == 0
    assert modes["--sample"]


def test_without_the_secret_it_is_said_that_nothing_shows_it(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(made, "of-test") == 0
    told = capsys.readouterr().err
    assert "3 scans painted from private label maps" in told
    assert "only --site-secret could show" in told


@pytest.mark.parametrize("synthetic", ["of-train", "under-train"])
def test_training_patients_maps_may_be_edited_and_painted(
    made: Path, synthetic: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(made, synthetic, *secret(made)) == 0
    told = capsys.readouterr().err
    # A map painted as it is has no chain: that it is nobody else's edited one, nothing shows.
    assert ("nothing shows" in told) == (synthetic == "under-train")


def test_another_secret_shows_nothing_and_is_said_to(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "another").write_text("0" * 64 + "\n")
    assert evaluate(made, "of-test", "--site-secret", str(tmp_path / "another")) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "nothing can show: no scan was named with this secret" in told
    assert "labels infer" in told


def test_a_map_inferred_from_a_training_patients_scan_is_known_by_the_secret(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, inferred = read_cohort(made / "train").scans, tmp_path / "of-inferred"
    shutil.copytree(made / "of-train", inferred)
    paths = [path for path in sorted(inferred.rglob("*_dseg.json")) if CHAIN_KEY in path.read_text()]
    for path, scan in zip(paths, scans, strict=True):
        content = json.loads(path.read_text())
        source = private_scan_source(scan.scan_id, known_secret(made / "secret"))
        content[CHAIN_KEY]["source"] = source.model_dump(mode="json")
        path.write_text(json.dumps(content))
    assert evaluate(made, str(inferred), *secret(made)) == 0
    assert "private label maps" not in capsys.readouterr().err


def test_a_secret_that_is_none_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(made, "of-train", "--site-secret", str(tmp_path / "nowhere")) == 3
    assert "--site-secret: no site's secret in the file named" in capsys.readouterr().err
