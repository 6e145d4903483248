"""Fidelity: each measure on cases whose answer is known, beside a yardstick, told as aggregates alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from tiny_cohorts import tiny_scans, tiny_study, write_tiny_cohort

from fedphantom.cli import run as fedphantom
from fedphantom.client.evaluation import fidelity as fidelity_module
from fedphantom.client.evaluation.discrepancy import discrepancy, gaussian_kernel, squared_mmd
from fedphantom.client.evaluation.diversity import KERNEL, pair_similarities, scale_weights, similarity
from fedphantom.client.evaluation.fidelity import Fidelity, measure_fidelity
from fedphantom.client.evaluation.fidelity_text import print_fidelity
from fedphantom.client.evaluation.intensities import (
    BINS,
    IntensityDistance,
    intensity_distances,
    tissue_histograms,
    wasserstein,
)
from fedphantom.client.evaluation.material import Material
from fedphantom.common.cohorts.preparation import PreparedScans, joined
from fedphantom.common.device import choose_device
from fedphantom.common.errors import DataError, PolicyRefused
from fedphantom.common.segmentation import SegmenterPlan
from fedphantom.privacy.release.evaluation import evaluation_extract
from fedphantom.privacy.synthetic_digest import synthetic_digest

CPU = choose_device("cpu")
STUDY = tiny_study()
BIN = 2 / BINS
TRAIN, TEST = tiny_scans(6), tiny_scans(8, seed=2, prefix="t")
TRUE = tiny_scans(10, seed=1, prefix="s")


# Intensities


def histogram(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """One patient whose only tissue has these intensities, shape (BINS,)."""
    volume = values.astype(np.float32).reshape(1, 1, -1, 1, 1)
    scans = PreparedScans(volume, np.ones(volume.shape[1:], np.uint8), ("p",), ("",), np.zeros((1, 0)))
    return tissue_histograms(scans, [0], 2)[0, 0, 0]


@given(
    st.lists(st.floats(-0.7, 0.7), min_size=1, max_size=30),
    st.lists(st.floats(-0.7, 0.7), min_size=1, max_size=30),
)
@settings(deadline=None)
def test_distances_are_wassersteins_to_within_a_bin(one: list[float], other: list[float]) -> None:
    expected = stats.wasserstein_distance(one, other)
    found = wasserstein(histogram(np.array(one)), histogram(np.array(other)))
    assert found == pytest.approx(expected, abs=BIN + 1e-6)


@given(st.lists(st.floats(-0.6, 0.6), min_size=1, max_size=30), st.floats(-0.3, 0.3))
@settings(deadline=None)
def test_a_shift_is_as_far_as_it_is(values: list[float], shift: float) -> None:
    found = wasserstein(histogram(np.array(values)), histogram(np.array(values) + shift))
    assert found == pytest.approx(abs(shift), abs=BIN + 1e-6)
    assert wasserstein(histogram(np.array(values)), histogram(np.array(values))) == 0


def flat(patients: int, tissue: dict[int, tuple[float, float]]) -> PreparedScans:
    """Scans of 8³ voxels: half of them of each named class, of that class's intensity in either channel."""
    volumes = np.full((patients, 2, 8, 8, 8), -1, np.float32)
    classes = np.zeros((patients, 8, 8, 8), np.uint8)
    for half, (index, intensities) in enumerate(tissue.items()):
        classes[:, 4 * half : 4 * half + 4] = index
        volumes[:, :, 4 * half : 4 * half + 4] = np.array(intensities, np.float32).reshape(1, 2, 1, 1, 1)
    names = tuple(f"p{i}" for i in range(patients))
    return PreparedScans(volumes, classes, names, ("",) * patients, np.zeros((patients, 0)))


def distances(real: PreparedScans, synthetic: PreparedScans) -> dict[tuple[str, str], IntensityDistance]:
    histograms = [tissue_histograms(scans, range(len(scans)), 3) for scans in (real, synthetic)]
    found = intensity_distances(histograms[0], histograms[1], ("brain", "tumour"), ("T1", "FLAIR"), seed=0)
    return {(d.label, d.channel): d for d in found}


def test_each_tissue_and_channel_is_compared_for_itself() -> None:
    real, synthetic = flat(6, {1: (0.0, 0.5), 2: (-0.5, 0.2)}), flat(3, {1: (0.0, 0.5), 2: (-0.5, 0.5)})
    found = distances(real, synthetic)
    assert {key: d.real for key, d in found.items()} == dict.fromkeys(found, 0.0)
    assert found.pop(("tumour", "FLAIR")).synthetic == pytest.approx(0.3, abs=BIN)
    assert {key: d.synthetic for key, d in found.items()} == dict.fromkeys(found, 0.0)


