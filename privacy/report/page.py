"""The one HTML page: evidence and verdict in plain words, opened from disk, with nothing fetched from anywhere.

Two renditions: *internal* may show a patient's scan beside a synthetic one; *shareable* is made from content out of
which every patient's voxel was taken first. The page holds no script, and its content security policy forbids any,
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

from ...common.counted import counted
from ...common.labels.chain import states_licence
from ...common.study import Study
from ..dp.accounting import told
from ..evidence import SMALLEST_CELL, required_controls
from ..label_making import LabelMaking
from ..power_words import NO_SIZES, chance_of_a_pass, power_points
from ..release.readme import MEANT_FOR
from . import names as names
from . import words as words
from .attack_rows import attack_table, with_interval
from .cells import Cells
from .content import (
    Rendition,
    ReportArm,
    ReportAudit,
    ReportContent,
    ReportEvaluation,
    ReportFigure,
    ReportRound,
)
from .figures import Interval, Reference, curve_plot, interval_plot, reply_plot
from .film import film_of
from .ledger_rows import ledger_tables
from .legal import legal_rows
from .people import PATIENTS, Kind, PeopleCounts, arm_meaning, arm_name
from .plain import plainly
from .slices import SHOWN, legend, show_volumes

__all__ = ["render_report"]

_TEMPLATES = Path(__file__).parent / "templates"
_NONE = "–"


def render_report(content: ReportContent, rendition: Rendition) -> str:
    """The whole page. The same content gives the same bytes.

    Args:
        content: What there is to show; what is missing is said to be missing.
        rendition: ``shareable`` shows no patient's voxel, and no group of real patients smaller than a cell.
    """
    shown = content if rendition == "internal" else content.shareable()
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style = (_TEMPLATES / "report.css.j2").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    audit, sample = shown.audit, shown.synthetic
    # Nobody stands behind a procedural patient: such groups are told however small.
    cells = Cells(hide_small=rendition == "shareable" and shown.kind != "procedural")
    return environment.get_template(
        "report.html.j2"
    ).render(
        content=shown,
        study=shown.study,
        promise=shown.promise,
        promise_epsilon=told(shown.promise.epsilon) if shown.promise else "",
        promise_sentence=shown.promise.sentence() if shown.promise else "",
        ledgers=ledger_tables(shown.ledgers, shown.study),
        rendition=rendition,
        style=Markup(style),  # noqa: S704 - a file of this package
        style_hash=f"sha256-{digest}",
        headline=words.headline(audit),
        audit=audit,
        reasons=tuple(plainly(cells.sentence(reason)) for reason in audit.reasons) if audit else (),
        refusals=tuple(plainly(cells.sentence(reason)) for reason in shown.release.reasons) if shown.release else (),
        stands_in=audit and audit.reference_stands_in and cells.sentence(audit.reference_stands_in),
        tier_meaning=MEANT_FOR[audit.tier] if audit else "",
        needed=words.needed(audit, cells) if audit else (),
        beyond=words.beyond_release(audit) if audit else (),
        not_asked=words.not_asked(audit) if audit else (),
        members=_told(audit, "member", cells),
        holdout=_told(audit, "holdout", cells),
        rounded=audit is not None and words.rounds_small_groups(audit),
        linkage=words.linkage(audit) if audit else "",
        holds_with=words.holds_with(audit) if audit else None,
        counts=_counts(audit, cells) if audit else (),
        power_points=power_points(audit.power) if audit and audit.power else (),
        power_chance=_chance(audit),
        power_missing=NO_SIZES
        if audit and audit.combined_from
        else "the audit does not say what so many patients can show.",
        power_stays=content.audit is not None and content.audit.power is not None,
        facts=(*_people(shown.people, cells), *shown.facts.items()),
        **attack_table(audit, shown.roc, cells),
        roc_hidden=[curve.name for curve in content.roc if curve not in shown.roc],
        smallest_cell=SMALLEST_CELL,
        controls=_controls(audit) if audit else (),
        **_usefulness(shown.evaluation, shown.study, shown.kind, cells),
        **_training(shown.rounds),
        times=[(name, _duration(seconds)) for name, seconds in shown.times.items()],
        shows_real=sample is not None and sample.shows_real(),
        shows_procedural=sample is not None and sample.nearest is not None,
        procedural_share=_share(shown.people, cells),
        patients_word=PATIENTS[shown.kind],
        shown=show_volumes(shown.study, sample) if sample else (),
        films=[film_of(i, shown.study, sample) for i in range(len(sample.volumes[:SHOWN]))] if sample else (),
        synthetic_total=(audit and words.count(audit, "synthetic")) or (len(sample.volumes) if sample else 0),
        picked=sample is not None and bool(sample.numbers),
        accused_total=sum(sample.accused) if sample else 0,
        legend=legend(shown.study),
        legal=legal_rows(audit, shown.release, cells),
        limits=words.limits(shown.study),
        sources=_sources(shown),
        making=_making(shown.label_making),
        making_overlaps=shown.label_making is not None and shown.label_making.overlaps,
        terms=words.TERMS,
    )


def _chance(audit: ReportAudit | None) -> str:
    if audit is None or audit.power is None:
        return ""
    return chance_of_a_pass(audit.power, audit.tier, audit.thresholds().min_holdout)


def _counts(audit: ReportAudit, cells: Cells) -> list[tuple[str, str]]:
    out = []
    for name, value in audit.counts.items():
        plain = words.COUNTS.get(name, name.replace("_", " "))
        tell = str if name in words.NOT_PATIENTS else cells.number
        if isinstance(value, Mapping):
            out += [(f"{plain}: {inner}", tell(number)) for inner, number in value.items()]
        else:
            out.append((plain, tell(value)))
    return out


def _told(audit: ReportAudit | None, name: str, cells: Cells) -> str | None:
    number = audit.counts.get(name) if audit else None
    return None if number is None or isinstance(number, dict) else cells.number(number)


def _people(people: PeopleCounts | None, cells: Cells) -> list[tuple[str, str]]:
    if people is None:
        return []
    told = {
        "real": cells.number(people.real),
        "procedural": f"{people.procedural}, all procedural: no person was scanned",
        "mixed": f"{cells.number(people.real)} real, {cells.number(people.procedural)} procedural",
    }
    return [("Patients", told[people.kind])]


def _share(people: PeopleCounts | None, cells: Cells) -> str:
    if people is None:
        return ""
    if people.kind == "mixed" and cells.hides(people.real):  # the total less the rest would tell them
        return "most" if people.procedural > people.real else "some"
    return f"{cells.number(people.procedural)} of {cells.number(people.procedural + people.real)}"


def _controls(audit: ReportAudit) -> list[dict[str, str]]:
    rows = [
        {
            "id": control.id,
            "name": names.control_name(control.id),
            "deed": names.control_deed(control.id),
            "required": _NONE if control.required is None else plainly(str(control.required)),
            "got": _NONE if control.got is None else plainly(str(control.got)),
            "held": "✓ yes" if control.ok else "✗ NO" if control.ok is False else "? unknown",
        }
        for control in audit.controls
    ]
    run = {control.id for control in audit.controls}
    asked = required_controls(audit.release, audit.claimed_epsilon, {attack.id for attack in audit.attacks})
    absent = [name for name in asked if name not in run]
    return rows + [
        {
            "id": n,
            "name": names.control_name(n),
            "deed": names.control_deed(n),
            "required": _NONE,
            "got": _NONE,
            "held": "✗ NOT RUN",
        }
        for n in absent
    ]


def _usefulness(evaluation: ReportEvaluation | None, study: Study, kind: Kind, cells: Cells) -> dict[str, Any]:
    if evaluation is None:
        return {"evaluation": None}
    real = next((arm.dice.mean for arm in evaluation.arms if arm.name == "real"), None)
    names = [arm_name(arm.name, kind) for arm in evaluation.arms]
    rows = [
        {
            "name": name,
            "meaning": arm_meaning(arm.name, kind) + _scans(arm, evaluation, cells),
            "dice": _figure(arm.dice),
            "ratio": _ratio(arm, evaluation, real),
        }
        for name, arm in zip(names, evaluation.arms, strict=True)
    ]
    repeated = _repeated(evaluation, study)
    regions = dict.fromkeys(region for arm in evaluation.arms for region in arm.per_label)
    structures = [
        {
            "name": region,
            "rows": [(n, _figure(arm.per_label.get(region))) for n, arm in zip(names, evaluation.arms, strict=True)],
        }
        for region in regions
        if region not in (evaluation.region, repeated)
    ]
    intervals = [Interval(n, arm.dice.mean, arm.dice.ci) for n, arm in zip(names, evaluation.arms, strict=True)]
    told = "; ".join(f"{interval.name} {with_interval(interval.value, interval.ci)}" for interval in intervals)
    references = [] if real is None else [Reference(real, arm_name("real", kind), "6 3")]
    return {
        "evaluation": evaluation,
        "tested_on": cells.number(evaluation.arms[0].dice.n_test),
        "structures": structures,
        "arms": rows,
        "beyond_public": _beyond_public(evaluation),
        "relative_to": None if real is None else arm_name("real", kind),
        "dice_plot": interval_plot(intervals, references, f"Dice of ‘{evaluation.region}’", f"Dice: {told}"),
    }


def _repeated(evaluation: ReportEvaluation, study: Study) -> str | None:
    """Of 'foreground' and a region of all labels, which are the same, the one that need not be told again."""
    everything = set(study.label_values) - {0}
    same = [name for name, values in study.regions.items() if set(values) == everything]
    if evaluation.region == "foreground":
        return next(iter(same), None)
    told = {region for arm in evaluation.arms for region in (evaluation.region, *arm.per_label)}
    return "foreground" if told.intersection(same) else None


def _beyond_public(evaluation: ReportEvaluation) -> str:
    means = {arm.name: arm.dice for arm in evaluation.arms}
    if not {"synthetic", "public"} <= means.keys():
        return ""
    made = means["synthetic"]
    return words.worth_beyond_public(made.mean, made.ci[0], means["public"].mean)


def _scans(arm: ReportArm, evaluation: ReportEvaluation, cells: Cells) -> str:
    """How many scans an arm had; not where a small group's number could be had from it by subtraction."""
    trained = next((other.scans for other in evaluation.arms if other.name == "real"), None)
    if arm.scans is None or ("real" in arm.name.split("+") and trained is not None and cells.hides(trained)):
        return ""
    return f" ({arm.scans} scans)"


