"""One attack's figures of several sites as one, from what each site may tell: no score is needed.

The AUC is the mean of the sites' own, weighted as where their scores lie together (van Elteren 1960): by
n_M n_H / (n_M + n_H + 1), so that it is the very AUC of the pooled audit. Its bounds come of the sites' bounds by the
method of variance estimates recovery, which adds half-widths instead of variances and so keeps their skew (Zou & Donner
2008, doi 10.1002/sim.3095). p-values add as normal quantiles, with the square roots of those weights (Stouffer; Lipták
1958). True positives without a false alarm are counted together, each site's threshold being its own, and their p-value
is exact for that count.

Of a group in which a site has fewer than twenty on a side that site's figures come rounded and without counts. Its
weight is then taken from its interval's width, and its AUC from the end of the rounding that makes a bound wider.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from scipy import stats

from ..audit.extract import AttackRow, Cell, TprRow
from ..audit.small_cells import SMALL
from ..evidence import SMALLEST_CELL
from ..multiplicity import claim_confidence
from ..statistics import clopper_pearson, pooled_no_false_alarm_p_value

_Z95 = float(stats.norm.ppf(0.95))
_ROUNDING = 0.025
"""Half a step in which the AUC of a small group is told."""
_LARGEST_P = 1 - 1e-4
"""A p-value of 1, as a test that cannot reject gives, has no finite quantile."""


@dataclass(frozen=True)
class SiteRow:
    """An attack at a site.

    Attributes:
        row: Its figures, none of them missing.
        audit_number: Which audit of the site's holdout it was.
    """

    row: AttackRow
    audit_number: int

    @property
    def sizes(self) -> tuple[int, int] | None:
        """Members and holdout patients, where both may be told."""
        member, holdout = self.row.n_member, self.row.n_holdout
        return (member, holdout) if isinstance(member, int) and isinstance(holdout, int) else None

    @property
    def weight(self) -> float:
        """Inverse variance under "no leak", up to a factor that all sites share."""
        if self.sizes is not None:
            member, holdout = self.sizes
            return member * holdout / (member + holdout + 1)
        # So few weigh less than the fewest who are told.
        width = max(self.value("auc_upper95") - self.value("auc_lower95"), 0.05)
        return min(1 / (12 * (width / (_Z95 + self.z_claim)) ** 2), float(SMALLEST_CELL))

    @property
    def z_claim(self) -> float:
        """Quantile at which the row's ``auc_upper95`` stands; the blind baseline's is at 95 % always."""
        return _claim_quantile(self.row, self.audit_number)

    def value(self, name: str) -> float:
        """One of its figures."""
        return float(getattr(self.row, name))

    def bounded(self, bound: float, stretch: float = 1.0) -> tuple[float, float]:
        """The AUC that goes with one of its bounds, and the half-width up or down to that bound, signed."""
        auc = self.value("auc")
        if self.sizes is None:
            auc = min(bound, auc + _ROUNDING) if bound >= auc else max(bound, auc - _ROUNDING)
        return auc, stretch * (bound - auc)


def told(row: AttackRow) -> bool:
    """Whether none of the figures is missing that a combination needs."""
    ends = row.auc_ci or (None,)
    return None not in (*ends, row.auc, row.auc_lower95, row.auc_upper95, row.p_value, row.eps_lower_bound)


def combined_row(rows: Sequence[SiteRow], audit_number: int) -> AttackRow:
    """The sites' figures of one attack as one; whether it rejects is left to Holm.

    Args:
        rows: Of each site that has it; at least one.
        audit_number: The largest of the sites': ``auc_upper95`` stands at its confidence.
    """
    shares, first = _shares(rows), rows[0].row
    ends = [one.row.auc_ci or (0.0, 1.0) for one in rows]
    quantiles = [float(stats.norm.isf(min(one.value("p_value"), _LARGEST_P))) for one in rows]
    stouffer = math.fsum(math.sqrt(share) * q for share, q in zip(shares, quantiles, strict=True))
    low = _bound(shares, [one.bounded(float(end[0] or 0.0)) for one, end in zip(rows, ends, strict=True)])
    high = _bound(
        shares, [one.bounded(1.0 if end[1] is None else float(end[1])) for one, end in zip(rows, ends, strict=True)]
    )
    return AttackRow(
        id=first.id,
        threat_model=first.threat_model,
        auc=math.fsum(share * one.value("auc") for share, one in zip(shares, rows, strict=True)),
        auc_ci=(low, high),
        auc_lower95=_bound(shares, [one.bounded(one.value("auc_lower95")) for one in rows]),
        auc_upper95=combined_upper_bound(rows, audit_number),
        p_value=float(stats.norm.sf(stouffer)),
        eps_lower_bound=max(one.value("eps_lower_bound") for one in rows),
        rejects=any(one.row.rejects is True for one in rows),
        rejects_alone=any(one.row.rejects_alone is True for one in rows),
        tpr=_rates(rows),
        n_member=_sum([one.row.n_member for one in rows]),
        n_holdout=_sum([one.row.n_holdout for one in rows]),
        no_false_alarm_p_value=_no_false_alarm_p_value(rows),
    )


def combined_upper_bound(rows: Sequence[SiteRow], audit_number: int) -> float:
    """The ``auc_upper95`` of :func:`combined_row`."""
    z = _claim_quantile(rows[0].row, audit_number)
    return _bound(_shares(rows), [one.bounded(one.value("auc_upper95"), z / one.z_claim) for one in rows])


def _shares(rows: Sequence[SiteRow]) -> list[float]:
    total = sum(one.weight for one in rows)
    return [one.weight / total for one in rows]


def _bound(shares: Sequence[float], parts: Sequence[tuple[float, float]]) -> float:
    """From each site's AUC and signed half-width."""
    centre = math.fsum(share * auc for share, (auc, _) in zip(shares, parts, strict=True))
    half = math.sqrt(math.fsum((share * width) ** 2 for share, (_, width) in zip(shares, parts, strict=True)))
    return min(1.0, max(0.0, centre + math.copysign(half, math.fsum(width for _, width in parts))))


