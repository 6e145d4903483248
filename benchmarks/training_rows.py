"""Training step and cache read, against a plain loop in the same run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median

import numpy as np
from material import Material
from measure import Row, alternated, timed
from plain_loop import PlainTraining

from fedphantom.common.device import Device
from fedphantom.common.training import scans_of_step, train
from fedphantom.common.training_state import new_state

STEPS, READS = 40, 200


def training_rows(material: Material, device: Device) -> list[Row]:
    """``train_step_over_plain`` and ``cache_read_share``."""
    study, scans = material.study, material.scans
    in_memory = scans.only(range(len(scans)))
    state = new_state(study, study.seed, device)
    steps = train(state, in_memory, study, until_step=sys.maxsize, seed=study.seed)
    ours, plain = alternated(lambda: next(steps), PlainTraining(scans, study, device), device.torch, STEPS)

    def read(step: int) -> None:
        rows = scans_of_step(len(scans), study.training.batch, step, study.seed)
        np.stack([scans.volumes[i] for i in rows])
        np.stack([scans.classes[i] for i in rows])

    reading = median(timed(lambda step=step: read(step), device.torch) for step in range(READS))
    return [
        Row("train_step", ours, "s", plain),
        Row("train_step_over_plain", ours / plain, "ratio", 1.0, 1.05),
        Row("cache_read", reading, "s", ours),
        Row("cache_read_share", reading / ours, "ratio", None, 0.02),
    ]


def memory_rows(folder: Path, device: Device) -> list[Row]:
    """Peak memory of each loop, each in a process of its own."""
    script = Path(__file__).with_name("peak_memory.py")
    peaks = []
    for loop in ("ours", "plain"):
        command = [sys.executable, str(script), loop, str(folder), device.torch.type]
        peaks.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return [Row("train_peak_memory", peaks[0], "GiB", peaks[1], 4.0)]