def _ratio(arm: ReportArm, evaluation: ReportEvaluation, real: float | None) -> str:
    if arm.name in evaluation.ratio_to_real:
        return _figure(evaluation.ratio_to_real[arm.name])
    return f"{arm.dice.mean / real:.2f}" if real else _NONE


def _figure(figure: ReportFigure | None) -> str:
    return _NONE if figure is None else with_interval(figure.mean, figure.ci)


def _training(rounds: Sequence[ReportRound]) -> dict[str, Any]:
    if not rounds:
        return {"curves": (), "replies": None, "reply_sentence": "", "given_up": False}
    curves = []
    for index, (key, name) in enumerate(words.METRICS.items()):
        values = [(entry.round, entry.metrics[key]) for entry in rounds if key in entry.metrics]
        if values:
            told = f"{name}: {values[0][1]:.2f} in round {values[0][0]}, {values[-1][1]:.2f} in round {values[-1][0]}"
            curves.append((name, curve_plot(values, name, index, told)))
    averaged, given_up = [r for r in rounds if not r.given_up], [r for r in rounds if r.given_up]
    if not all(entry.named for entry in rounds):
        sentence = _took_part(averaged, len(given_up))
        return {"curves": curves, "replies": None, "reply_sentence": sentence, "given_up": bool(given_up)}
    missed = Counter(site for entry in averaged for site in entry.left_out)
    sites = sorted({site for entry in rounds for site in (*entry.sites, *entry.left_out)})
    parts = [f"{len(sites)} sites ({', '.join(sites)}), {counted(len(rounds), 'round')}."]
    parts += [
        f"Round {entry.round} was given up, and no site's training of it counts: {entry.given_up}."
        for entry in given_up
    ]
    parts.append(
        "Left out: " + ", ".join(f"{site} in {n} of {len(averaged)} rounds" for site, n in sorted(missed.items())) + "."
        if missed
        else f"Every site took part in every {'other ' if given_up else ''}round."
    )
    sentence = " ".join(parts)
    plot = reply_plot(rounds, sentence)
    return {"curves": curves, "replies": plot, "reply_sentence": sentence, "given_up": bool(given_up)}


