"""This process's largest resident set; apart from the rest, so that a process without torch can ask."""

from __future__ import annotations

from pathlib import Path


def resident_peak_gib() -> float:
    """Peak since the process began.

    Not ``getrusage``: its figure outlives exec, so that a child starts with its parent's peak.
    """
    status = Path("/proc/self/status").read_text()
    kibibytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kibibytes) / 2**20
