"""The attacks of an audit as the page shows them: a table with every figure, and what is drawn of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..audit.extract import AttackRow
from ..audit.judged_bound import judged_bound
from ..evidence import BLIND
from . import names as names
from . import words as words
from .cells import Cells
from .content import ReportAudit, RocCurve
from .figures import Interval, Reference, interval_plot, roc_plot

_NONE = "–"


def attack_table(audit: ReportAudit | None, roc: Sequence[RocCurve], cells: Cells) -> dict[str, Any]:
    """What the template asks of the attacks: rows, the chart of their AUCs, and the ROC curves by whom they judge."""
    if audit is None or not audit.attacks:
        return {"attacks": (), "auc_plot": None, "roc_plots": (), "binding_note": False}
    policy = audit.thresholds()
    rows = [_attack(attack, audit, cells) for attack in audit.attacks]
    drawn = [
        Interval(f"{attack.id}: {names.attack_name(attack.id)}", attack.auc, _bounds(attack))
        for attack in audit.attacks
        if attack.auc is not None
    ]
    limits = [
        Reference(value, name, dash)
        for value, name, dash in (
            (policy.auc_upper_max, "allowed at most", "6 3"),
            (policy.outlier_auc_upper_max, "on unusual patients", "10 3 2 3"),
        )
        if value is not None
    ]
    chance = Reference(0.5, "coin flip", "3 4")
    told = "; ".join(f"{row['id']} {row['auc']}" for row in rows)
    return {
        "attacks": rows,
        "binding_note": any(row["binding"] for row in rows),
        "auc_plot": interval_plot(drawn, [chance, *limits], "AUC", f"AUC of each attack: {told}") if drawn else None,
        "roc_plots": [
            (whom, roc_plot(curves, f"ROC curves {whom}: " + ", ".join(curve.name for curve in curves)))
            for whom, curves in _gathered(roc).items()
        ],
    }


def _gathered(roc: Sequence[RocCurve]) -> dict[str, list[RocCurve]]:
    """The curves of an audit are too many for one picture."""
    out: dict[str, list[RocCurve]] = {}
    for curve in roc:
        out.setdefault(names.on_whom(curve.name), []).append(curve)
    return out


def _attack(attack: AttackRow, audit: ReportAudit, cells: Cells) -> dict[str, Any]:
    bounds, row = _bounds(attack), words.no_false_alarm(attack)
    named = (
        _NONE
        if row is None
        else f"{row.tpr:.0%}" + ("" if row.ci is None else f" ({row.ci[0]:.0%} to {row.ci[1]:.0%})")
    )
    if isinstance(attack.tpr, float):
        named = f"{attack.tpr:.0%}"
    if named != _NONE and attack.no_false_alarm_p_value is not None:
        named += f", p {_p(attack.no_false_alarm_p_value)}"
    epsilon = _NONE if attack.eps_lower_bound is None else f"{attack.eps_lower_bound:.2f}"
    return {
        "id": attack.id,
        "name": names.attack_name(attack.id),
        "deed": names.attack_deed(attack.id),
        "group": words.group(attack, cells),
        "holds": names.attacker_holds(attack.threat_model),
        "binding": words.is_binding(attack, audit),
        "limit": words.limit(attack, audit),
        "bound": _bound_at(attack, audit),
        "auc": _NONE if attack.auc is None else with_interval(attack.auc, bounds),
        "named": named,
        "epsilon": epsilon,
        "p": _NONE if attack.p_value is None else _p(attack.p_value),
    }


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _bound_at(attack: AttackRow, audit: ReportAudit) -> str:
    """With its confidence where that is not the column's: the blind baseline's stays at 95 % in every audit."""
    bound = judged_bound(attack.auc_upper95)
    return bound + " (95 %)" * (bool(bound) and attack.id == BLIND and (audit.audit_number or 1) > 1) or _NONE


def _bounds(attack: AttackRow) -> tuple[float, float] | None:
    if attack.auc_ci is None:
        return None
    low, high = attack.auc_ci
    return None if low is None or high is None else (low, high)


def with_interval(value: float, bounds: tuple[float, float] | None) -> str:
    """A figure with its interval in brackets, where it has one."""
    return f"{value:.2f}" if bounds is None else f"{value:.2f} ({bounds[0]:.2f} to {bounds[1]:.2f})"