def _took_part(averaged: Sequence[ReportRound], given_up: int) -> str:
    """The same in numbers alone."""
    most = max((len(entry.sites) + len(entry.left_out) for entry in averaged), default=0)
    short = sum(bool(entry.left_out) for entry in averaged)
    told = f"{counted(most, 'site')}, {counted(len(averaged) + given_up, 'round')}. "
    if given_up:
        told += f"{counted(given_up, 'round')} of them {'was' if given_up == 1 else 'were'} given up. "
    return told + (
        f"In {short} of {'the others' if given_up else 'them'} a site or more was left out."
        if short
        else f"Every site took part in every {'other ' if given_up else ''}round."
    )


def _sources(content: ReportContent) -> list[dict[str, Any]]:
    maps = Counter((source.name, source.licence, source.citation, source.kind) for source in content.label_sources)
    return [
        {
            "name": name,
            "licence": licence,
            "licensed": states_licence(licence),
            "private": kind == "private",
            "maps": n,
            "citation": citation or "not stated by the cohort",
        }
        for (name, licence, citation, kind), n in sorted(maps.items())
    ]


def _making(making: LabelMaking | None) -> list[tuple[str, str, int]]:
    """Way of making, where its numbers come from, scans."""
    if making is None:
        return []
    sampled = [(f"sampled from {row.source}, not edited", _NONE, row.scans) for row in making.sampled]
    return sampled + [(f"edited by the recipe ‘{row.recipe}’", row.citation, row.scans) for row in making.edited]


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 1:
        return "under 1 s"
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
