"""Figures of usefulness: intervals over patients, gains paired by patient, and what one patient tells of others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_cohorts import tiny_study

from fedphantom.client.evaluation.arms import Arm, ratios_to_real
from fedphantom.client.evaluation.figures import (
    Floats,
    lower_than_earlier,
    over_patients,
    paired_difference,
    per_patient,
    spread,
)
from fedphantom.client.evaluation.scores import Scores, region_members

STUDY = tiny_study()


def arm(name: str, values: list[float]) -> Arm:
    return Arm(name, 4, Scores({"whole": np.array(values)}, {}, {}))


def test_a_figure_is_the_mean_over_patients_with_an_interval_around_it() -> None:
    values = np.random.default_rng(0).normal(0.8, 0.05, 40)
    figure = arm("real", values.tolist()).figure("whole")
    assert figure.mean == pytest.approx(values.mean())
    half = 1.96 * values.std(ddof=1) / np.sqrt(40)
    assert figure.low == pytest.approx(values.mean() - half, abs=0.3 * half)
    assert figure.high == pytest.approx(values.mean() + half, abs=0.3 * half)
    assert figure.patients == 40


def test_one_patient_tells_nothing_of_others() -> None:
    figure = arm("real", [0.7]).figure("whole")
    assert figure.low < 0.05
    assert figure.high > 0.95


def test_patients_who_all_score_the_same_do_not_promise_that_everyone_does() -> None:
    ten, hundred = (arm("synthetic", [0.0] * n).figure("whole") for n in (10, 100))
    assert (ten.mean, ten.low) == (0, 0)
    assert ten.high == pytest.approx(0.259, abs=0.001)  # 1 - 0.05 ** (1 / 10)
    assert hundred.high == pytest.approx(0.03, abs=0.001)  # the rule of three
    half = arm("real", [0.5] * 10).figure("whole")
    assert (half.low, half.high) == pytest.approx((0.5 * 0.741, 0.5 + 0.5 * 0.259), abs=0.001)


@given(
    st.lists(st.sampled_from([0.0, 0.3, 0.300001, 0.9, 1.0]) | st.floats(0, 1), min_size=1, max_size=12),
    st.floats(0.01, 500),
)
@settings(deadline=None)
def test_every_mean_lies_in_its_interval_and_the_interval_among_possible_scores(
    values: list[float], most: float
) -> None:
    figure = over_patients(most * np.array(values), highest=most)
    assert -1e-9 <= figure.low <= figure.mean <= figure.high <= most * (1 + 1e-9)


def test_a_difference_is_paired_by_patient_and_may_be_negative() -> None:
    real = np.linspace(0.2, 0.9, 30)
    noise = np.random.default_rng(0).normal(0, 0.01, 30)
    figure = paired_difference(real - 0.05 + noise, real)
    # Unpaired, patients this different would give an interval of some ± 0.1.
    assert figure.mean == pytest.approx(-0.05 + noise.mean())
    assert figure.high - figure.low < 0.01
    same = paired_difference(real, real)
    assert (same.mean, same.low, same.high) == pytest.approx((0, -0.095, 0.095), abs=1e-3)  # 1 - 0.05 ** (1 / 30)


def test_seeds_spread_is_their_standard_deviation_and_one_seed_has_none() -> None:
    assert spread([0.8, 0.9, 0.7]) == pytest.approx(0.1)
    assert spread([0.8]) is None


def test_the_ratio_to_real_is_paired_by_patient() -> None:
    real = np.linspace(0.2, 0.9, 30)
    ratios = ratios_to_real([arm("real", real.tolist()), arm("synthetic", (0.9 * real).tolist())], "whole")
    assert ratios.keys() == {"synthetic"}
    figure = ratios["synthetic"]
    # Unpaired, patients this different would give an interval of some ± 0.15.
    assert (figure.mean, figure.low, figure.high) == pytest.approx((0.9, 0.9, 0.9))
    noisy = ratios_to_real([arm("real", real.tolist()), arm("synthetic", real[::-1].tolist())], "whole")
    assert noisy["synthetic"].low < 1 < noisy["synthetic"].high


def test_without_a_real_arm_or_with_one_patient_there_is_no_ratio() -> None:
    assert ratios_to_real([arm("synthetic", [0.5, 0.6])], "whole") == {}
    assert ratios_to_real([arm("real", [0.5]), arm("synthetic", [0.6])], "whole") == {}


def test_scans_of_one_patient_count_as_one_patient() -> None:
    values: NDArray[np.float64] = np.array([0.2, 0.9, 0.4])
    assert per_patient(values, ("b", "a", "b")).tolist() == pytest.approx([0.9, 0.3])


def test_regions_are_every_label_the_composites_and_all_foreground_as_class_indices() -> None:
    assert region_members(STUDY) == {"brain": (1,), "tumour": (2,), "whole": (1, 2), "foreground": (1, 2)}


def sweep(random: np.random.Generator, effects: Sequence[float], patients: int, noise: float) -> list[Floats]:
    """Trainings that differ by these effects, and by what chance gives each of the same patients."""
    everybody = random.normal(0.8, 0.1, patients)
    return [everybody + effect + random.normal(0, noise, patients) for effect in effects]


@pytest.mark.parametrize("trainings", [4, 6])
def test_a_sweep_without_any_effect_names_a_training_in_about_one_of_twenty(trainings: int) -> None:
    random = np.random.default_rng(3)
    named = [any(lower_than_earlier(sweep(random, [0.0] * trainings, 18, 0.01))) for _ in range(200)]
    assert np.mean(named) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(named))


def test_a_training_that_surely_lost_is_named_and_those_before_it_are_not() -> None:
    random = np.random.default_rng(4)
    found = [lower_than_earlier(sweep(random, [0.0, 0.02, 0.02, -0.02], 18, 0.01)) for _ in range(20)]
    assert np.mean([one[-1] for one in found]) >= 0.9
    assert np.mean([any(one[:-1]) for one in found]) <= 0.1


def test_too_few_patients_or_trainings_name_none() -> None:
    random = np.random.default_rng(5)
    assert lower_than_earlier(sweep(random, [0.0, -0.5], 4, 0.01)) == [False, False]
    assert lower_than_earlier(sweep(random, [0.0], 18, 0.01)) == [False]
    same = np.linspace(0.2, 0.9, 10)
    assert lower_than_earlier([same, same, same]) == [False] * 3
