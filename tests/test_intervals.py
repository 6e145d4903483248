"""A 95 % interval holds what it promises: as wide as chance makes a mean, and skewed as the patients are."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fedphantom.client.evaluation.diversity import similarity
from fedphantom.client.evaluation.figures import over_patients, paired_ratio

Z95 = 1.96


def test_a_paired_ratios_interval_is_as_wide_as_the_delta_method_says() -> None:
    random = np.random.default_rng(0)
    real = random.uniform(0.5, 0.9, 60)
    synthetic = 0.9 * real + random.normal(0, 0.08, 60)
    figure = paired_ratio(synthetic, real)
    ratio = synthetic.mean() / real.mean()
    half = Z95 * np.std(synthetic - ratio * real, ddof=1) / real.mean() / np.sqrt(60)
    assert figure.mean == pytest.approx(ratio)
    assert (figure.low, figure.high) == pytest.approx((ratio - half, ratio + half), abs=0.15 * half)


def test_a_paired_ratios_interval_holds_the_true_ratio_of_nineteen_studies_in_twenty() -> None:
    random, held = np.random.default_rng(1), 0
    for _ in range(200):
        real = random.uniform(0.5, 0.9, 40)
        figure = paired_ratio(0.9 * real + random.normal(0, 0.08, 40), real)
        held += figure.low <= 0.9 <= figure.high
    assert 180 <= held <= 199  # 190 expected, standard deviation 3


def bca_of_the_mean(values: NDArray[np.float64]) -> tuple[float, float]:
    """Efron 1987 by hand, of 200 000 resamples."""
    n, random = len(values), np.random.default_rng(2)
    means = np.sort(values[random.integers(n, size=(200_000, n))].mean(axis=1))
    bias = stats.norm.ppf((means < values.mean()).mean())
    acceleration = stats.skew(values) / (6 * np.sqrt(n))  # what the jackknife comes to for a mean
    levels = [
        stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z))) for z in stats.norm.ppf([0.025, 0.975])
    ]
    low, high = np.quantile(means, levels)
    return float(low), float(high)


def test_patients_of_whom_a_few_do_badly_have_efrons_bca_interval_and_not_the_plain_percentiles() -> None:
    values = np.array([*np.linspace(0.85, 0.95, 17), 0.3, 0.2, 0.1])
    low, high = bca_of_the_mean(values)
    figure = over_patients(values)
    assert (figure.low, figure.high) == pytest.approx((low, high), abs=0.006)
    plain = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(3)).confidence_interval
    assert plain.low - figure.low > 0.03
    assert plain.high - figure.high > 0.015


def test_an_interval_of_pairs_is_as_wide_as_so_many_scans_make_it() -> None:
    scans = np.random.default_rng(4).normal(0.6, 0.1, 40)
    pairs = (scans[:, None] + scans[None]) / 2  # its mean is that of the scans, and so is its standard error
    found = similarity(pairs, seed=0)
    half = Z95 * scans.std(ddof=1) / np.sqrt(40)
    assert found.mean == pytest.approx(scans.mean())
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.15 * half)
