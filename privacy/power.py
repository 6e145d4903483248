"""What an audit of this size can and cannot show; printed before it runs (PRIVACY §3.4).

Planning formulas: normal approximation with Hanley and McNeil's standard error, one-sided 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import optimize, stats

from .statistics import clopper_pearson, epsilon_lower_bound, hanley_mcneil_se

_Z95 = float(stats.norm.ppf(0.95))

BLIND_SPREAD = 1.4
"""How much wider the blind baseline's AUC spreads than Hanley and McNeil's formula says, measured at 25 and at 50
patients a side: out-of-fold scores depend on each other (:mod:`.attacks.blind`), and its bounds are as much wider."""


@dataclass(frozen=True)
class Power:
    """Of an audit with n members and n' holdout patients.

    Attributes:
        n_member: Members to be compared.
        n_holdout: Holdout patients to compare them with.
        standard_error: Of an AUC of 1/2.
        smallest_auc: That one attack finds with probability 0.8.
        max_epsilon: Largest lower bound that a perfect attack could show at a threshold fixed beforehand,
            at δ = 1 / (10 n).
        fpr_bound: True false positive rate that cannot be excluded where no holdout patient is flagged.
        joint_power: Probability that all the binding attacks, on everybody and on the isolated quartile, and the blind
            baseline show U95 <= τ though none leaks and they are independent; None where the tier sets no τ. Near
            that of a PASS: attacks that go together make it larger, false alarms of attacks and controls smaller.
    """

    n_member: int
    n_holdout: int
    standard_error: float
    smallest_auc: float
    max_epsilon: float
    fpr_bound: float
    joint_power: float | None


def power(
    n_member: int,
    n_holdout: int,
    attacks: int,
    tau: float | None,
    claim: float = 0.95,
    outlier_tau: float | None = None,
) -> Power:
    """Power of an audit.

    Args:
        n_member: Members to be compared.
        n_holdout: Holdout patients to compare them with.
        attacks: How many AUCs are held to τ, the blind baseline's among them.
        tau: Of the tier.
        claim: Confidence of the attacks' upper bounds; the baseline's is 95 % always.
        outlier_tau: Of the tier, for the isolated quartile; None where none is held to any.
    """
    joint = None
    if tau is not None:
        joint = joint_power(n_member, n_holdout, attacks - 1, tau, claim)
        joint *= joint_power(n_member, n_holdout, 1, tau, spread=BLIND_SPREAD)
        if outlier_tau is not None:
            joint *= joint_power(max(1, n_member // 4), max(1, n_holdout // 4), attacks - 1, outlier_tau, claim)
    return Power(
        n_member=n_member,
        n_holdout=n_holdout,
        standard_error=hanley_mcneil_se(0.5, n_member, n_holdout),
        smallest_auc=smallest_detectable_auc([(n_member, n_holdout)]),
        max_epsilon=epsilon_lower_bound(n_member, n_member, 0, n_holdout, delta=1 / (10 * n_member)),
        fpr_bound=clopper_pearson(0, n_holdout, confidence=0.9)[1],
        joint_power=joint,
    )


def stratified_se(auc: float, sizes: Sequence[tuple[int, int]]) -> float:
    """Standard error of the mean of several groups' AUCs, each of which compares its own patients alone.

    Args:
        auc: Of every group.
        sizes: Members and holdout patients of each; they weigh n_M n_H / (n_M + n_H + 1), as van Elteren's test has it.
    """
    weights = [member * holdout / (member + holdout + 1) for member, holdout in sizes]
    parts = (weight * hanley_mcneil_se(auc, *size) for weight, size in zip(weights, sizes, strict=True))
    return math.hypot(*parts) / math.fsum(weights)


def smallest_detectable_auc(sizes: Sequence[tuple[int, int]], wanted: float = 0.8) -> float:
    """AUC found with probability ``wanted`` by a one-sided 5 % test; 1 where even a perfect attack is not.

    Args:
        sizes: Members and holdout patients of each group that is compared by itself.
        wanted: Of finding it.
    """
    critical = 0.5 + _Z95 * stratified_se(0.5, sizes)
    z = float(stats.norm.ppf(wanted))

    def shortfall(area: float) -> float:
        return area - critical - z * stratified_se(area, sizes)

    return float(optimize.brentq(shortfall, 0.5, 1.0)) if shortfall(1.0) > 0 else 1.0


def joint_power(
    n_member: int, n_holdout: int, attacks: int, tau: float, claim: float = 0.95, spread: float = 1.0
) -> float:
    """Probability that each of independent attacks without any effect shows U <= τ, U at the claim's confidence.

    ``spread`` is how many times wider than the formula's their AUCs spread, and so do their bounds.
    """
    z = stats.norm.ppf(claim)
    single = stats.norm.cdf((tau - 0.5) / (spread * hanley_mcneil_se(0.5, n_member, n_holdout)) - z)
    return float(single**attacks)
