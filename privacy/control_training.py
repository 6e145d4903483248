"""Trains the audit's reference and control generators through the very loop that trained the released one.

They see private patients without differential privacy: they live in memory, never on disk, and are gone after the
audit (PRIVACY §4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..common.device import Device
from ..common.generation import paint
from ..common.networks import Generator
from ..common.preparation import PreparedScans
from ..common.study import Study
from ..common.training import train_from_scratch
from .attacks.interface import Images, Labels, Reconstruct


def painter(network: Generator, study: Study, device: Device) -> Reconstruct:
    """A generator as the attacks see it: class indices and a noise seed to images."""

    def reconstruct(labels: Labels, noise_seed: int) -> Images:
        return paint(network, labels, study, noise_seed, device)

    return reconstruct


def train_control_generator(
    scans: PreparedScans,
    rows: NDArray[np.intp],
    study: Study,
    device: Device,
    *,
    steps: int,
    seed: int,
) -> Reconstruct:
    """Train the study's networks from scratch on these scans alone.

    Args:
        scans: All prepared scans.
        rows: Which of them.
        study: Networks and objective, as for the released generator.
        device: Where to train.
        steps: Generator steps.
        seed: Of weights and draws.

    Raises:
        TrainingError: NaN or collapse.
    """
    return painter(train_from_scratch(scans.only(rows), study, device, steps=steps, seed=seed), study, device)