def test_a_tissue_that_no_synthetic_scan_has_is_not_compared() -> None:
    found = distances(flat(6, {1: (0.0, 0.5), 2: (-0.5, 0.2)}), flat(3, {1: (0.0, 0.5)}))
    assert found["brain", "T1"].synthetic == 0
    assert found["tumour", "T1"].synthetic is None
    assert found["tumour", "T1"].real == 0


def test_real_patients_who_differ_from_each_other_are_the_yardstick() -> None:
    dark, bright = flat(4, {1: (-0.4, 0.0)}), flat(4, {1: (0.4, 0.0)})
    renamed = replace(bright, patients=tuple(f"q{i}" for i in range(4)))
    found = distances(joined([dark, renamed]), dark)["brain", "T1"]
    assert found.real is not None
    assert found.synthetic is not None
    assert 0.1 < found.real < 0.4  # halves rarely hold as many of both
    assert found.synthetic == pytest.approx(0.4, abs=0.05)  # half of the reference is 0.8 away


def test_every_patient_counts_once_however_many_scans() -> None:
    once, thrice = flat(1, {1: (0.0, 0.0)}), flat(3, {1: (0.8, 0.0)})
    both = joined([once, replace(thrice, patients=("q",) * 3)])
    pooled = tissue_histograms(both, range(4), 2).mean(axis=0)[0, 0]
    assert sorted(pooled[pooled > 0]) == pytest.approx([0.5, 0.5])


# Diversity


def noisy(scans: int, wobble: float, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    base = random.uniform(-1, 1, (1, 2, 16, 16, 16))
    return np.clip(base + wobble * random.normal(size=(scans, 2, 16, 16, 16)), -1, 1).astype(np.float32)


def test_scans_all_the_same_have_an_ms_ssim_of_one() -> None:
    same = similarity(pair_similarities(np.repeat(TEST.volumes[:1], 5, axis=0), range(5), CPU), seed=0)
    assert (same.mean, same.low, same.high) == pytest.approx((1, 1, 1))
    assert same.scans == 5


def test_a_collapsed_generator_is_more_alike_than_real_patients_and_the_more_so_the_worse() -> None:
    real = similarity(pair_similarities(TEST.volumes, range(8), CPU), seed=0)
    collapsed, nearly = (similarity(pair_similarities(noisy(4, w), range(4), CPU), seed=0) for w in (0.01, 0.3))
    assert real.high < 0.98 < collapsed.low
    assert nearly.high < collapsed.low


def test_pairs_are_symmetric_and_of_the_rows_asked_for() -> None:
    pairs = pair_similarities(TEST.volumes, [5, 0, 3], CPU)
    np.testing.assert_array_equal(pairs, pairs.T)
    np.testing.assert_array_equal(pairs[0, 1], pair_similarities(TEST.volumes, [0, 5], CPU)[0, 1])
    assert (np.diag(pairs) == 1).all()


def test_a_scan_is_never_paired_with_itself() -> None:
    pairs = np.array([[1, 0.2, 0.4], [0.2, 1, 0.6], [0.4, 0.6, 1]])
    found = similarity(pairs, seed=0)
    assert found.mean == pytest.approx(0.4)
    assert 0.2 <= found.low <= 0.4 <= found.high <= 0.6  # with itself a scan would bring 1 in


@given(st.tuples(*[st.integers(1, 30).map(lambda n: 8 * n)] * 3))
def test_every_grid_has_room_for_the_window_at_every_scale(shape: tuple[int, int, int]) -> None:
    weights = scale_weights(shape)
    assert 1 <= len(weights) <= 5
    assert sum(weights) == pytest.approx(1)
    assert min(shape) // 2 ** (len(weights) - 1) >= KERNEL


@pytest.mark.parametrize("side", [8, 16, 24, 32, 56, 64])
def test_monai_takes_as_many_scales(side: int) -> None:
    volumes = np.zeros((2, 1, side, side, side), np.float32)
    assert pair_similarities(volumes, range(2), CPU)[0, 1] == pytest.approx(1)


# Discrepancy


def draws(number: int, seed: int, mean: float = 0.0, spread: float = 1.0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(mean, spread, (number, 8))


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 1000))
@settings(deadline=None)
def test_the_estimate_is_grettons_sum_over_all_pairs(m: int, n: int, seed: int) -> None:
    kernel = gaussian_kernel(draws(m + n, seed))
    one, other = range(m), range(m, m + n)
    expected = (
        np.mean([kernel[i, j] for i in one for j in one if i != j])
        + np.mean([kernel[i, j] for i in other for j in other if i != j])
        - 2 * np.mean([kernel[i, j] for i in one for j in other])
    )
    assert squared_mmd(kernel, np.arange(m + n) < m) == pytest.approx(expected, abs=1e-12)