def _claim_quantile(row: AttackRow, audit_number: int) -> float:
    return quantile(claim_confidence(1 if row.threat_model == "none" else audit_number))


@cache
def quantile(confidence: float) -> float:
    """Of the standard normal distribution."""
    return float(stats.norm.ppf(confidence))


def _sum(numbers: Sequence[Cell | None]) -> Cell:
    """Of those that are told: what is not told counts as nobody."""
    total = sum(number for number in numbers if isinstance(number, int))
    return total if total >= SMALLEST_CELL else SMALL


def _rates(rows: Sequence[SiteRow]) -> tuple[TprRow, ...] | None:
    """True positives at no false alarm; None where a site does not tell them."""
    hits, sizes = _named(rows)
    if hits is None:
        return None
    members, holdout = (sum(side) for side in zip(*sizes, strict=True))
    fpr_bound = clopper_pearson(0, holdout, confidence=0.9)[1]
    ci = clopper_pearson(hits, members)
    return (TprRow(fpr=0.0, tpr=hits / members, ci=ci, resolvable=True, fpr_bound=fpr_bound),)


def _no_false_alarm_p_value(rows: Sequence[SiteRow]) -> float | None:
    hits, sizes = _named(rows)
    if hits is None or any(one.row.no_false_alarm_p_value is None for one in rows):
        return None
    return pooled_no_false_alarm_p_value(hits, sizes)


def _named(rows: Sequence[SiteRow]) -> tuple[int | None, list[tuple[int, int]]]:
    """Members named without a false alarm, and members and holdout patients of each site; None where one tells none."""
    hits, sizes = 0, []
    for one in rows:
        rates = [rate for rate in (one.row.tpr if isinstance(one.row.tpr, tuple) else ()) if rate.fpr == 0]
        if one.sizes is None or not rates:
            return None, []
        hits += round(rates[0].tpr * one.sizes[0])
        sizes.append(one.sizes)
    return hits, sizes
