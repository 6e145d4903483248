"""What a run over real Flower processes left running, and waiting for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def flower_processes(out: Path) -> list[int]:
    """Living processes whose Flower home lies in the run's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"FLWR_HOME=" + str(out).encode() + b"/" in environment and lives(int(entry.name)):
                found.append(int(entry.name))
    return found
