"""What several sites' audits can show together, told before they are combined (PRIVACY §3.4).

Of the combination (:mod:`.rows`) and not of their patients in one heap: each site compares its own, so that forty
members here against ten holdout patients there are worth little. The same formulas as for one audit
(:mod:`..power`), with the standard error of the weighted mean; of the isolated quartiles of sites that may not tell
their numbers, whose figures come rounded, the rounding and combining itself is tried on drawn figures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from ..audit.extract import AttackRow, AuditExtract
from ..audit.recomputation import compared_patients, policy_of
from ..audit.small_cells import rounded_row
from ..evidence import BINDING, BLIND, OF_COINS, OUTLIERS, SMALLEST_CELL
from ..multiplicity import claim_confidence
from ..policy import ReleasePolicy
from ..power import BLIND_SPREAD, Power, smallest_detectable_auc, stratified_se
from ..statistics import clopper_pearson, epsilon_lower_bound, hanley_mcneil_se
from .rows import SiteRow, combined_upper_bound, quantile

_DRAWS = 10_000
"""Of figures of small groups: a chance is known to a hundredth."""
_DIGITS = 3
"""So many are told: another processor's last bits must not make another file."""

Sizes = tuple[int, int]
"""Members and holdout patients."""


def told_sizes(site: AuditExtract) -> Sizes | None:
    """How many a site compared; None where it may not tell one of the numbers."""
    sizes = compared_patients(site, "member"), compared_patients(site, "holdout")
    return sizes if min(sizes) >= SMALLEST_CELL else None


def combined_power(sites: Sequence[AuditExtract], policy: ReleasePolicy) -> Power | None:
    """What these audits can show together; None where no site tells how many patients it compared.

    A site that does not tell counts as nobody, and no PASS rests on it: the chance of one is then 0.

    Args:
        sites: Each site's own audit of the same generator and volumes.
        policy: Thresholds.
    """
    sizes = [size for site in sites if (size := told_sizes(site))]
    if not sizes:
        return None
    members, holdout = (sum(side) for side in zip(*sizes, strict=True))
    joint = None
    if policy.auc_upper_max is not None:
        chance = _joint(sites, policy, policy.auc_upper_max)
        joint = max(round(chance, _DIGITS), 10**-_DIGITS) if len(sizes) == len(sites) else 0.0
    return Power(
        n_member=members,
        n_holdout=holdout,
        standard_error=round(stratified_se(0.5, sizes), _DIGITS),
        smallest_auc=round(smallest_detectable_auc(sizes), _DIGITS),
        # Of the sites' own bounds the largest is told.
        max_epsilon=round(max(epsilon_lower_bound(m, m, 0, h, delta=1 / (10 * m)) for m, h in sizes), _DIGITS),
        fpr_bound=round(clopper_pearson(0, holdout, confidence=0.9)[1], _DIGITS),
        joint_power=joint,
    )


def _joint(sites: Sequence[AuditExtract], policy: ReleasePolicy, tau: float) -> float:
    """Probability that every attack that binds and the blind baseline stay below their limits, nothing being leaked."""
    first = sites[0]
    binding = {
        row.id
        for site in sites
        for row in site.attacks
        if row.threat_model in BINDING[first.release] and row.id.removesuffix(OUTLIERS) not in OF_COINS
    }
    chance = 1.0
    known: dict[tuple[tuple[Sizes, ...], float], float] = {}
    for name in sorted(binding | {BLIND}):
        having = [site for site in sites if any(row.id == name for row in site.attacks)]
        number = 1 if name == BLIND else max(site.audit_number or 1 for site in sites)
        isolated = name.endswith(OUTLIERS)
        limit = policy.outlier_auc_upper_max if isolated else tau
        sizes = tuple(told for site in having if (told := told_sizes(site)))
        if limit is None or not sizes:
            continue
        if isolated:
            sizes = tuple((max(1, member // 4), max(1, holdout // 4)) for member, holdout in sizes)
        if min(map(min, sizes)) < SMALLEST_CELL:
            if (sizes, limit) not in known:
                known[sizes, limit] = _rounded_below(having, sizes, limit, number)
            chance *= known[sizes, limit]
            continue
        error = (BLIND_SPREAD if name == BLIND else 1.0) * stratified_se(0.5, sizes)
        chance *= float(stats.norm.cdf((limit - 0.5) / error - quantile(claim_confidence(number))))
    return chance


def _rounded_below(sites: Sequence[AuditExtract], sizes: Sequence[Sizes], limit: float, number: int) -> float:
    """Share of draws in which the combined bound of small groups lies below a limit, each site's told as it may be."""
    rng = np.random.default_rng(0)  # always the same draws: whoever combines again gets the same figure
    taus = [policy_of(site).outlier_auc_upper_max for site in sites]
    numbers = [site.audit_number or 1 for site in sites]
    errors = [hanley_mcneil_se(0.5, *size) for size in sizes]
    below = 0
    for aucs in np.clip(rng.normal(0.5, errors, size=(_DRAWS, len(errors))), 0.0, 1.0).tolist():
        rows = [
            SiteRow(_row(auc, error, size, tau, turn), turn)
            for auc, error, size, tau, turn in zip(aucs, errors, sizes, taus, numbers, strict=True)
        ]
        below += combined_upper_bound(rows, number) <= limit
    return below / _DRAWS


def _row(auc: float, error: float, sizes: Sizes, tau: float | None, number: int) -> AttackRow:
    """Of a site's isolated quartile what the combined bound needs, as its extract tells it."""
    lower = max(0.0, auc - quantile(claim_confidence(1)) * error)
    upper = min(1.0, auc + quantile(claim_confidence(number)) * error)
    row = AttackRow(
        id=OUTLIERS,
        threat_model="S",
        auc=auc,
        auc_lower95=lower,
        auc_upper95=upper,
        n_member=sizes[0],
        n_holdout=sizes[1],
    )
    return row if min(sizes) >= SMALLEST_CELL else rounded_row(row, tau)
