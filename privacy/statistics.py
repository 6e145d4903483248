"""Membership-inference statistics in closed form (PRIVACY §3.3).

Scores are large where an attack believes in membership. They are compared within a stratum (a site)
only: a difference between sites is no leak. No random numbers here; resampling is in ``intervals``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ..common.counted import counted
from ..common.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stratum:
    """One site's scores.

    Attributes:
        member: Shape (n_M,), n_M >= 1.
        holdout: Shape (n_H,), n_H >= 1.
    """

    member: Floats
    holdout: Floats

    @property
    def weight(self) -> float:
        """The inverse variance of this stratum's AUC where members and holdout do not differ."""
        return len(self.member) * len(self.holdout) / (len(self.member) + len(self.holdout) + 1)

    def wins(self) -> Floats:
        """Shape (n_M, n_H): 1 where the member scores higher, 1/2 at a tie, else 0."""
        m, h = self.member[:, None], self.holdout[None, :]
        return np.asarray((m > h) + 0.5 * (m == h), dtype=np.float64)


@dataclass(frozen=True)
class Scores:
    """One attack's scores, one per patient, by stratum; strata with only one side carry no pair and are left out."""

    strata: tuple[Stratum, ...]

    @classmethod
    def of(
        cls,
        member: ArrayLike,
        holdout: ArrayLike,
        member_sites: Sequence[str] | None = None,
        holdout_sites: Sequence[str] | None = None,
    ) -> Scores:
        """Group scores by site; without sites there is one stratum.

        Infinite scores are ordered as numbers are.

        Raises:
            DataError: a score is NaN, lengths differ, or no site has both a member and a holdout patient.
        """
        m, h = np.asarray(member, dtype=np.float64), np.asarray(holdout, dtype=np.float64)
        m_sites = np.asarray(member_sites if member_sites is not None else [""] * len(m), dtype=str)
        h_sites = np.asarray(holdout_sites if holdout_sites is not None else [""] * len(h), dtype=str)
        if m.ndim != 1 or h.ndim != 1 or m.shape != m_sites.shape or h.shape != h_sites.shape:
            raise DataError(
                "attack scores and sites of different lengths",
                expected="one score and one site per patient",
                remedy="Mend the attack.",
            )
        if np.isnan(m).any() or np.isnan(h).any():
            raise DataError(
                f"{int(np.isnan(m).sum() + np.isnan(h).sum())} attack scores are not numbers",
                expected="a score for every audited patient",
                remedy="Check the generator and the volumes for non-finite voxels; a patient may not be left out.",
            )
        sites = sorted(set(m_sites.tolist()) & set(h_sites.tolist()))
        if not sites:
            raise DataError(
                f"{counted(len(m), 'member')} and {counted(len(h), 'holdout patient')}, but no site with both",
                expected="members and holdout patients of the same site",
                remedy="Audit a larger cohort.",
            )
        return cls(tuple(Stratum(m[m_sites == s], h[h_sites == s]) for s in sites))

    @property
    def n_member(self) -> int:
        """Members in all strata."""
        return sum(len(s.member) for s in self.strata)

    @property
    def n_holdout(self) -> int:
        """Holdout patients in all strata."""
        return sum(len(s.holdout) for s in self.strata)

    @property
    def weights(self) -> Floats:
        """Of the strata; they sum to 1."""
        raw = np.array([s.weight for s in self.strata])
        return np.asarray(raw / raw.sum(), dtype=np.float64)

    @property
    def member(self) -> Floats:
        """All members' scores, by stratum."""
        return np.concatenate([s.member for s in self.strata])

    @property
    def holdout(self) -> Floats:
        """All holdout patients' scores, by stratum."""
        return np.concatenate([s.holdout for s in self.strata])


def auc(scores: Scores) -> float:
    """Mann-Whitney AUC, ties counted half; over strata the mean weighted by null precision (van Elteren 1960)."""
    return float(np.dot(scores.weights, [s.wins().mean() for s in scores.strata]))


def null_standard_error(scores: Scores) -> float:
    """Standard error of :func:`auc` where members and holdout do not differ and no scores tie."""
    variances = [hanley_mcneil_se(0.5, len(s.member), len(s.holdout)) ** 2 for s in scores.strata]
    return math.sqrt(float(np.dot(scores.weights**2, variances)))


def null_p_value(scores: Scores) -> float:
    """Two-sided p-value of AUC = 1/2 by the normal approximation; judges negative controls (PRIVACY §4)."""
    return float(2 * stats.norm.sf(abs(auc(scores) - 0.5) / null_standard_error(scores)))


def hanley_mcneil_se(area: float, n_member: int, n_holdout: int) -> float:
    """Standard error of an AUC (Hanley & McNeil 1982, doi 10.1148/radiology.143.1.7063747)."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (n_member - 1) * (q1 - area**2) + (n_holdout - 1) * (q2 - area**2)
    return math.sqrt(spread / (n_member * n_holdout))


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a proportion: each bound alone holds at 1 - (1 - confidence) / 2.

    No trials: (0, 1).
    """
    tail = (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, successes, trials - successes + 1)) if successes > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, successes + 1, trials - successes)) if successes < trials else 1.0
    return low, high


