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
from ...common.gan.weights import GENERATOR, load_weights
from ...common.labels.chain import PublicSources
from ...common.site_folder import SITE_FILE, site_folders
from ...common.study import Study
from ..dp.ledger_excerpt import ledger_excerpts
from ..dp.statement import read_dp
from ..label_making import LabelMaking
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


def write_reports(
    out: Path,
    run: Path,
    study: Study,
    *,
    audit: Path,
    evaluation: Mapping[str, Any],
    rounds: Sequence[Mapping[str, Any]],
    release: Mapping[str, Any],
    synthetic: PreparedScans,
    label_making: LabelMaking,
    training: PreparedScans,
    people: People,
    facts: Mapping[str, str],
    times: Mapping[str, float],
    times_note: str,
) -> None:
    """Write ``report.html`` (internal, stays at the site) and ``report-shareable.html`` (no patient's voxel).

    The shareable page shows synthetic slices only where the volumes themselves may be shared.

    Args:
        out: Where the pages go.
        run: Run folder.
        study: What was trained.
        audit: ``audit.json``.
        evaluation: As ``evaluate --json``.
        rounds: As ``summary.json``.
        release: Outcome of the gate.
        synthetic: Prepared synthetic scans.
        label_making: How their label maps were made.
        training: Prepared training scans, for the nearest one beside each volume shown.
        people: The study's patients, named as ``training`` names them.
        facts: Name to value, shown on top.
        times: Stage to seconds.
        times_note: What a reader of the times has to know.

    Raises:
        VerificationFailed: the ledger behind a formal promise cannot be trusted.
    """
    audited = json.loads(audit.read_bytes())
    simulated = any(run.glob(f"sites/*/{SITE_FILE}"))  # a coordinator has no site's folder
    at_hand = site_folders(run) if simulated or (run / SITE_FILE).exists() else ()
    volumes = np.asarray(synthetic.volumes[:SHOWN])
    values = np.asarray(study.label_values, dtype=np.uint8)
    nearest = _nearest(volumes, training)
    report = ReportContent(
        title=f"Synthetic MRI of the study '{study.name}'",
        study=study,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        software=f"FedPhantom {version('fedphantom')}",
        generator_sha256=hashlib.sha256((run / GENERATOR).read_bytes()).hexdigest(),
        facts=facts,
        audit=ReportAudit.read(audited),
        roc=read_roc(audited),
        evaluation=ReportEvaluation.read(evaluation),
        rounds=tuple(ReportRound.read(entry) for entry in rounds),
        synthetic=SyntheticSample(
            volumes,
            values[synthetic.classes[:SHOWN]],
            np.asarray(training.volumes[nearest]),
            tuple(training.patients[row] in people.procedural for row in nearest),
        ),
        release=ReleaseOutcome(release["packed"], release["tier"], release["kind"], tuple(release.get("reasons", ()))),
        label_sources=PublicSources.model_validate_json((run / "public-labels.json").read_bytes()).sources,
        label_making=label_making,
        simulated=simulated,
        people=people.counts(),
        times=times,
        times_note=times_note,
        promise=read_dp(load_weights(run / GENERATOR)[1]["dp"], study),
        ledgers=ledger_excerpts(at_hand, study),
    )
    write_atomic(out / "report.html", render_report(report, "internal").encode(), mode=0o600)
    if not may_share_volumes(audited["verdict"], release):
        # Slices of volumes that the gate holds back would leave with the page.
        report = replace(report, synthetic=None)
    write_atomic(out / "report-shareable.html", render_report(report, "shareable").encode())


def may_share_volumes(verdict: str, release: Mapping[str, Any]) -> bool:
    """Whether the volumes themselves may be seen outside: packed, for more than internal use, after a PASS."""
    return bool(release["packed"]) and release["tier"] != "internal" and verdict == "PASS"


def _nearest(volumes: NDArray[np.float32], training: PreparedScans) -> list[int]:
    """Row of the training scan with the least mean squared difference from each volume."""
    return [int(np.argmin([float(np.square(v - t).mean()) for t in training.volumes])) for v in volumes]
