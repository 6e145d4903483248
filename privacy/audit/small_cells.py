"""Groups of fewer than twenty patients: what of an audit's figures about them leaves the site (PRIVACY §3.1).

A number of patients under twenty is told as ``<20``, and so is nobody. That alone would not hide it: an AUC of eleven
against five is a fraction of 55, the Clopper-Pearson bound of none of eleven is 1 - 0.025^(1/11), and the parts of a
total give each other away. Of a row with such a side, therefore:

- both sizes go, the smaller as ``<20`` and the larger as nothing, since a subgroup's total is a known share of all;
- AUC, its interval and its bounds are told in steps of 0.05, bounds outwards; beside an AUC told as .90 and more, or
  .10 and less, the bound on its far side is told as 0 or 1, because it may be the closed form that perfect order of so
  many gives. A bound that lies below the tier's threshold is not told above it: the verdict stays decidable;
- a p-value is told in steps of 0.05, upwards; an ε lower bound in steps of 0.5, downwards;
- true positive rates go, and the p-value of the members named without one false alarm: they are made of whole numbers.

Where members or holdout patients as a whole are that few, what the controls showed goes too (whether they held stays),
and so do totals from which the number could be subtracted. δ, one in ten times the trained patients, is told with one
digit, downwards, where one of its parts is small: what refutes ε at some δ refutes it at every smaller one.

A reader learns from an interval's width, as from any interval, roughly how many patients there were; and no number.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TypeVar

from ..evidence import OUTLIERS, SMALLEST_CELL
from ..multiplicity import NO_FALSE_ALARM
from .extract import AttackRow, AuditExtract, Cell, ControlRow, Count, EarlierPValues, EpsilonMeans
from .recomputation import decided_anew, policy_of

SMALL: Cell = "<20"
NOT_TOLD = "not told: fewer than 20 patients on a side"
"""What a control showed, where it cannot be told."""
_REASONS_STAY = "The reasons stay at the site: they tell of fewer than 20 patients."
_NO_PATIENTS = ("sites", "synthetic")
"""Counts of something else."""
_TOTALS = ("audited_patients", "audited_scans")
"""Counts of members and holdout patients together."""

E = TypeVar("E", bound=AuditExtract)


def travelling(extract: E) -> E:
    """What of an audit may leave its site. Applied again, it changes nothing more.

    Its figures allow the verdict that the whole file's allow, if that is PASS; reasons are decided anew where one could
    hold a figure that goes.
    """
    whole = any(_is_small(extract.counts.get(side)) for side in ("member", "holdout"))
    policy = policy_of(extract)
    taus = {True: policy.outlier_auc_upper_max, False: policy.auc_upper_max}
    rows = tuple(
        rounded_row(row, taus[row.id.endswith(OUTLIERS)]) if _is_small_row(row) else row for row in extract.attacks
    )
    exact = {row.id for row in extract.attacks if not _is_small_row(row)}
    out = extract.model_copy(
        update={
            "counts": _counts(extract.counts, without_totals=whole),
            "attacks": rows,
            "controls": tuple(_control(row) if whole else row for row in extract.controls),
            "earlier_audits": tuple(_earlier(audit, exact) for audit in extract.earlier_audits),
            "copied_members": cell(extract.copied_members) if extract.copied_members else extract.copied_members,
            "epsilon_means": _means(extract),
        }
    )
    if not whole and len(exact) == len(rows):
        return out
    anew = decided_anew(out)
    return out.model_copy(update={"reasons": anew.reasons if anew.outcome == out.verdict else (_REASONS_STAY,)})


def cell(number: Cell | None) -> Cell | None:
    """A number of patients as it may be told."""
    return SMALL if isinstance(number, int) and number < SMALLEST_CELL else number


def _is_small(count: Count | None) -> bool:
    return count == SMALL or (isinstance(count, int) and count < SMALLEST_CELL)


def _is_small_row(row: AttackRow) -> bool:
    """Whether a side is small, or nobody says how large it is."""
    sides = (row.n_member, row.n_holdout)
    return None in sides or any(_is_small(side) for side in sides)


def _counts(counts: dict[str, Count], *, without_totals: bool) -> dict[str, Count]:
    def told(name: str, count: Count) -> Count:
        if isinstance(count, dict):
            return {inner: SMALL if _is_small(number) else number for inner, number in count.items()}
        return SMALL if _is_small(count) and name not in _NO_PATIENTS else count

    return {name: told(name, count) for name, count in counts.items() if not (without_totals and name in _TOTALS)}


def rounded_row(row: AttackRow, tau: float | None) -> AttackRow:
    """A small group's row as it may be told; a bound below τ is told no higher than τ."""
    auc = None if row.auc is None else round(row.auc * 20) / 20

    def down(share: float | None) -> float | None:
        if share is None or auc is None:
            return None
        told = math.floor(round(share * 20, 6)) / 20
        return 0.0 if auc >= 0.9 else told

    def up(share: float | None) -> float | None:
        if share is None or auc is None:
            return None
        told = math.ceil(round(share * 20, 6)) / 20
        told = 1.0 if auc <= 0.1 else told
        return min(told, tau) if tau is not None and share <= tau else told

    low, high = row.auc_ci or (None, None)
    upper = None if row.auc_upper95 is None else up(max(row.auc_upper95, row.auc or 0.0))
    return row.model_copy(
        update={
            "auc": auc if auc is None or upper is None else min(auc, upper),
            "auc_ci": row.auc_ci and (down(low), up(high)),
            "auc_lower95": down(row.auc_lower95),
            "auc_upper95": upper,
            "tpr": None,
            "no_false_alarm_p_value": None,
            "eps_lower_bound": None if row.eps_lower_bound is None else math.floor(row.eps_lower_bound * 2) / 2,
            "p_value": None if row.p_value is None else _p_value(row.p_value),
            "n_member": SMALL if _is_small(row.n_member) else None,
            "n_holdout": SMALL if _is_small(row.n_holdout) else None,
        }
    )


def _p_value(p: float) -> float:
    return math.ceil(round(p * 20, 6)) / 20


def _control(row: ControlRow) -> ControlRow:
    return row.model_copy(update={"got": NOT_TOLD})


def _earlier(audit: EarlierPValues | None, exact: set[str]) -> EarlierPValues | None:
    if audit is None:
        return None
    # What this audit does not tell an earlier one does not either; as a test that found nothing it still counts.
    return {
        name: p if name.removesuffix(NO_FALSE_ALARM) in exact else 1.0 if name.endswith(NO_FALSE_ALARM) else _p_value(p)
        for name, p in audit.items()
    }


def _means(extract: AuditExtract) -> EpsilonMeans | None:
    means = extract.epsilon_means
    if means is None or not any(_is_small(extract.counts.get(role)) for role in ("member", "training")):
        return means
    delta = Decimal(repr(means.delta))
    return means.model_copy(update={"delta": float(f"{delta.as_tuple().digits[0]}e{delta.adjusted()}")})
