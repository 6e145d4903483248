"""What a demo found, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def summary_text(summary: Mapping[str, Any], out: Path) -> str:
    """The summary of :func:`fedphantom.server.demo.run_demo` in a few lines, and where the report lies."""
    sites = ", ".join(f"{name} ({patients})" for name, patients in summary["sites"].items())
    evaluation, audit, release = summary["evaluation"], summary["audit"], summary["release"]
    lines = [
        f"{summary['patients']} patients at {len(summary['sites'])} sites: {sites}; dp: {summary['dp']}",
        f"Dice of '{evaluation['region']}' on real test patients, by what the U-Net was trained on:",
    ]
    for arm in evaluation["arms"]:
        dice = arm["dice"]
        lines.append(f"  {arm['name']:<16} {dice['mean']:.3f}  [{dice['ci'][0]:.3f}, {dice['ci'][1]:.3f}]")
    lines.append(f"audit:   {audit['verdict']}")
    lines.append("release: packed" if release["packed"] else f"release: refused - {'; '.join(release['reasons'])}")
    lines.append(f"report:  {out / 'report.html'}")
    return "\n".join(lines)
