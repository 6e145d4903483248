"""Figures over test patients: means with their intervals, paired by patient where two arms are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

RESAMPLES = 2000
CONFIDENCE = 0.95
_FEWEST_FOR_T = 5
"""Patients below whom a resample often holds one patient alone."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A mean over test patients with its 95 % interval: BCa bootstrap; where all score the same, what n rules out.

    Attributes:
        bootstrapped: False where all score the same: then the interval is an exact bound, not a bootstrap's.
    """

    mean: float
    low: float
    high: float
    patients: int
    bootstrapped: bool = True

    def to_json(self) -> dict[str, Any]:
        """As DESIGN §5, and what kind of interval it is."""
        return {
            "mean": round(self.mean, 4),
            "ci": [round(self.low, 4), round(self.high, 4)],
            "ci_kind": "bootstrap" if self.bootstrapped else "exact bound",
            "n_test": self.patients,
        }


def over_patients(values: Floats, lowest: float = 0.0, highest: float = 1.0) -> Figure:
    """Mean of one value a patient, shape (n,), with its BCa interval (Efron 1987).

    Args:
        values: One a patient; seeds and scans are averaged before.
        lowest: The least that a patient can score.
        highest: The most.
    """
    # Between them, whatever the sum's rounding.
    mean = float(np.clip(values.mean(), values.min(), values.max()))
    if np.ptp(values) <= 1e-9 * (highest - lowest):
        # Resampling equals gives no width. Up to this share of all patients could differ, at 95 %, by anything.
        unseen = 1 - (1 - CONFIDENCE) ** (1 / len(values))
        low, high = mean - unseen * (mean - lowest), mean + unseen * (highest - mean)
        return Figure(mean, low, high, len(values), bootstrapped=False)
    interval = bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, rng=np.random.default_rng(0)
    ).confidence_interval
    return Figure(mean, min(float(interval.low), mean), max(float(interval.high), mean), len(values))


def paired_difference(values: Floats, reference: Floats, largest: float = 1.0) -> Figure:
    """Mean of each patient's own difference; ``largest`` is the most that two values of a patient can differ by."""
    return over_patients(values - reference, -largest, largest)


def paired_ratio(values: Floats, reference: Floats) -> Figure:
    """Mean over the reference's mean, patients resampled together (percentile)."""
    picks = np.random.default_rng(0).integers(len(reference), size=(RESAMPLES, len(reference)))
    draws = values[picks].mean(axis=1) / np.maximum(reference[picks].mean(axis=1), 1e-9)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Figure(float(values.mean() / max(reference.mean(), 1e-9)), float(low), float(high), len(reference))


def lower_than_earlier(values: Sequence[Floats]) -> list[bool]:
    """Which of several trainings score lower than some earlier one, at 95 % for all pairs together.

    A pair is held against the largest of all pairs' studentised differences over resampled patients (max-t; Westfall &
    Young 1993): one of twenty sweeps without any effect names a training, however many there are.

    Args:
        values: One a patient, shape (n,) each, the same patients in the same order.
    """
    if len(values) < 2 or len(values[0]) < _FEWEST_FOR_T:
        return [False] * len(values)
    later, earlier = np.tril_indices(len(values), -1)
    table = np.stack(values)
    differences = table[later] - table[earlier]
    picks = np.random.default_rng(0).integers(differences.shape[1], size=(RESAMPLES, differences.shape[1]))
    means, errors = _mean_and_error(differences)
    found, spreads = _mean_and_error(differences[:, picks])
    with np.errstate(divide="ignore", invalid="ignore"):
        # A pair whose patients all differ alike, here or in a resample, has no error to be held against.
        lower = np.nan_to_num(np.where(errors > 0, -means / errors, -np.inf), nan=-np.inf)
        drawn = np.where(spreads > 0, (means[:, None] - found) / spreads, -np.inf)
    critical = np.quantile(drawn.max(axis=0), CONFIDENCE)
    return [bool((lower[later == i] > critical).any()) for i in range(len(values))]


def _mean_and_error(differences: Floats) -> tuple[Floats, Floats]:
    """Mean over the last axis and its standard error."""
    number = differences.shape[-1]
    return differences.mean(axis=-1), differences.std(axis=-1, ddof=1) / np.sqrt(number)


def per_patient(values: NDArray[np.generic], patients: Sequence[str]) -> Floats:
    """One value a scan to one a patient: the mean over the patient's scans, patients sorted."""
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    weights = np.asarray(values, dtype=np.float64)
    return np.asarray(np.bincount(index, weights=weights) / np.bincount(index, minlength=len(names)))


def spread(means: Sequence[float]) -> float | None:
    """Standard deviation over training seeds of a mean over patients; None for one seed, which tells nothing of it."""
    return float(np.std(means, ddof=1)) if len(means) > 1 else None
