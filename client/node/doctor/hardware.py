"""Whether a site's machine can train the study: its GPU, its memory, one real step."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ....common.counted import counted
from ....common.study import Study
from .finding import Outcome, green, red, yellow
from .measured_step import MeasuredStep
from .memory_estimate import DeviceKind, step_memory

DRIVER_FILE = Path("/proc/driver/nvidia/version")
"""Where the kernel tells of NVIDIA's driver (Linux)."""
MEMORY_FILE = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
"""Where a container's or batch job's own limit stands (cgroup v2)."""


@dataclass(frozen=True)
class Accelerator:
    """What torch sees and what is there.

    Attributes:
        name: Of the first GPU that torch can use; None where there is none.
        driver: Version of NVIDIA's driver; None where none is loaded.
        built_for: CUDA version that the installed torch was built for; None for a CPU build.
        free: Bytes free on that GPU.
        total: Bytes that it has.
    """

    name: str | None
    driver: str | None
    built_for: str | None
    free: int = 0
    total: int = 0

    @classmethod
    def here(cls) -> Self:
        """This machine's."""
        import torch

        driver = None
        if DRIVER_FILE.exists():
            found = re.search(r"\s([0-9]+(?:\.[0-9]+)+)\s", DRIVER_FILE.read_text(errors="replace"))
            driver = found[1] if found else "of unknown version"
        built_for = torch.version.cuda
        if not torch.cuda.is_available():
            return cls(None, driver, built_for)
        free, total = torch.cuda.mem_get_info()
        return cls(torch.cuda.get_device_name(), driver, built_for, free, total)

    @property
    def kind(self) -> DeviceKind:
        """Where networks will be."""
        return "cuda" if self.name else "cpu"


def check_gpu(seen: Accelerator) -> Outcome:
    """A GPU that torch can use, or why there is none."""
    if seen.name:
        return green(f"{seen.name}, {_gb(seen.total)}, driver {seen.driver or 'unknown'}, CUDA {seen.built_for}")
    if seen.driver is None:
        return yellow("CPU only: rounds take long", "Nothing, for a tiny study; else use a machine with an NVIDIA GPU.")
    if seen.built_for is None:
        return yellow(
            f"driver {seen.driver} is loaded, but the installed torch is built for the CPU",
            "Install torch for CUDA (see pytorch.org) into FedPhantom's environment.",
        )
    return yellow(
        f"driver {seen.driver} is loaded, but torch for CUDA {seen.built_for} can use no GPU",
        "Update the driver, or see that CUDA_VISIBLE_DEVICES or the container does not hide the GPU.",
    )


def available_memory() -> int:
    """Bytes that a new process may take: of the machine, or of its container or batch job where that has fewer."""
    found = re.search(r"^MemAvailable:\s+([0-9]+) kB", MEMORY_FILE.read_text(), re.MULTILINE)
    machine = int(found[1]) * 1024 if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    try:
        most, used = ((CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        return min(machine, int(most) - int(used))
    except (OSError, ValueError):  # none, or "max"
        return machine


def check_memory(study: Study, seen: Accelerator, available: int) -> Outcome:
    """Whether a step fits, by estimate.

    Args:
        study: What is to be trained.
        seen: The machine's GPU.
        available: Bytes of the machine's own memory; used where there is no GPU.
    """
    needed = step_memory(study).bytes(seen.kind)
    there, where = (seen.free, "free on the GPU") if seen.name else (available, "available")
    said = f"a step needs about {_gb(needed)} by estimate; {_gb(there)} {where}"
    if needed > there:
        return red(said, "Use a machine with more; or ask for a study with patches, a smaller preset or batch.")
    if needed > 0.8 * there:
        return yellow(said, "Run 'fedphantom site doctor --step' to measure one; end other programs before rounds.")
    return green(said)


def check_step(study: Study, seen: Accelerator, available: int, measure: Callable[[], MeasuredStep | str]) -> Outcome:
    """Whether a step fits, measured.

    Args:
        study: What is to be trained.
        seen: The machine's GPU.
        available: Bytes of the machine's own memory, before the step.
        measure: Takes one.
    """
    step = measure()
    if isinstance(step, str):
        return red(
            f"one step was not finished: {step}",
            "Use a machine with more memory; or ask for a study with patches, a smaller preset or batch.",
        )
    there, steps = seen.free if seen.name else available, study.training.local_steps
    said = (
        f"one step of made-up scans took {step.seconds:.2g} s and {_gb(step.bytes)} of {_gb(there)};"
        f" a round of {counted(steps, 'step')} takes about {_duration(step.seconds * steps)}"
    )
    if step.bytes > 0.9 * there:
        return yellow(said, "End other programs before rounds, or use a machine with more memory.")
    return green(said)


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
