"""Rows, fair timing, and the name of the hardware."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch

SHOWN_VERSIONS = ("torch", "monai", "numpy", "flwr")


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name: Fixed; results are compared by it.
        value: In ``unit``.
        unit: ``ratio``, ``s``, ``min``, ``GiB``, ``MB``.
        baseline: What it is compared with, in the same unit; None where it stands alone.
        target: The largest value that is good enough; None where none is promised.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    target: float | None = None

    @property
    def verdict(self) -> str:
        """``ok`` or ``MISSED`` against the target, else nothing."""
        if self.target is None:
            return ""
        return "ok" if self.value <= self.target else "MISSED"


def alternated(
    one: Callable[[], object], other: Callable[[], object], device: torch.device, repeats: int, warm_up: int = 3
) -> tuple[float, float]:
    """Median seconds of each, measured in turns, so that a busy machine slows both alike."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(warm_up + repeats):
        for call, kept in zip((one, other), seconds, strict=True):
            elapsed = timed(call, device)
            if repeat >= warm_up:
                kept.append(elapsed)
    return median(seconds[0]), median(seconds[1])


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, the device's queue drained before and after."""
    _drain(device)
    started = time.perf_counter()
    call()
    _drain(device)
    return time.perf_counter() - started


def _drain(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def hardware(device: torch.device) -> dict[str, object]:
    """What the figures were measured on."""
    facts: dict[str, object] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in SHOWN_VERSIONS},
        "device": "cpu",
    }
    if device.type == "cuda":
        facts |= {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return facts


def hardware_name(device: torch.device) -> str:
    """A file name for this hardware."""
    if device.type == "cuda":
        text = torch.cuda.get_device_name(device)
    else:
        text = f"{_processor()} {len(os.sched_getaffinity(0))} cores"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
