"""Resampling: the AUC's confidence interval, its permutation p-value, and ε by halves (PRIVACY §3.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .statistics import Floats, Scores, auc, clopper_pearson, epsilon_lower_bound, hanley_mcneil_se


@dataclass(frozen=True)
class AucInterval:
    """An AUC with its bounds.

    Attributes:
        auc: The estimate.
        ci: Two-sided 95 %.
        lower95: One-sided 95 % lower bound (L95).
        upper95: One-sided upper bound (U95), at 95 % unless a higher confidence was asked for.
        method: ``BCa``, or ``exact`` where resampling could only repeat the estimate.
    """

    auc: float
    ci: tuple[float, float]
    lower95: float
    upper95: float
    method: str


def auc_interval(scores: Scores, rng: np.random.Generator, replicates: int = 2000, claim: float = 0.95) -> AucInterval:
    """BCa bootstrap over patients, resampled within stratum and side (Efron 1987).

    Where every replicate repeats the estimate, BCa would claim certainty. Then:

    - estimate 1 or 0 (no pair out of order): pair each member with one holdout patient. These n independent
      trials, n the smaller side summed over strata, all came out alike: Clopper-Pearson of n out of n, exact
      and wider than a bound that uses all pairs;
    - all scores tie: 1/2 ± z standard errors of Hanley and McNeil.

    A sample in better than no order supports no more than a perfect one: BCa's bounds are never tighter
    than those of perfect separation.

    Args:
        scores: Of one attack.
        rng: Resamples.
        replicates: At least; a high ``claim`` takes more, so that fifty lie beyond its bound.
        claim: Confidence of ``upper95``, one-sided, at least 95 %: what a claim "no leak above τ" needs where it is not
            the first audit of these patients.
    """
    area = auc(scores)
    boot = _bootstrap(scores, rng, max(replicates, math.ceil(50 / (1 - claim))))
    if np.ptp(boot) < 1e-12:
        lower, upper = _degenerate(scores, area, 0.90)[0], _degenerate(scores, area, 2 * claim - 1)[1]
        return AucInterval(area, _degenerate(scores, area, 0.95), lower, upper, "exact")
    skew = _acceleration(scores)

    def low(level: float) -> float:
        return min(_bca_quantile(boot, area, skew, level), area, perfect_lower_bound(scores, 1 - 2 * level))

    def high(level: float) -> float:
        return max(_bca_quantile(boot, area, skew, level), area, 1 - perfect_lower_bound(scores, 2 * level - 1))

    return AucInterval(
        auc=area,
        ci=(low(0.025), high(0.975)),
        lower95=low(0.05),
        upper95=high(claim),
        method="BCa",
    )


_AT_ONCE = 2000
"""Replicates drawn at once: bounds memory where a late audit asks for many."""


def _bootstrap(scores: Scores, rng: np.random.Generator, replicates: int) -> Floats:
    parts = range(0, replicates, _AT_ONCE)
    return np.concatenate([_replicates(scores, rng, min(_AT_ONCE, replicates - start)) for start in parts])


def _replicates(scores: Scores, rng: np.random.Generator, replicates: int) -> Floats:
    out = np.zeros(replicates)
    for weight, stratum in zip(scores.weights, scores.strata, strict=True):
        n_m, n_h = len(stratum.member), len(stratum.holdout)
        member_counts = rng.multinomial(n_m, np.full(n_m, 1 / n_m), size=replicates)  # (B, n_M)
        holdout_counts = rng.multinomial(n_h, np.full(n_h, 1 / n_h), size=replicates)  # (B, n_H)
        out += weight * ((member_counts @ stratum.wins()) * holdout_counts).sum(axis=1) / (n_m * n_h)
    return out


def _acceleration(scores: Scores) -> float:
    # Skewness of the AUC's influence values; each side of each stratum is a sample of its own.
    second, third = 0.0, 0.0
    for weight, stratum in zip(scores.weights, scores.strata, strict=True):
        wins = stratum.wins()
        for axis in (0, 1):
            influence = weight * (wins.mean(axis=1 - axis) - wins.mean())
            second += float((influence**2).sum()) / len(influence) ** 2
            third += float((influence**3).sum()) / len(influence) ** 3
    return third / (6 * second**1.5) if second > 0 else 0.0


def _bca_quantile(boot: Floats, estimate: float, acceleration: float, level: float) -> float:
    below = float((boot < estimate - 1e-12).mean() + 0.5 * (np.abs(boot - estimate) <= 1e-12).mean())
    edge = 0.5 / len(boot)
    bias = float(stats.norm.ppf(np.clip(below, edge, 1 - edge)))
    shifted = bias + float(stats.norm.ppf(level))
    scale = 1 - acceleration * shifted
    adjusted = float(stats.norm.cdf(bias + shifted / scale)) if scale > 0 else level
    return float(np.quantile(boot, np.clip(adjusted, edge, 1 - edge)))


def _degenerate(scores: Scores, area: float, confidence: float) -> tuple[float, float]:
    if 0 < area < 1:
        z = float(stats.norm.ppf(0.5 + confidence / 2))
        margin = z * hanley_mcneil_se(0.5, scores.n_member, scores.n_holdout)
        return max(0.0, area - margin), min(1.0, area + margin)
    bound = perfect_lower_bound(scores, confidence)
    return (bound, 1.0) if area >= 1 else (0.0, 1 - bound)


def perfect_lower_bound(scores: Scores, confidence: float) -> float:
    """What so many patients can show at best: the two-sided interval's lower end where no pair is out of order."""
    pairs = sum(min(len(s.member), len(s.holdout)) for s in scores.strata)
    return clopper_pearson(pairs, pairs, confidence)[0]


