"""A large audit, its page and a large search for copies, each in its own process: a peak is that of all it did."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import Row


def audit_rows() -> list[Row]:
    """``audit_minutes`` with generators at hand, ``audit_peak_mb``, and ``audit_controls_minutes`` of training them."""
    facts = _measured("large_audit.py")
    return [
        Row("audit_minutes", facts["audit_seconds"] / 60, "min", None, 10.0),
        Row("audit_peak_mb", facts["peak_mb"], "MB", None, 2000.0),
        Row("audit_controls_minutes", facts["controls_seconds"] / 60, "min"),
    ]


def copy_search_rows() -> list[Row]:
    """``copy_search_minutes`` of 2,000 volumes over 500 scans, ten times what a tenth took; every copy must be found.

    Raises:
        RuntimeError: a planted copy was missed: how fast it was is then of no interest.
    """
    facts = _measured("copy_search.py")
    if facts["found"] != facts["planted"]:
        raise RuntimeError(f"{facts['found']} of {facts['planted']} planted copies found")
    return [
        Row("copy_search_minutes", facts["seconds"] / 60, "min", None, 30.0),
        Row("copy_search_peak_mb", facts["peak_mb"], "MB"),
    ]


def report_rows() -> list[Row]:
    """``report_open_seconds`` and ``report_megabytes`` of a large audit's internal page; none without Chromium."""
    if shutil.which("chromium") is None:
        print("no Chromium to open the page: not measured", file=sys.stderr, flush=True)
        return []
    facts = _measured("report_page.py")
    return [
        Row("report_open_seconds", facts["seconds"], "s", None, 2.0),
        Row("report_megabytes", facts["megabytes"], "MB", None, 15.0),
    ]


def _measured(script: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).with_name(script)), folder]
        facts: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return facts