def test_the_estimate_is_around_zero_where_there_is_no_difference() -> None:
    found = [discrepancy(draws(12, 2 * i), draws(20, 2 * i + 1), seed=i) for i in range(60)]
    assert abs(np.mean([d.mmd2 for d in found])) < 2.5 * stats.sem([d.mmd2 for d in found])
    assert 0 < sum(d.p_value <= 0.2 for d in found) < 25  # 12 expected


@pytest.mark.parametrize("change", [{"mean": 1.0}, {"spread": 2.0}], ids=["other means", "other spread alone"])
def test_other_distributions_are_told_apart(change: dict[str, float]) -> None:
    found = discrepancy(draws(30, 1), draws(40, 2, **change), seed=0)
    assert found.mmd2 > found.null95
    assert found.p_value == pytest.approx(1 / 2001)


def test_features_all_the_same_have_no_discrepancy() -> None:
    found = discrepancy(np.ones((5, 8)), np.ones((7, 8)), seed=0)
    assert (found.mmd2, found.null95, found.p_value) == pytest.approx((0, 0, 1))


# All of it


def material(**changes: PreparedScans) -> Material:
    parts = {"train": TRAIN, "test": TEST, "synthetic": TRUE} | changes
    return Material(public=None, study=STUDY, synthetic_sha256="a" * 64, **parts)


ONE_STEP = SegmenterPlan(steps=1, batch=1)
LEARNED = SegmenterPlan(steps=80, batch=2, learning_rate=1e-2, augmentation=False)


def measured(plan: SegmenterPlan = ONE_STEP, **changes: PreparedScans) -> Fidelity:
    return measure_fidelity(material(**changes), plan, 0, CPU, lambda line: None, lambda done, total: None)


def test_true_scans_are_found_as_well_as_real_ones_and_those_of_a_generator_that_ignores_its_labels_are_not() -> None:
    true = measured(LEARNED)
    whole = true.refound["whole"]
    assert whole.real.mean > 0.85
    assert whole.synthetic.mean == pytest.approx(whole.real.mean, abs=0.05)
    assert true.refound["tumour"].synthetic.mean > 0.7
    assert true.features.p_value > 0.01
    assert all(d.synthetic is not None and d.real is not None for d in true.intensities)
    assert max(d.synthetic - d.real for d in true.intensities if d.synthetic and d.real) < 0.02
    # Other patients' volumes under these label maps, mirrored: the tumour is elsewhere.
    ignoring = measured(LEARNED, synthetic=replace(TRUE, volumes=np.roll(TRUE.volumes, 1, axis=0)[:, :, ::-1].copy()))
    assert ignoring.refound["tumour"].synthetic.mean < true.refound["tumour"].synthetic.mean - 0.3
    assert ignoring.refound["tumour"].real == true.refound["tumour"].real


def test_scans_of_another_contrast_show_in_intensities_and_features() -> None:
    other = measured(synthetic=replace(TRUE, volumes=np.where(TRUE.volumes > -1, -TRUE.volumes, -1)))
    assert all(d.synthetic > 3 * d.real for d in other.intensities if d.synthetic and d.real)
    assert other.features.p_value < 0.01
    assert other.features.mmd2 > other.features.null95


def test_volumes_of_a_collapsed_generator_are_all_alike_beside_real_scans_that_are_not() -> None:
    found = measured(synthetic=replace(TRUE, volumes=np.repeat(TRUE.volumes[:1], len(TRUE), axis=0)))
    assert found.real_pairs == similarity(pair_similarities(TEST.volumes, range(8), CPU), seed=0)
    assert found.synthetic_pairs.mean == pytest.approx(1)
    assert found.real_pairs.high < found.synthetic_pairs.low - 0.02


def test_the_same_call_measures_the_same() -> None:
    assert measured() == measured()


def test_as_many_pairs_are_compared_on_either_side_and_few_synthetic_scans_suffice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fidelity_module, "MOST_SYNTHETIC", 6)
    found = measured()
    assert found.synthetic_pairs.scans == found.real_pairs.scans == 6
    assert found.refound["whole"].synthetic.patients == found.synthetic_scans == 6
    assert found.refound["whole"].real.patients == found.test_patients == 8


REFUSED = {
    "four test patients": ({"test": TEST.only(range(4))}, "4 test patients; expected 5 or more"),
    "four synthetic scans": ({"synthetic": TRUE.only(range(4))}, "4 synthetic scans; expected 5 or more"),
    "a test patient who was trained on": ({"train": joined([TRAIN, TEST.only([0])])}, "scans of arm 'real'"),
    "a test patient's scan passed off as synthetic": (
        {"synthetic": joined([TRUE, tiny_scans(1, seed=2, prefix="s9")])},
        "scans of arm 'synthetic'",
    ),
}


