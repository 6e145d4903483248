"""The report of a finished run, in both renditions, from the files that the commands left."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.atomic import write_atomic
from ...common.cohorts.preparation import PreparedScans
from ...common.gan.weights import load_weights
from ...common.site_folder import SITE_FILE, site_folders
from ...common.study import Study
from ..audit.result import scan_digest
from ..dp.ledger_excerpt import ledger_excerpts
from ..dp.statement import read_dp
from ..label_making import LabelMaking
from ..page_record import note_pages
from ..release.content import PUBLIC_LABELS
from ..release.sidecar import parse_public_sources
from .content import (
    ReleaseOutcome,
    ReportAudit,
    ReportContent,
    ReportEvaluation,
    ReportRound,
    SyntheticSample,
    read_roc,
)
from .page import render_report
from .people import People

SHOWN = 3
"""Synthetic volumes on the page."""
INTERNAL, SHAREABLE = "report.html", "report-shareable.html"


def write_reports(
    out: Path,
    run: Path,
    study: Study,
    *,
    generator: Path,
    audit: Path,
    evaluation: Mapping[str, Any] | None,
    rounds: Sequence[Mapping[str, Any]],
    release: Mapping[str, Any] | None,
    synthetic: PreparedScans | None,
    label_making: LabelMaking | None,
    scans: PreparedScans | None,
    people: People | None,
    facts: Mapping[str, str],
    times: Mapping[str, float],
    times_note: str,
) -> None:
    """Write ``report.html`` (internal, stays at the site) and ``report-shareable.html`` (no patient's voxel).

    The journal of every site whose folder is at hand notes both before they appear: nothing else is approved by.

    The shareable page shows synthetic slices only where the volumes themselves may be shared.

    Args:
        out: Where the pages go.
        run: The run's folder, or a site's.
        study: What was trained.
        generator: The file that was audited; beside it, where it paints, the list of its public label sources.
        audit: ``audit.json``.
        evaluation: As ``evaluate --json``; None where there is none.
        rounds: As ``summary.json``; none where they are not at hand.
        release: Outcome of the gate; None where none was asked for.
        synthetic: Prepared synthetic scans; None of a network that paints none.
        label_making: How their label maps were made.
        scans: Prepared scans of patients, for the one beside each volume shown; None where none are at hand.
        people: The study's patients, named as ``scans`` names them; None where they are not at hand.
        facts: Name to value, shown on top of both pages: no site's name among them.
        times: Stage to seconds.
        times_note: What a reader of the times has to know.

    Raises:
        VerificationFailed: the ledger behind a formal promise cannot be trusted.
    """
    result = audit.read_bytes()
    audited, digest = json.loads(result), hashlib.sha256(result).hexdigest()
    simulated = any(run.glob(f"sites/*/{SITE_FILE}"))  # a coordinator has no site's folder
    at_hand = site_folders(run) if simulated or (run / SITE_FILE).exists() else ()
    sources, metadata = generator.with_name(PUBLIC_LABELS), load_weights(generator)[1]
    report = ReportContent(
        title=f"Synthetic MRI of the study '{study.name}'",
        study=study,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        software=f"FedPhantom {version('fedphantom')}",
        generator_sha256=hashlib.sha256(generator.read_bytes()).hexdigest(),
        facts=facts,
        audit=ReportAudit.read(audited),
        audit_sha256=digest,
        roc=() if audited.get("combined_from") else read_roc(audited),  # a curve is made of single scores
        evaluation=None if evaluation is None else ReportEvaluation.read(evaluation),
        rounds=tuple(ReportRound.read(entry) for entry in rounds),
        synthetic=_suspected(synthetic, scans, study, people, audited.get("suspects", ())) if synthetic else None,
        release=None if release is None else _outcome(release),
        label_sources=parse_public_sources(sources.read_bytes()).sources if sources.is_file() else (),
        label_making=label_making,
        simulated=simulated,
        people=people.counts() if people else None,
        times=times,
        times_note=times_note,
        promise=read_dp(metadata["dp"], study),
        ledgers=ledger_excerpts(at_hand, study),
    )
    internal = render_report(report, "internal").encode()
    # Slices of volumes that the gate holds back would leave with the page; which are nearest to patients is not told.
    shared = synthetic if may_share_volumes(audited["verdict"], release) else None
    report = replace(report, synthetic=_first(shared, study) if shared else None)
    shareable = render_report(report, "shareable").encode()
    note_pages([folder.journal for folder in at_hand], digest, internal, shareable)
    write_atomic(out / INTERNAL, internal, mode=0o600)
    write_atomic(out / SHAREABLE, shareable)


def _outcome(release: Mapping[str, Any]) -> ReleaseOutcome:
    return ReleaseOutcome(release["packed"], release["tier"], release["kind"], tuple(release.get("reasons", ())))


def may_share_volumes(verdict: str, release: Mapping[str, Any] | None) -> bool:
    """Whether the volumes themselves may be seen outside: packed, for more than internal use, after a PASS."""
    return release is not None and bool(release["packed"]) and release["tier"] != "internal" and verdict == "PASS"


def _first(made: PreparedScans, study: Study) -> SyntheticSample:
    """The first volumes, whatever they are like."""
    return SyntheticSample(np.asarray(made.volumes[:SHOWN]), _labels(made, range(SHOWN), study))


def _suspected(
    made: PreparedScans,
    scans: PreparedScans | None,
    study: Study,
    people: People | None,
    suspects: Sequence[Mapping[str, Any]],
) -> SyntheticSample:
    """The volumes that the audit suspects most, each beside the scan that it names.

    Where no scan is at hand that it names, the first volumes, each beside the scan most like it; where none is at hand
    at all, those alone.
    """
    if scans is None:
        return _first(made, study)
    rows = {scan_digest(image): row for row, image in enumerate(scans.volumes)}
    known = [one for one in suspects if one["scan"] in rows and one["volume"] < len(made.volumes)][:SHOWN]
    shown = [int(one["volume"]) for one in known] or list(range(min(SHOWN, len(made.volumes))))
    volumes = np.asarray(made.volumes[shown])
    beside = [rows[one["scan"]] for one in known] or _nearest(volumes, scans)
    procedural = people.procedural if people else ()
    return SyntheticSample(
        volumes,
        _labels(made, shown, study),
        np.asarray(scans.volumes[beside]),
        tuple(scans.patients[row] in procedural for row in beside),
        tuple(index + 1 for index in shown) if known else (),
        tuple(bool(one["accused"]) for one in known),
    )


def _labels(made: PreparedScans, shown: Sequence[int], study: Study) -> NDArray[np.uint8]:
    values = np.asarray(study.label_values, dtype=np.uint8)
    there = [index for index in shown if index < len(made.volumes)]
    return np.asarray(values[np.asarray(made.classes[there])])


def _nearest(volumes: NDArray[np.float32], scans: PreparedScans) -> list[int]:
    """Row of the scan with the least mean squared difference from each volume."""
    return [int(np.argmin([float(np.square(v - t).mean()) for t in scans.volumes])) for v in volumes]
