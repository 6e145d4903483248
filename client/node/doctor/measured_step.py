"""``python -I -m fedphantom.client.node.doctor.measured_step SITE``: one real optimiser step, its time and memory.

A process of its own: its peak is the step's alone, and where the system ends it for want of memory, the doctor lives to
say so. It trains networks of the study on made-up scans of the study's size: no patient is read, nothing is written,
nothing is spent.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ....common.cohorts.preparation import PreparedScans
    from ....common.study import Study

STEP_S = 1800.0
"""How long a step may take before it is given up; a round of such steps would never end."""

_RSS_UNIT = 1024 if sys.platform == "linux" else 1
"""Bytes; macOS counts single ones (getrusage(2))."""


@dataclass(frozen=True)
class MeasuredStep:
    """What a step took.

    Attributes:
        seconds: Of one step, after the first where there is a GPU: its first one chooses algorithms.
        bytes: Peak, of the process's memory or of the GPU's.
    """

    seconds: float
    bytes: int


def measure_step(site: Path) -> MeasuredStep | str:
    """Take a step in a process of its own; the reason, in words, where there is none to tell of.

    Args:
        site: The site's folder.
    """
    command = [sys.executable, "-I", "-m", __name__, str(site.resolve())]
    try:
        done = subprocess.run(  # noqa: S603 - our own list of arguments, no shell
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=STEP_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it was not done after {STEP_S / 60:.0f} min"
    if done.returncode < 0:
        return "the system ended it: most likely there was too little memory"
    try:
        said = json.loads(done.stdout)
        return str(said["failed"]) if "failed" in said else MeasuredStep(float(said["seconds"]), int(said["bytes"]))
    except (ValueError, KeyError, TypeError):
        return f"its process ended with code {done.returncode}"


def main(arguments: Sequence[str]) -> int:
    """Take the step and print one JSON object."""
    import torch

    from ....common.site_folder import SiteFolder

    try:
        said: dict[str, object] = asdict(_step(SiteFolder.open(Path(arguments[0])).study().paired()))
    except torch.OutOfMemoryError:
        said = {"failed": "the GPU's memory was not enough"}
    except (MemoryError, RuntimeError):  # torch tells of too little memory on the CPU by the latter
        said = {"failed": "it could not be taken: most likely there was too little memory"}
    print(json.dumps(said))
    return 0


def _step(study: Study) -> MeasuredStep:
    import torch

    from ....common.device import choose_device
    from ....common.gan.training import train
    from ....common.gan.training_state import new_state

    device = choose_device()
    state, begun, steps = new_state(study, study.seed, device), time.monotonic(), 2 if device.cuda else 1
    for losses in train(state, _made_up(study), study, until_step=steps, total_steps=steps, seed=study.seed):
        if device.cuda:
            torch.cuda.synchronize()
        if losses.step < steps:
            begun = time.monotonic()
    peak = torch.cuda.max_memory_reserved() if device.cuda else _resident_peak()
    return MeasuredStep(time.monotonic() - begun, peak)


def _resident_peak() -> int:
    """Bytes. Not ``ru_maxrss``: under Linux a process begins with the peak of the one that started it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def _made_up(study: Study) -> PreparedScans:
    """One scan of the study's size: a block in nothing. Pages that nobody writes take no memory."""
    import numpy as np

    from ....common.cohorts.preparation import PreparedScans

    shape = study.grid.shape
    volumes = np.zeros((1, len(study.channels), *shape), np.float32)
    classes = np.zeros((1, *shape), np.uint8)
    classes[0][tuple(slice(n // 2 - 2, n // 2 + 2) for n in shape)] = 1
    return PreparedScans(volumes, classes, ("made-up",), ("",), np.zeros((1, 0)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
