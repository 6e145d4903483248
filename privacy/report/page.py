"""The one HTML page: evidence and verdict in plain words, opened from disk, with nothing fetched from anywhere.

Two renditions: *internal* may show a real scan beside a synthetic one; *shareable* is made from content out of
which every real voxel was taken first. The page holds no script, and its content security policy forbids any,
so that a hostile name in a study or a cohort stays a name.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ...common.labels.atlas import ATLAS_CITATION, ATLAS_NAME
from ..audit.extract import AttackRow
from ..evidence import REQUIRED_CONTROLS, SMALLEST_CELL
from . import words as words
from .content import (
    Rendition,
    ReportArm,
    ReportAudit,
    ReportContent,
    ReportEvaluation,
    ReportFigure,
    ReportRound,
    RocCurve,
)
from .figures import Interval, Reference, curve_plot, interval_plot, reply_plot, roc_plot
from .slices import legend, show_volumes

__all__ = ["render_report"]

_TEMPLATES = Path(__file__).parent / "templates"
_NONE = "–"


def render_report(content: ReportContent, rendition: Rendition) -> str:
    """The whole page. The same content gives the same bytes.

    Args:
        content: What there is to show; what is missing is said to be missing.
        rendition: ``shareable`` shows no real voxel.
    """
    shown = content if rendition == "internal" else content.shareable()
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style = (_TEMPLATES / "report.css.j2").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    audit, sample = shown.audit, shown.synthetic
    return environment.get_template("report.html.j2").render(
        content=shown,
        study=shown.study,
        rendition=rendition,
        style=Markup(style),  # noqa: S704 - a file of this package
        style_hash=f"sha256-{digest}",
        headline=words.headline(audit),
        audit=audit,
        needed=words.needed(audit) if audit else (),
        beyond=words.beyond_release(audit) if audit else (),
        members=words.told(audit, "member") if audit else None,
        holdout=words.told(audit, "holdout") if audit else None,
        rounded=audit is not None and words.rounds_small_groups(audit),
        holds_with=words.holds_with(audit) if audit else None,
        counts=_counts(audit) if audit else (),
        facts=tuple(shown.facts.items()),
        **_attacks(audit, shown.roc),
        roc_hidden=[curve.name for curve in content.roc if curve not in shown.roc],
        smallest_cell=SMALLEST_CELL,
        controls=_controls(audit) if audit else (),
        **_usefulness(shown.evaluation),
        **_training(shown.rounds),
        times=[(name, _duration(seconds)) for name, seconds in shown.times.items()],
        shows_real=sample is not None and sample.nearest_real is not None,
        shown=show_volumes(shown.study, sample.volumes, sample.labels, sample.nearest_real) if sample else (),
        synthetic_total=(audit and words.count(audit, "synthetic")) or (len(sample.volumes) if sample else 0),
        legend=legend(shown.study),
        limits=words.LIMITS,
        sources=_sources(shown),
        terms=words.TERMS,
    )


def _counts(audit: ReportAudit) -> list[tuple[str, str]]:
    out = []
    for name, value in audit.counts.items():
        plain = words.COUNTS.get(name, name.replace("_", " "))
        if isinstance(value, Mapping):
            out += [(f"{plain}: {inner}", str(number)) for inner, number in value.items()]
        else:
            out.append((plain, str(value)))
    return out


def _attacks(audit: ReportAudit | None, roc: Sequence[RocCurve]) -> dict[str, Any]:
    if audit is None or not audit.attacks:
        return {"attacks": (), "auc_plot": None, "roc_plot": None, "binding_note": False}
    policy = audit.thresholds()
    rows = [_attack(attack, audit) for attack in audit.attacks]
    drawn = [
        Interval(f"{attack.id}: {words.attack_name(attack.id)}", attack.auc, _bounds(attack))
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
        "roc_plot": roc_plot(roc, "ROC curves of " + ", ".join(curve.name for curve in roc)) if roc else None,
    }


def _attack(attack: AttackRow, audit: ReportAudit) -> dict[str, Any]:
    bounds, row = _bounds(attack), words.no_false_alarm(attack)
    limit = words.limit(attack, audit) if words.is_binding(attack, audit) else None
    named = (
        _NONE
        if row is None
        else f"{row.tpr:.0%}" + ("" if row.ci is None else f" ({row.ci[0]:.0%} to {row.ci[1]:.0%})")
    )
    if isinstance(attack.tpr, float):
        named = f"{attack.tpr:.0%}"
    return {
        "id": attack.id,
        "name": words.attack_name(attack.id),
        "deed": words.attack_deed(attack.id),
        "holds": words.attacker_holds(attack.threat_model),
        "binding": words.is_binding(attack, audit),
        "auc": _NONE if attack.auc is None else _with_interval(attack.auc, bounds),
        "limit": _NONE if limit is None else f"{limit:.2f}",
        "named": named,
        "epsilon": _NONE if attack.eps_lower_bound is None else f"{attack.eps_lower_bound:.2f}",
        "p": _NONE if attack.p_value is None else "< 0.001" if attack.p_value < 0.001 else f"{attack.p_value:.3f}",
    }


def _bounds(attack: AttackRow) -> tuple[float, float] | None:
    if attack.auc_ci is None:
        return None
    low, high = attack.auc_ci
    return None if low is None or high is None else (low, high)


def _controls(audit: ReportAudit) -> list[dict[str, str]]:
    rows = [
        {
            "name": words.control_name(control.id),
            "deed": words.control_deed(control.id),
            "required": _NONE if control.required is None else str(control.required),
            "got": _NONE if control.got is None else str(control.got),
            "held": "✓ yes" if control.ok else "✗ NO" if control.ok is False else "? unknown",
        }
        for control in audit.controls
    ]
    absent = [name for name in REQUIRED_CONTROLS if name not in {control.id for control in audit.controls}]
    return rows + [
        {
            "name": words.control_name(n),
            "deed": words.control_deed(n),
            "required": _NONE,
            "got": _NONE,
            "held": "✗ NOT RUN",
        }
        for n in absent
    ]


def _usefulness(evaluation: ReportEvaluation | None) -> dict[str, Any]:
    if evaluation is None:
        return {"evaluation": None}
    real = next((arm.dice.mean for arm in evaluation.arms if arm.name == "real"), None)
    regions = list(dict.fromkeys(region for arm in evaluation.arms for region in arm.per_label))
    rows = [
        {
            "name": arm.name,
            "meaning": words.ARMS.get(arm.name, "")
            + ("" if arm.scans is None else f" ({words.number(arm.scans)} scans)"),
            "dice": [_figure(arm.per_label.get(region)) for region in regions] or [_figure(arm.dice)],
            "ratio": _ratio(arm, evaluation, real),
        }
        for arm in evaluation.arms
    ]
    intervals = [Interval(arm.name, arm.dice.mean, arm.dice.ci) for arm in evaluation.arms]
    told = "; ".join(f"{arm.name} {_figure(arm.dice)}" for arm in evaluation.arms)
    references = [] if real is None else [Reference(real, "real", "6 3")]
    return {
        "evaluation": evaluation,
        "tested_on": words.number(evaluation.arms[0].dice.n_test),
        "regions": regions or [evaluation.region],
        "arms": rows,
        "dice_plot": interval_plot(intervals, references, f"Dice of ‘{evaluation.region}’", f"Dice: {told}"),
    }


def _ratio(arm: ReportArm, evaluation: ReportEvaluation, real: float | None) -> str:
    if arm.name in evaluation.ratio_to_real:
        return _figure(evaluation.ratio_to_real[arm.name])
    return f"{arm.dice.mean / real:.2f}" if real else _NONE


def _figure(figure: ReportFigure | None) -> str:
    return _NONE if figure is None else _with_interval(figure.mean, figure.ci)


def _with_interval(value: float, bounds: tuple[float, float] | None) -> str:
    return f"{value:.2f}" if bounds is None else f"{value:.2f} ({bounds[0]:.2f} to {bounds[1]:.2f})"


def _training(rounds: Sequence[ReportRound]) -> dict[str, Any]:
    if not rounds:
        return {"curves": (), "replies": None, "reply_sentence": ""}
    curves = []
    for index, (key, name) in enumerate(words.METRICS.items()):
        values = [(entry.round, entry.metrics[key]) for entry in rounds if key in entry.metrics]
        if values:
            told = f"{name}: {values[0][1]:.2f} in round {values[0][0]}, {values[-1][1]:.2f} in round {values[-1][0]}"
            curves.append((name, curve_plot(values, index, told)))
    missed = Counter(site for entry in rounds for site in entry.left_out)
    sites = sorted({site for entry in rounds for site in (*entry.sites, *entry.left_out)})
    sentence = f"{len(sites)} sites ({', '.join(sites)}), {len(rounds)} rounds. " + (
        "Left out: " + ", ".join(f"{site} in {n} of {len(rounds)} rounds" for site, n in sorted(missed.items())) + "."
        if missed
        else "Every site took part in every round."
    )
    return {"curves": curves, "replies": reply_plot(rounds, sentence), "reply_sentence": sentence}


def _sources(content: ReportContent) -> list[dict[str, Any]]:
    maps = Counter((source.name, source.licence, source.kind) for source in content.label_sources)
    table = content.study.public_labels
    cited = {ATLAS_NAME: ATLAS_CITATION} | ({table.name: table.citation} if table.citation else {})
    return [
        {"name": name, "licence": licence, "private": kind == "private", "maps": n, "citation": cited.get(name, _NONE)}
        for (name, licence, kind), n in sorted(maps.items())
    ]


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 1:
        return "under 1 s"
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