@dataclass(frozen=True)
class TprAtFpr:
    """True positive rate where ``fpr`` of the holdout is flagged.

    Attributes:
        fpr: Nominal false positive rate; 0 means no holdout patient is flagged.
        tpr: Share of members flagged.
        ci: Clopper-Pearson, two-sided 95 %, as for a threshold fixed beforehand. This one the same holdout set, and
            that is chance too: what proves a leak is :func:`no_false_alarm_p_value`.
        resolvable: Whether the holdout is large enough: n_H >= 1 / fpr. Always for 0, read with ``fpr_bound``.
        fpr_bound: One-sided 95 % upper bound of the true false positive rate at this threshold.
    """

    fpr: float
    tpr: float
    ci: tuple[float, float]
    resolvable: bool
    fpr_bound: float


def tpr_at_fpr(scores: Scores, fpr: float) -> TprAtFpr:
    """Flag members above the score that floor(fpr · n_H) holdout patients exceed; ties flag nobody."""
    holdout = np.sort(scores.holdout)[::-1]
    n_holdout = len(holdout)
    allowed = math.floor(fpr * n_holdout + 1e-9)  # 0.29 · 100 must be 29
    threshold = holdout[allowed] if allowed < n_holdout else -math.inf
    hits = int((scores.member > threshold).sum())
    return TprAtFpr(
        fpr=fpr,
        tpr=hits / scores.n_member,
        ci=clopper_pearson(hits, scores.n_member),
        resolvable=fpr == 0 or n_holdout * fpr >= 1 - 1e-9,
        fpr_bound=clopper_pearson(int((holdout > threshold).sum()), n_holdout, confidence=0.9)[1],
    )


def no_false_alarm_p_value(scores: Scores) -> float:
    """Probability of as many members above every holdout patient, of any site, where coins alone set them apart; exact.

    At least k members are above all of the holdout where the k highest scores are all members'. Of a stratum's N
    patients, M of them members, which ones are is drawn anew: its k_s among those k then all are with probability
    M! (N - k_s)! / ((M - k_s)! N!). A tie with a holdout patient is not above.
    """
    highest = scores.holdout.max()
    return math.prod(
        _all_members(int((s.member > highest).sum()), len(s.member), len(s.holdout)) for s in scores.strata
    )


def pooled_no_false_alarm_p_value(hits: int, sizes: Sequence[tuple[int, int]]) -> float:
    """The same of several sites' members, each above every holdout patient of its own site; exact but for ties.

    Args:
        hits: Such members, of all sites.
        sizes: Members and holdout patients of each.
    """
    total = np.ones(1)
    for member, holdout in sizes:
        at_least = np.array([_all_members(k, member, holdout) for k in range(member + 2)])
        total = np.convolve(total, at_least[:-1] - at_least[1:])
    return min(1.0, float(total[hits:].sum()))


def _all_members(k: int, member: int, holdout: int) -> float:
    """Probability that k patients drawn from so many are all members."""
    return math.prod(((member - i) / (member + holdout - i) for i in range(k)), start=1.0)


def epsilon_lower_bound(
    true_positives: int, n_member: int, false_positives: int, n_holdout: int, delta: float = 0.0
) -> float:
    """Largest ε refuted with 95 % confidence by one attack at a threshold fixed beforehand.

    max{ln((TPR_L - δ) / FPR_U), ln((TNR_L - δ) / FNR_U), 0}, each bound at 2.5 % (PRIVACY §3.3).
    """
    tpr_low, _ = clopper_pearson(true_positives, n_member)
    _, fpr_high = clopper_pearson(false_positives, n_holdout)
    odds = ((tpr_low - delta) / fpr_high, (1 - fpr_high - delta) / (1 - tpr_low))
    return max([0.0] + [math.log(ratio) for ratio in odds if ratio > 0])


def holm(p_values: Sequence[float], alpha: float = 0.05) -> tuple[bool, ...]:
    """Which hypotheses Holm's step-down procedure rejects (Holm 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    rejected = [False] * len(p_values)
    for rank, index in enumerate(order):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return tuple(rejected)


def roc(scores: Scores) -> tuple[tuple[float, float], ...]:
    """Corners (FPR, TPR) of the pooled ROC curve, from (0, 0) to (1, 1), for drawing."""
    member, holdout = np.sort(scores.member), np.sort(scores.holdout)
    cuts = np.unique(np.concatenate([member, holdout]))[::-1]
    tpr = 1 - np.searchsorted(member, cuts, side="left") / len(member)
    fpr = 1 - np.searchsorted(holdout, cuts, side="left") / len(holdout)
    return ((0.0, 0.0), *((float(f), float(t)) for f, t in zip(fpr, tpr, strict=True)))
