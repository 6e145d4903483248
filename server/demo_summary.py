"""What a demo found, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..privacy.report.people import PATIENTS, PeopleCounts, arm_name


def summary_text(summary: Mapping[str, Any], out: Path) -> str:
    """The summary of :func:`fedphantom.server.demo.run_demo` in a few lines, and where the report lies."""
    sites = ", ".join(f"{name} ({patients})" for name, patients in summary["sites"].items())
    evaluation, audit, release = summary["evaluation"], summary["audit"], summary["release"]
    procedural = summary["procedural_patients"]
    kind = PeopleCounts(summary["patients"] - procedural, procedural).kind
    names = [arm_name(arm["name"], kind) for arm in evaluation["arms"]]
    lines = [
        f"{summary['patients']} {PATIENTS[kind]} at {len(summary['sites'])} sites: {sites}; dp: {summary['dp']}",
        f"Dice of '{evaluation['region']}' on test patients, by what the U-Net was trained on:",
    ]
    for name, arm in zip(names, evaluation["arms"], strict=True):
        dice = arm["dice"]
        lines.append(
            f"  {name:<{max(map(len, names))}}  {dice['mean']:.3f}  [{dice['ci'][0]:.3f}, {dice['ci'][1]:.3f}]"
        )
    lines.append(f"audit:   {audit['verdict']}")
    packed = "release: packed for use inside the study; approved by no site's officer"
    lines.append(packed if release["packed"] else f"release: refused - {'; '.join(release['reasons'])}")
    lines.append(f"report:  {out / 'report.html'}")
    return "\n".join(lines)
