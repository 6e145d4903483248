"""Public label maps in the place of scans: what an adversarial training shows the generator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..labels.sampler import LabelSampler
from ..study import Study

MOST_DRAWN, MOST_VOXELS = 128, 2**27
"""Different label maps that a training sees; fewer where it takes few steps, or where memory would not hold them."""


@dataclass(frozen=True, eq=False)
class PublicMaps:
    """Drawn label maps; ``Pairs`` for the training loop.

    Attributes:
        volumes: Shape (n, 0, X, Y, Z): of no channel.
        classes: Class indices (n, X, Y, Z).
    """

    volumes: NDArray[np.float32]
    classes: NDArray[np.uint8]


def draw_public_maps(sampler: LabelSampler, study: Study) -> PublicMaps:
    """As many as the study's training is to see, the same for the same study everywhere."""
    training = study.training
    seen = training.rounds * training.local_steps * training.batch
    number = max(1, min(MOST_DRAWN, seen, MOST_VOXELS // math.prod(study.grid.shape)))
    drawn = np.stack([sampler.sample(study.seed, index).labels for index in range(number)])
    classes = np.searchsorted(study.label_values, drawn).astype(np.uint8)
    return PublicMaps(np.zeros((number, 0, *study.grid.shape), np.float32), classes)