@pytest.mark.parametrize(("changes", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_tell_too_much_or_nothing_is_refused(changes: dict[str, PreparedScans], told: str) -> None:
    with pytest.raises(DataError, match=told):
        measured(**changes)


def test_the_command_leaves_aggregates_for_their_owner_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_cohort(tmp_path / "train", 4)
    write_tiny_cohort(tmp_path / "test", 5, seed=2, prefix="t")
    write_tiny_cohort(tmp_path / "made", 5, seed=1, prefix="synthetic")
    named = ["--real-train", "train", "--real-test", "test", "--synthetic", "made", "--out", "out"]
    paths = [word if word.startswith("--") else str(tmp_path / word) for word in named]
    command = ["evaluate", *paths, "--protocol", "fidelity", "--steps", "2", "--device", "cpu"]
    assert fedphantom([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    kept = tmp_path / "out" / "fidelity.json"
    assert json.loads(kept.read_text()) == told
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "only inside the signed report" in told["notice"]
    assert told.keys() == {
        "protocol",
        "notice",
        "refinding",
        "test_patients_with",
        "synthetic_scans_with",
        "intensity_distance",
        "ms_ssim",
        "mmd",
        "counts",
        "segmenter",
        "synthetic_sha256",
    }
    with pytest.raises(PolicyRefused, match="fewer than 20 test patients"):  # and nothing else in it is amiss
        evaluation_extract([kept.read_bytes()], synthetic_digest(tmp_path / "made"))
    assert told["refinding"].keys() == {"brain", "tumour", "whole", "foreground"}
    for found in told["refinding"].values():
        assert found["synthetic"].keys() == found["real"].keys() == {"mean", "ci", "n"}
    assert [(d["label"], d["channel"]) for d in told["intensity_distance"]] == [
        (label, channel) for label in ("brain", "tumour") for channel in ("T1", "FLAIR")
    ]
    assert told["counts"] == {
        "training_patients": 4,
        "test_patients": 5,
        "procedural_training_patients": 0,
        "procedural_test_patients": 0,
        "synthetic_scans": 5,
    }
    assert told["ms_ssim"]["scales"] == 2
    assert not any(patient in kept.read_text() for patient in ("p00", "t00", "synthetic00"))


@pytest.mark.parametrize(("who", "what"), [("test", "test patient"), ("synthetic", "synthetic scan")])
def test_a_structure_that_nobody_has_on_one_side_gets_no_figure_and_is_said_to_be_absent(
    who: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = TEST if who == "test" else TRUE
    found = measured(**{who: replace(given, classes=np.minimum(given.classes, 1))})
    told = found.to_json()
    assert told["refinding"].keys() == {"brain", "whole", "foreground"}
    counts = {"test": told["test_patients_with"], "synthetic": told["synthetic_scans_with"]}
    assert [counts[each]["tumour"] == 0 for each in counts] == [each == who for each in counts]
    print_fidelity(found)
    refinding, _, intensities = capsys.readouterr().out.partition("Intensities")
    assert "synthetic     –  other half" in intensities
    assert "–: of the scans that are compared, one side has no voxel of the label" in intensities
    assert [line for line in refinding.splitlines() if "tumour" in line] == [
        f"  No figures of 'tumour': no {what} has it."
    ]


def test_labels_found_again_say_how_many_patients_have_them(capsys: pytest.CaptureFixture[str]) -> None:
    classes = np.array(TEST.classes)
    classes[:3] = np.minimum(classes[:3], 1)
    print_fidelity(measured(test=replace(TEST, classes=classes)))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "(5 of 8 have it)" in line] == ["tumour"]


def test_labels_found_again_say_how_many_synthetic_scans_have_them(capsys: pytest.CaptureFixture[str]) -> None:
    classes = np.array(TRUE.classes)
    classes[:2] = np.minimum(classes[:2], 1)
    print_fidelity(measured(synthetic=replace(TRUE, classes=classes)))
    [line] = [line for line in capsys.readouterr().out.splitlines() if "have it" in line]
    assert line.split()[0] == "tumour"
    assert f"({len(TRUE) - 2} of {len(TRUE)} have it)  real" in line


def test_the_text_shows_every_measure_beside_its_yardstick(capsys: pytest.CaptureFixture[str]) -> None:
    found = measured()
    print_fidelity(found)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines()[:-1])) <= 100
    assert f"{found.refound['tumour'].synthetic.mean:.3f} [" in said
    assert f"{found.real_pairs.mean:.3f} [" in said
    assert f"p = {found.features.p_value:.4f}" in said
    assert said.count("other half") == 4
    assert "–" not in said
    assert said.count("whole") == 1
    assert "foreground" not in said  # here it is the whole
