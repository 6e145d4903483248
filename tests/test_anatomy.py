"""``labels infer``: where the label map lies, what lies on top, what is left out, and that it stays private."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from real_patients import FOLDER, SCHEMES
from tiny_anatomy import anatomy_study
from tiny_cohorts import tiny_study
from tiny_release import Releasable

from fedphantom.cli import run
from fedphantom.common.anatomy import scan as anatomy_scan
from fedphantom.common.anatomy.cohort import LOW_CONFIDENCE, InferenceReport, infer_cohort
from fedphantom.common.anatomy.scan import head_box, infer_scan
from fedphantom.common.cohort import Scan
from fedphantom.common.cohorts.check import check_cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import ABSENT, prepare
from fedphantom.common.device import choose_device
from fedphantom.common.errors import ConfigError, DataError, GeometryError, PolicyRefused
from fedphantom.common.gan.generation import LoadedGenerator, load_generator, numpy_parameters
from fedphantom.common.gan.inference import expected_dice, infer
from fedphantom.common.gan.networks import make_generator
from fedphantom.common.gan.weights import generator_metadata, save_weights
from fedphantom.common.labels.folder import CHAIN_KEY
from fedphantom.common.labels.private_name import private_scan_source, site_secret
from fedphantom.common.labels.remapping import read_remapping
from fedphantom.common.study import parse_study

CPU = choose_device("cpu")
STUDY = anatomy_study()
SECRET = bytes(range(32))
DRAWN = 9
TABLE = {"background": (0, 3), "tumour": (DRAWN,)}
"""What the cohort's values mean: 3 is its own 'rest of the head'."""
LPS = np.array([[-2.0, 0, 0, 30], [0, -2.0, 0, 21], [0, 0, 2.0, -7], [0, 0, 0, 1]])


def certain_network(sure: float = 40.0) -> dict[str, NDArray[np.float32]]:
    """Weights that call a voxel brain where the first channel is above -0.9, and are this sure of it."""
    network = make_generator(STUDY, 0)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.zero_()
        network.head.weight[0, -2] = -sure  # background falls with T1, the first of the two channels given
        network.head.bias[0] = -0.9 * sure
        network.head.bias[2] = -99.0  # never what is laid over
    return numpy_parameters(network)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "generator.safetensors"
    save_weights(path, certain_network(), generator_metadata(STUDY, 1))
    return path


@pytest.fixture(scope="module")
def network(weights: Path) -> LoadedGenerator:
    return load_generator(weights, CPU, "images-to-labels")


def head_in_corner() -> NDArray[np.float32]:
    """A lopsided head, so that a turned or shifted label map shows; (X, Y, Z) as stored."""
    x, y, z = np.meshgrid(np.arange(30), np.arange(36), np.arange(28), indexing="ij")
    head = ((x - 11) / 8) ** 2 + ((y - 21) / 11) ** 2 + ((z - 15) / 9) ** 2 < 1
    head |= (abs(x - 16) < 5) & (abs(y - 12) < 4) & (abs(z - 20) < 4)
    random = np.random.default_rng(1)
    return np.where(head, 300 + random.uniform(-40, 40, head.shape), 0).astype(np.float32)


def write_scan(folder: Path, channels: tuple[str, ...] = ("t1", "flair"), drawn: bool = True) -> NDArray[np.float32]:
    """A BraTS-like folder; the tumour is drawn as 9, the rest of the head as 3."""
    folder.mkdir(parents=True)
    voxels = head_in_corner()
    for name in channels:
        nib.save(nib.Nifti1Image(voxels, LPS), folder / f"{name}.nii.gz")
    if drawn:
        labels = np.where(voxels > 0, 3, 0).astype(np.uint8)
        labels[8:12, 18:22, 13:17] = DRAWN
        nib.save(nib.Nifti1Image(labels, LPS), folder / "seg.nii.gz")
    return voxels


