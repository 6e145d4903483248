"""``labels infer``: where the label map lies, what lies on top, what is left out, and that it stays private."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from made_anatomy import (
    CPU,
    DRAWN,
    LPS,
    SECRET,
    STUDY,
    TABLE,
    command,
    infer_all,
    write_doubtful,
    write_scan,
)
from numpy.typing import NDArray
from tiny_cohorts import tiny_study
from tiny_release import Releasable

from fedphantom.cli import run
from fedphantom.common.anatomy import scan as anatomy_scan
from fedphantom.common.anatomy.cohort import LOW_CONFIDENCE
from fedphantom.common.anatomy.scan import infer_scan
from fedphantom.common.cohorts.check import check_cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import prepare
from fedphantom.common.errors import ConfigError, DataError, PolicyRefused
from fedphantom.common.gan.generation import LoadedGenerator, load_generator, numpy_parameters
from fedphantom.common.gan.networks import make_generator
from fedphantom.common.gan.weights import generator_metadata, save_weights
from fedphantom.common.labels.chain import CHAIN_KEY
from fedphantom.common.labels.private_name import private_scan_source, site_secret

# Where the label map lies, and what lies on top.


def test_the_label_map_lies_voxel_by_voxel_where_its_scan_lies(tmp_path: Path, network: LoadedGenerator) -> None:
    head = write_scan(tmp_path / "c" / "one") > 0
    infer_all(tmp_path / "c", network, tmp_path / "out")
    image = nib.load(tmp_path / "out" / "sub-one" / "anat" / "sub-one_dseg.nii.gz")
    np.testing.assert_allclose(image.affine, LPS)
    labels = np.asarray(image.dataobj)
    assert labels.shape == head.shape
    found = labels > 0
    # Inferred at 4 mm and brought back to 2 mm: only the surface may differ.
    assert 2 * (found & head).sum() / (found.sum() + head.sum()) > 0.93
    for axis in range(3):
        assert 2 * (np.flip(found, axis) & head).sum() / (found.sum() + head.sum()) < 0.9


def test_air_around_the_head_changes_nothing(tmp_path: Path) -> None:
    """Instance norms see the whole of what they are given: a scan in much air would be inferred by other statistics."""
    weights, found = tmp_path / "weights.safetensors", []
    save_weights(weights, numpy_parameters(make_generator(STUDY, 3)), generator_metadata(STUDY, 1))
    network = load_generator(weights, CPU, "images-to-labels")
    for name, air in (("little", 8), ("much", 40)):
        write_scan(tmp_path / name / "one")
        for file in (tmp_path / name).rglob("*.nii.gz"):
            image = nib.load(file)
            wider = np.pad(np.asarray(image.dataobj), air)
            affine = image.affine @ np.block([[np.eye(3), np.full((3, 1), -air)], [np.zeros((1, 3)), np.ones((1, 1))]])
            nib.save(nib.Nifti1Image(wider, affine), file)
        (scan,) = read_cohort(tmp_path / name).scans
        found.append(infer_scan(scan, network, TABLE))
    little, much = found
    np.testing.assert_array_equal(much.labels[32:-32, 32:-32, 32:-32], little.labels)
    assert much.confidence == pytest.approx(little.confidence)


def test_the_drawn_tumour_lies_on_top_as_it_was_drawn_and_nothing_else_is_called_one(
    tmp_path: Path, network: LoadedGenerator
) -> None:
    write_scan(tmp_path / "c" / "one")
    infer_all(tmp_path / "c", network, tmp_path / "out")
    labels = np.asarray(nib.load(tmp_path / "out" / "sub-one" / "anat" / "sub-one_dseg.nii.gz").dataobj)
    drawn = np.asarray(nib.load(tmp_path / "c" / "one" / "seg.nii.gz").dataobj) == DRAWN
    np.testing.assert_array_equal(labels == STUDY.labels["tumour"], drawn)
    assert set(np.unique(labels)) == {0, 1, 4}


def test_the_confidence_is_of_what_the_network_inferred_and_not_of_what_was_drawn(
    tmp_path: Path, network: LoadedGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[NDArray[np.bool_]] = []

    def spying(shares: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
        judged.append(where)
        return 1.0

    monkeypatch.setattr(anatomy_scan, "expected_dice", spying)
    write_scan(tmp_path / "c" / "drawn")
    write_scan(tmp_path / "c" / "plain", drawn=False)
    infer_all(tmp_path / "c", network, tmp_path / "out")
    with_tumour, without = judged
    assert (with_tumour <= without).all()
    # Four voxels of 2 mm a side were drawn, read at 4 mm.
    assert 1 <= without.sum() - with_tumour.sum() <= 27


def test_a_drawn_label_that_the_network_infers_is_not_laid_on_top(tmp_path: Path, network: LoadedGenerator) -> None:
    write_scan(tmp_path / "c" / "one")
    everywhere_brain = {"background": (0,), "brain": (3,), "tumour": (DRAWN,)}
    (scan,) = read_cohort(tmp_path / "c").scans
    as_background = infer_scan(scan, network, TABLE).labels
    np.testing.assert_array_equal(infer_scan(scan, network, everywhere_brain).labels, as_background)


def test_a_scan_scaled_after_its_skull_was_stripped_is_read_as_before(tmp_path: Path, network: LoadedGenerator) -> None:
    voxels = write_scan(tmp_path / "a" / "one")
    write_scan(tmp_path / "b" / "one")
    for name in ("t1", "flair"):
        # Whole numbers, so that shifting the air back loses nothing.
        nib.save(nib.Nifti1Image(np.round(voxels) - 512, LPS), tmp_path / "a" / "one" / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(np.round(voxels), LPS), tmp_path / "b" / "one" / f"{name}.nii.gz")
    scaled, stripped = (infer_scan(*read_cohort(tmp_path / name).scans, network, TABLE) for name in "ab")
    np.testing.assert_array_equal(scaled.labels, stripped.labels)
    assert scaled.confidence == stripped.confidence


def test_a_scan_without_a_label_map_or_with_one_channel_gets_its_anatomy(
    tmp_path: Path, network: LoadedGenerator
) -> None:
    head = write_scan(tmp_path / "c" / "one", channels=("t1",), drawn=False) > 0
    report = infer_all(tmp_path / "c", network, tmp_path / "out")
    assert (report.written, report.left_out) == (1, {})
    labels = np.asarray(nib.load(tmp_path / "out" / "sub-one" / "anat" / "sub-one_dseg.nii.gz").dataobj)
    assert set(np.unique(labels)) == {0, 1}
    assert not labels[~head].any()


def test_the_cohort_table_joins_images_and_label_maps_for_any_command(tmp_path: Path, network: LoadedGenerator) -> None:
    write_scan(tmp_path / "c" / "one")
    infer_all(tmp_path / "c", network, tmp_path / "out")
    joined = read_cohort(tmp_path / "out" / "cohort.tsv")
    assert joined.label_names == {0: "background", 1: "brain", 4: "tumour"}
    forward = tiny_study()
    assert check_cohort(joined, forward).ok
    classes = prepare(joined, forward, tmp_path / "cache").classes[0]
    assert set(np.unique(classes)) == {0, 1, 2}


def test_scans_of_one_patient_are_sessions(tmp_path: Path, network: LoadedGenerator) -> None:
    for number in (0, 1):
        write_scan(tmp_path / "c" / f"BraTS-GLI-00001-00{number}")
    for scan in (tmp_path / "c").iterdir():
        for part, name in (("t1", "t1n"), ("flair", "t2f"), ("seg", "seg")):
            (scan / f"{part}.nii.gz").rename(scan / f"{scan.name}-{name}.nii.gz")
    infer_all(tmp_path / "c", network, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").rglob("*_dseg.nii.gz")}
    assert names == {"sub-BraTSGLI00001_ses-01_dseg.nii.gz", "sub-BraTSGLI00001_ses-02_dseg.nii.gz"}
    assert len(read_cohort(tmp_path / "out" / "cohort.tsv").patients) == 1


# Confidence and refusal.


def test_a_scan_below_the_threshold_is_left_out_by_code_and_the_others_stay(
    tmp_path: Path, network: LoadedGenerator
) -> None:
    write_scan(tmp_path / "c" / "good")
    write_doubtful(tmp_path / "c" / "doubtful")
    report = infer_all(tmp_path / "c", network, tmp_path / "out", threshold=0.9)
    lines = (tmp_path / "out" / "confidence.tsv").read_text().splitlines()
    confidences = {name: (float(value), code) for name, value, code in (line.split("\t") for line in lines[1:])}
    assert confidences["good"][0] > 0.9 > confidences["doubtful"][0]
    assert {name: code for name, (_, code) in confidences.items()} == {"good": "n/a", "doubtful": LOW_CONFIDENCE}
    assert report.left_out == {LOW_CONFIDENCE: 1}
    assert [p.patient_id for p in read_cohort(tmp_path / "out" / "cohort.tsv").patients] == ["good"]
    assert not list((tmp_path / "out").glob("sub-doubtful"))


def test_a_broken_scan_is_left_out_by_the_cohort_checks_code(tmp_path: Path, network: LoadedGenerator) -> None:
    write_scan(tmp_path / "c" / "good")
    write_scan(tmp_path / "c" / "cut")
    file = tmp_path / "c" / "cut" / "t1.nii.gz"
    file.write_bytes(file.read_bytes()[:2000])
    unknown = nib.load(tmp_path / "c" / "good" / "seg.nii.gz")
    write_scan(tmp_path / "c" / "other")
    nib.save(nib.Nifti1Image(np.full(unknown.shape, 77, np.uint8), LPS), tmp_path / "c" / "other" / "seg.nii.gz")
    report = infer_all(tmp_path / "c", network, tmp_path / "out")
    assert report.left_out == {"unreadable-file": 1, "label-outside-study": 1}
    assert report.to_json()["written"] == 1


def test_a_cohort_with_none_of_the_channels_is_told_which_the_network_reads(
    tmp_path: Path, network: LoadedGenerator
) -> None:
    write_scan(tmp_path / "c" / "one", channels=("t2",))
    with pytest.raises(DataError, match="missing-channel") as refused:
        infer_all(tmp_path / "c", network, tmp_path / "out")
    assert refused.value.expected == "scans with one or more of the channels that the network reads: T1, FLAIR"


def test_where_no_scan_is_left_nothing_is_written_and_the_exit_code_is_3(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan(tmp_path / "c" / "Jane_Doe")
    assert command(tmp_path / "c", tmp_path / "out", weights, "--threshold", "1") == 3
    said = capsys.readouterr().err
    assert f"{LOW_CONFIDENCE} (1)" in said
    assert "a confidence of 1 or more (--threshold)" in " ".join(said.split())
    assert "Doe" not in said
    assert not (tmp_path / "out").exists()


def test_the_command_reports_counts_and_names_nobody(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan(tmp_path / "c" / "Jane_Doe")
    assert command(tmp_path / "c", tmp_path / "out", weights, "--json") == 0
    said = capsys.readouterr().out
    content = json.loads(said)
    assert (content["scans"], content["written"], content["left_out"]) == (1, 1, {})
    assert 0.8 < content["confidence"]["lowest"] <= content["confidence"]["median"] <= 1
    assert len(content["network_sha256"]) == 64
    assert "Doe" not in said
    assert command(tmp_path / "c", tmp_path / "again", weights) == 0
    assert "1 of 1 label map written" in capsys.readouterr().out


# Direction.


def test_a_network_of_the_other_direction_is_refused_both_ways(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match="from images to labels"):
        load_generator(weights, CPU)
    assert run(["generate", str(weights), str(tmp_path / "x"), "--sample", "1"]) == 3
    painter = tmp_path / "painter.safetensors"
    save_weights(painter, numpy_parameters(make_generator(tiny_study(), 0)), generator_metadata(tiny_study(), 1))
    with pytest.raises(DataError, match="from labels to images"):
        load_generator(painter, CPU, "images-to-labels")
    write_scan(tmp_path / "c" / "one")
    assert command(tmp_path / "c", tmp_path / "out", painter) == 3
    assert not (tmp_path / "out").exists()
    capsys.readouterr()


# Private.


def sidecar_of(out: Path) -> dict[str, object]:
    (path,) = out.rglob("*_dseg.json")
    content: dict[str, object] = json.loads(path.read_text())
    return content


def test_a_sidecar_tells_confidence_network_and_a_private_source_and_names_nobody(
    tmp_path: Path, network: LoadedGenerator
) -> None:
    write_scan(tmp_path / "c" / "Jane_Doe")
    infer_all(tmp_path / "c", network, tmp_path / "out")
    sidecar = sidecar_of(tmp_path / "out")
    source = private_scan_source("Jane_Doe", SECRET)
    assert sidecar == {
        CHAIN_KEY: {"source": source.model_dump(), "steps": []},
        "Confidence": pytest.approx(1, abs=0.1),
        "NetworkSha256": network.sha256,
        "NetworkTrainedOn": "private",
        "Private": True,
    }
    assert source.kind == "private"
    assert "Doe" not in source.name


def test_the_source_is_found_again_with_the_secret_alone() -> None:
    one = private_scan_source("scan-1", SECRET)
    assert one == private_scan_source("scan-1", SECRET)
    assert one.name not in {private_scan_source("scan-2", SECRET).name, private_scan_source("scan-1", bytes(32)).name}
    assert one.sha256 == "0" * 64  # a hash of voxels would confirm a guess


def test_the_secret_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    first = site_secret(file)
    assert len(first) == 32
    assert site_secret(file) == first
    assert file.stat().st_mode & 0o077 == 0
    assert site_secret(tmp_path / "other") != first
    file.write_text("no secret")
    with pytest.raises(ConfigError, match="no site's secret"):
        site_secret(file)


def test_what_is_painted_on_an_inferred_label_map_is_never_packed(
    tmp_path: Path, network: LoadedGenerator, releasable: Releasable
) -> None:
    write_scan(tmp_path / "c" / "one")
    infer_all(tmp_path / "c", network, tmp_path / "out")
    chain = sidecar_of(tmp_path / "out")[CHAIN_KEY]
    edit: Callable[[dict[str, object]], None] = lambda sidecar: sidecar.update({CHAIN_KEY: chain})  # noqa: E731
    releasable.edit_sidecar(edit)
    with pytest.raises(PolicyRefused, match="private label map") as refused:
        releasable.pack()
    assert refused.value.exit_code == 4
    assert not releasable.release.exists()


def test_a_release_of_such_a_network_is_refused_as_what_it_is_before_an_audit_is_asked_for(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(weights, tmp_path / "run" / "generator.safetensors")
    assert run(["release", "key", str(tmp_path / "keys")]) == 0
    capsys.readouterr()
    line = ["release", "pack", str(tmp_path / "run"), str(tmp_path / "release"), "--tier", "internal"]
    for kind in ("weights", "volumes"):
        if kind == "volumes":  # nor is one that is there looked into
            (tmp_path / "run" / "audit").mkdir()
            (tmp_path / "run" / "audit" / "audit.json").write_text("{}")
        assert run([*line, "--key", str(tmp_path / "keys" / "key.pem"), "--kind", kind]) == 4
        said = " ".join(capsys.readouterr().err.split())
        assert "a network from images to labels" in said
        assert "never released, whatever its audit says" in said
        assert "Run the audit" not in said
