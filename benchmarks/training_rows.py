"""Training step, against a plain loop in the same run; cache read, warm and cold."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from material import Material
from measure import Row, alternated, timed
from plain_loop import PlainTraining

from fedphantom.common.cohorts.preparation import PreparedScans
from fedphantom.common.device import Device
from fedphantom.common.gan.training import scans_of_step, train
from fedphantom.common.gan.training_state import new_state

STEPS, READS, COLD_READS = 40, 200, 20


def training_rows(material: Material, device: Device) -> list[Row]:
    """``train_step_over_plain``, ``cache_read_share`` (warm: the files lie in memory), ``cache_read_cold``.

    The cold row is left out where the system keeps the files in memory whatever it is told.
    """
    study, scans = material.study, material.scans
    in_memory = scans.only(range(len(scans)))
    state = new_state(study, study.seed, device)
    steps = train(state, in_memory, study, until_step=sys.maxsize, total_steps=sys.maxsize, seed=study.seed)
    ours, plain = alternated(lambda: next(steps), PlainTraining(scans, study, device), device.torch, STEPS)

    def read(step: int) -> None:
        rows = scans_of_step(len(scans), study.training.batch, step, study.seed)
        np.stack([scans.volumes[i] for i in rows])
        np.stack([scans.classes[i] for i in rows])

    reading = median(timed(partial(read, step), device.torch) for step in range(READS))
    cold = [timed(partial(read, step), device.torch) for step in range(COLD_READS) if _forget(scans)]
    rows = [Row("cache_read_cold", median(cold), "s", ours)] if cold else []
    return [
        Row("train_step", ours, "s", plain),
        Row("train_step_over_plain", ours / plain, "ratio", 1.0, 1.05),
        Row("cache_read_warm", reading, "s", ours),
        Row("cache_read_share", reading / ours, "ratio", None, 0.02),
        *rows,
    ]


def _forget(scans: PreparedScans) -> bool:
    """Have the system drop the cache's files from memory; whether it did."""
    return all(_dropped(array) for array in (scans.volumes, scans.classes))


def _dropped(array: object) -> bool:
    mapped = getattr(array, "base", None)
    if not isinstance(array, np.memmap) or not isinstance(mapped, mmap.mmap) or array.filename is None:
        return False
    mapped.madvise(mmap.MADV_DONTNEED)  # mapped pages are not dropped
    descriptor = os.open(array.filename, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # nor are those not written yet
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.preadv(descriptor, [bytearray(1)], array.nbytes // 2, os.RWF_NOWAIT)
    except BlockingIOError:
        return True  # it would have to wait for the disk
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def memory_rows(folder: Path, device: Device) -> list[Row]:
    """Peak memory of each loop, each in a process of its own."""
    script = Path(__file__).with_name("peak_memory.py")
    peaks = []
    for loop in ("ours", "plain"):
        command = [sys.executable, str(script), loop, str(folder), device.torch.type]
        peaks.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return [Row("train_peak_memory", peaks[0], "GiB", peaks[1], 4.0)]