_FEW_REACH = 10
"""Permutations that reach the estimate; where fewer do, more are asked for if the p-value must be told finer."""


def permutation_p_value(scores: Scores, rng: np.random.Generator, permutations: int = 10_000, finest: int = 0) -> float:
    """One-sided p-value of "members score no higher": coins are shuffled within stratum.

    (1 + permutations that reach the estimate) / (1 + permutations), hence never 0.

    Args:
        scores: Of one attack.
        rng: Shuffles.
        permutations: At least.
        finest: Where fewer than ten of those reach the estimate: so many in all. The p-value stays one: no more often
            below x than x, since what looks small at first is told by all of them, whose number is fixed.
    """
    reached = _reached(scores, rng, permutations)
    if reached < _FEW_REACH:
        for done in range(permutations, finest, _SHUFFLED_AT_ONCE):
            reached += _reached(scores, rng, min(_SHUFFLED_AT_ONCE, finest - done))
        permutations = max(permutations, finest)
    return (1 + reached) / (1 + permutations)


_SHUFFLED_AT_ONCE = 10_000
"""Permutations drawn at once: bounds memory."""


def _reached(scores: Scores, rng: np.random.Generator, permutations: int) -> int:
    reached = np.zeros(permutations)
    for weight, stratum in zip(scores.weights, scores.strata, strict=True):
        n_m, n_h = len(stratum.member), len(stratum.holdout)
        ranks = stats.rankdata(np.concatenate([stratum.member, stratum.holdout]))
        drawn = rng.permuted(np.broadcast_to(ranks, (permutations, len(ranks))), axis=1)[:, :n_m].sum(axis=1)
        reached += weight * (drawn - n_m * (n_m + 1) / 2) / (n_m * n_h)
    return int((reached >= auc(scores) - 1e-12).sum())


@dataclass(frozen=True)
class SplitEpsilon:
    """What a threshold chosen on one half of the patients shows on the other.

    Attributes:
        advantage: TPR - FPR on the evaluation half.
        epsilon: Lower bound at 95 %, from the evaluation half alone.
        n_member: Members in the evaluation half.
        n_holdout: Holdout patients in the evaluation half.
    """

    advantage: float
    epsilon: float
    n_member: int
    n_holdout: int


def epsilon_by_halves(scores: Scores, rng: np.random.Generator, delta: float = 0.0) -> SplitEpsilon:
    """Choose the threshold with the largest TPR - FPR on a random half, bound ε on the other half.

    With fewer than two members or holdout patients no half is left to evaluate: ε = 0.
    """
    member, holdout = rng.permutation(scores.member), rng.permutation(scores.holdout)
    if len(member) < 2 or len(holdout) < 2:
        return SplitEpsilon(0.0, 0.0, 0, 0)
    m_cal, m_eval = np.array_split(member, 2)
    h_cal, h_eval = np.array_split(holdout, 2)
    threshold = _best_threshold(m_cal, h_cal)
    hits, false_alarms = int((m_eval > threshold).sum()), int((h_eval > threshold).sum())
    return SplitEpsilon(
        advantage=hits / len(m_eval) - false_alarms / len(h_eval),
        epsilon=epsilon_lower_bound(hits, len(m_eval), false_alarms, len(h_eval), delta),
        n_member=len(m_eval),
        n_holdout=len(h_eval),
    )


def _best_threshold(member: NDArray[np.float64], holdout: NDArray[np.float64]) -> float:
    values = np.unique(np.concatenate([member, holdout]))
    # Between two values, not on one: the other half's scores do not repeat these.
    cuts = np.concatenate([(values[:-1] + values[1:]) / 2, values[-1:]])
    cuts = np.where(np.isfinite(cuts), cuts, values)
    gains = (member[:, None] > cuts).mean(axis=0) - (holdout[:, None] > cuts).mean(axis=0)
    return float(cuts[np.argmax(gains)])