def write_doubtful(folder: Path) -> None:
    """No head at all: every voxel about as bright as where the network changes its mind, but for a few."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(2)
    voxels = 100 + random.uniform(4, 6, (30, 36, 28))
    voxels[random.random(voxels.shape) < 0.02] = 200
    voxels[random.random(voxels.shape) < 0.02] = 100
    for name in ("t1", "flair"):
        nib.save(nib.Nifti1Image(voxels.astype(np.float32), LPS), folder / f"{name}.nii.gz")


def infer_all(cohort: Path, network: LoadedGenerator, out: Path, threshold: float = 0.8) -> InferenceReport:
    return infer_cohort(read_cohort(cohort), network, out, secret=SECRET, threshold=threshold, remapping=TABLE)


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


def command(cohort: Path, out: Path, weights: Path, *more: str) -> int:
    table = out.parent / "table.toml"
    table.write_text(f"background = [0, 3]\ntumour = [{DRAWN}]\n")
    return run(["labels", "infer", str(cohort), str(out), "--network", str(weights), "--remapping", str(table), *more])


def test_where_no_scan_is_left_nothing_is_written_and_the_exit_code_is_3(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan(tmp_path / "c" / "Jane_Doe")
    assert command(tmp_path / "c", tmp_path / "out", weights, "--threshold", "1") == 3
    said = capsys.readouterr().err
    assert f"{LOW_CONFIDENCE} (1)" in said
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


# What the drawn labels mean.


def named_cohort(root: Path, lookup: str, drawn: int = 4) -> Path:
    """A BIDS cohort of one scan with a drawn tumour, and what it says of its values; an empty text for nothing."""
    voxels = write_scan(root / "made", drawn=False)
    labels = np.where(voxels > 0, 1, 0).astype(np.uint8)
    labels[8:12, 18:22, 13:17] = drawn
    anat = root / "c" / "sub-01" / "anat"
    anat.mkdir(parents=True)
    for array, name in ((voxels, "T1w"), (voxels, "FLAIR"), (labels, "dseg")):
        nib.save(nib.Nifti1Image(array, LPS), anat / f"sub-01_{name}.nii.gz")
    if lookup:
        (root / "c" / "dseg.tsv").write_text(f"index\tname\n0\tbackground\n{lookup}")
    return root / "c"


def infer_untold(cohort: Path, network: LoadedGenerator, out: Path) -> InferenceReport:
    return infer_cohort(read_cohort(cohort), network, out, secret=SECRET, threshold=0)


def test_values_that_no_name_and_no_table_explains_are_refused_even_where_the_study_has_the_same_numbers(
    tmp_path: Path, network: LoadedGenerator
) -> None:
    write_scan(tmp_path / "brats" / "one")
    for cohort in (tmp_path / "brats", named_cohort(tmp_path, "", drawn=STUDY.labels["tumour"])):
        with pytest.raises(DataError, match="does not name their values") as refused:
            infer_untold(cohort, network, tmp_path / "out")
        assert refused.value.exit_code == 3
        assert "--remapping" in refused.value.remedy
        assert not (tmp_path / "out").exists()


def test_the_table_in_the_refusal_is_whole_and_can_be_used_as_it_stands(
    tmp_path: Path, network: LoadedGenerator
) -> None:
    with pytest.raises(DataError) as refused:
        infer_untold(named_cohort(tmp_path, ""), network, tmp_path / "out")
    table = tmp_path / "table.toml"
    table.write_text("\n".join(re.findall(r"'([^']+ = \[[^']+\])'", refused.value.remedy)))
    assert read_remapping(table, STUDY.labels) == {"background": (0,), "tumour": (4,)}


def test_values_that_the_cohort_names_as_the_study_does_need_no_table(tmp_path: Path, network: LoadedGenerator) -> None:
    report = infer_untold(named_cohort(tmp_path, "1\tBrain\n4\tTUMOUR\n"), network, tmp_path / "out")
    assert (report.written, report.with_drawn, report.drawn) == (1, 1, {"tumour": 1})


@pytest.mark.parametrize(
    ("lookup", "said"),
    [
        ("1\tbrain\n4\tventricle\n", "value 4 'ventricle', which means 'tumour'"),
        ("1\ttumour\n4\tbrain\n", "value 1 'tumour', which means 'brain'"),
        ("1\tbrain\n4\ttumour\n7\tcavity\n", "value 7 'cavity', which means nothing"),
    ],
)
def test_values_that_the_cohort_names_otherwise_are_refused(
    lookup: str, said: str, tmp_path: Path, network: LoadedGenerator
) -> None:
    with pytest.raises(DataError) as refused:
        infer_untold(named_cohort(tmp_path, lookup), network, tmp_path / "out")
    assert said in refused.value.found
    assert "--remapping" in refused.value.expected


def test_a_decathlons_names_are_compared_too(tmp_path: Path, network: LoadedGenerator) -> None:
    voxels = write_scan(tmp_path / "made", drawn=False)
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "c" / folder).mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.stack([voxels, voxels], -1), LPS), tmp_path / "c" / "imagesTr" / "one.nii.gz")
    labels = np.where(voxels > 0, 4, 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(labels, LPS), tmp_path / "c" / "labelsTr" / "one.nii.gz")
    says = {"modality": {"0": "T1", "1": "FLAIR"}, "labels": {"0": "background", "4": "tumour"}}
    (tmp_path / "c" / "dataset.json").write_text(json.dumps(says))
    assert infer_untold(tmp_path / "c", network, tmp_path / "out").drawn == {"tumour": 1}
    (tmp_path / "c" / "dataset.json").write_text(json.dumps(says | {"labels": {"0": "background", "4": "edema"}}))
    with pytest.raises(DataError, match="'edema'"):
        infer_untold(tmp_path / "c", network, tmp_path / "again")


def test_a_value_beside_those_that_the_cohort_names_leaves_its_scan_out(
    tmp_path: Path, network: LoadedGenerator
) -> None:
    cohort = named_cohort(tmp_path, "1\tbrain\n", drawn=4)
    with pytest.raises(DataError, match="label-outside-study"):
        infer_untold(cohort, network, tmp_path / "out")


def test_a_cohort_without_label_maps_needs_neither_names_nor_a_table(tmp_path: Path, network: LoadedGenerator) -> None:
    write_scan(tmp_path / "c" / "one", drawn=False)
    report = infer_untold(tmp_path / "c", network, tmp_path / "out")
    assert (report.written, report.with_drawn, report.drawn) == (1, 0, {"tumour": 0})


def test_the_command_says_how_many_scans_kept_what_was_drawn(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan(tmp_path / "c" / "one")
    write_scan(tmp_path / "c" / "two", drawn=False)
    assert command(tmp_path / "c", tmp_path / "out", weights, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["written"], content["with_drawn_labels"], content["drawn_labels"]) == (2, 1, {"tumour": 1})
    assert command(tmp_path / "c", tmp_path / "again", weights) == 0
    assert "1 of them with labels that the hospital drew (tumour 1) on top" in capsys.readouterr().out


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the two real patients are not beside this checkout")
def test_real_patients_of_two_schemes_are_refused_together_and_keep_their_tumours_apart(
    tmp_path: Path, network: LoadedGenerator
) -> None:
    patients = read_cohort(FOLDER)
    with pytest.raises(DataError, match="does not name their values"):
        infer_cohort(patients, network, tmp_path / "out", secret=SECRET, threshold=0)
    for name, scheme in SCHEMES.items():
        table = {"background": tuple({0, 1, 2, 3, 4} - scheme.keys()), "tumour": tuple(scheme)}
        one = patients.only([name])
        report = infer_cohort(one, network, tmp_path / name, secret=SECRET, threshold=0, remapping=table)
        assert report.drawn == {"tumour": 1}


def test_the_documents_table_fits_the_anatomy_template() -> None:
    study = parse_study((files("fedphantom.server") / "study_templates" / "anatomy.toml").read_text())
    table = read_remapping(Path(__file__).parents[1] / "docs" / "remappings" / "brats.toml", study.labels)
    assert set(study.network.overlay) == table.keys() - {"background"}


# Confidence as a figure.


@given(st.integers(0, 2**32), st.floats(0.05, 3.0))
@settings(max_examples=30, deadline=None)
def test_confidence_is_the_dice_to_expect_where_the_probabilities_are_true(seed: int, sharpness: float) -> None:
    random = np.random.default_rng(seed)
    raw = np.exp(sharpness * random.normal(size=(3, 12, 12, 12)))
    p = (raw / raw.sum(axis=0)).astype(np.float32)
    truth = (random.random((12, 12, 12)) > np.cumsum(p, axis=0)).sum(axis=0).clip(0, 2)
    chosen = p.argmax(axis=0)
    got = [2 * ((chosen == c) & (truth == c)).sum() / ((chosen == c).sum() + (truth == c).sum()) for c in (1, 2)]
    expected = expected_dice(p, np.ones((12, 12, 12), bool))
    assert 0 <= expected <= 1
    assert expected == pytest.approx(np.mean(got), abs=0.09)


def test_a_certain_answer_has_confidence_one_and_an_empty_head_none() -> None:
    p = np.zeros((2, 4, 4, 4), np.float32)
    p[1] = 1
    everywhere = np.ones((4, 4, 4), bool)
    assert expected_dice(p, everywhere) == 1
    assert expected_dice(p, ~everywhere) == 0


def test_a_label_that_is_probable_everywhere_and_chosen_nowhere_costs_confidence() -> None:
    p = np.stack([np.full((4, 4, 4), share, np.float32) for share in (0.05, 0.5, 0.45)])
    assert expected_dice(p, np.ones((4, 4, 4), bool)) < 0.5


# Windows.


def test_a_volume_larger_than_the_window_is_read_in_windows_to_the_same_answer(network: LoadedGenerator) -> None:
    random = np.random.default_rng(3)
    images = random.uniform(-1, 1, (2, 37, 20, 50)).astype(np.float32)
    shares = infer(network.network, images, STUDY, CPU)
    brain = 1 / (1 + np.exp(40.0 * (-0.9 - images[0])))
    np.testing.assert_allclose(shares[1], brain, atol=2e-3)
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-5)


def test_a_volume_smaller_than_the_window_is_padded_with_background(network: LoadedGenerator) -> None:
    images = np.random.default_rng(3).uniform(-1, 1, (2, 9, 5, 11)).astype(np.float32)
    assert infer(network.network, images, STUDY, CPU).shape == (2, 9, 5, 11)


def test_the_answer_is_the_same_for_a_scan_and_its_mirror_image() -> None:
    study_network = make_generator(STUDY, 4).eval()
    images = np.random.default_rng(3).uniform(-1, 1, (2, 16, 16, 16)).astype(np.float32)
    straight = infer(study_network, images, STUDY, CPU)
    mirrored = infer(study_network, images[:, ::-1].copy(), STUDY, CPU)
    np.testing.assert_allclose(straight[:, ::-1], mirrored, atol=1e-5)


def test_the_head_is_found_whatever_specks_lie_beside_it() -> None:
    images = np.full((2, 20, 20, 20), ABSENT, np.float32)
    images[1, 6:12, 7:11, 3:9] = 0.4
    images[0, 0, 0, 0] = images[1, 19, 19, 19] = 0.9
    assert head_box(images) == (slice(4, 14), slice(5, 13), slice(1, 11))
    assert head_box(images * 0 + ABSENT) == (slice(0, 20),) * 3


def test_channels_of_different_shapes_are_refused(tmp_path: Path, network: LoadedGenerator) -> None:
    write_scan(tmp_path / "c" / "one")
    (scan,) = read_cohort(tmp_path / "c").scans
    nib.save(nib.Nifti1Image(np.ones((30, 36, 27), np.float32), LPS), tmp_path / "c" / "one" / "flair.nii.gz")
    with pytest.raises(GeometryError):
        infer_scan(scan, network, TABLE)
    with pytest.raises(GeometryError, match="without any channel"):
        infer_scan(Scan("s", "p", {}, None), network, TABLE)


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
