"""Peak memory of a few steps in this process, in GiB: ``ours|plain FOLDER DEVICE``, or ``dp-WAY SIDE DEVICE``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from dp_rows import step_of
from material import make_material
from plain_loop import PlainTraining
from resident_peak import resident_peak_gib

from fedphantom.common.device import choose_device
from fedphantom.common.gan.training import train
from fedphantom.common.gan.training_state import new_state

STEPS = 5


def main(loop: str, where: str, device_name: str) -> None:
    """Train, then print the peak: of the device where it is a GPU, of the process where it is not."""
    device = choose_device(device_name)
    if loop.startswith("dp-"):
        repeat(step_of(loop.removeprefix("dp-"), device, int(where)))
    elif loop == "plain":
        material = make_material(Path(where))
        repeat(PlainTraining(material.scans, material.study, device))
    else:
        material = make_material(Path(where))
        state = new_state(material.study, material.study.seed, device)
        study = material.study
        for _ in train(state, material.scans, study, until_step=STEPS, total_steps=STEPS, seed=study.seed):
            pass
    print(torch.cuda.max_memory_allocated() / 2**30 if device.cuda else resident_peak_gib())


def repeat(step: Callable[[], object]) -> None:
    """Do it a few times."""
    for _ in range(STEPS):
        step()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
