"""Public label maps in the place of scans: what an adversarial training shows the generator."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..errors import PolicyRefused
from ..labels.sampler import LabelSampler
from ..study import Study

MOST_DRAWN, MOST_VOXELS = 128, 2**27
"""Different label maps that a training sees; fewer where it takes few steps, or where memory would not hold them."""


class PublicMaps:
    """As many drawn label maps as the study's training is to see, the same for the same study everywhere.

    ``Pairs`` for the training loop, which takes nothing else under a promise: so they are drawn here, from a sampler
    whose every source is declared public, and cannot be made of arrays that come from anywhere.

    Args:
        sampler: Draws them.
        study: Its seed, grid, labels, and the length of its training.

    Attributes:
        volumes: Shape (n, 0, X, Y, Z): of no channel.
        classes: Class indices (n, X, Y, Z).

    Raises:
        PolicyRefused: a source is not declared public.
    """

    def __init__(self, sampler: LabelSampler, study: Study) -> None:
        if any(source.kind != "public" for source in sampler.sources().sources):
            raise PolicyRefused(
                "label maps that are not declared public were about to be shown to a generator under a promise",
                expected="public label maps alone",
                remedy="Nothing was trained. Take the atlas, or a public start that was made of public label maps.",
            )
        training = study.training
        seen = training.rounds * training.local_steps * training.batch
        number = max(1, min(MOST_DRAWN, seen, MOST_VOXELS // math.prod(study.grid.shape)))
        drawn = np.stack([sampler.sample(study.seed, index).labels for index in range(number)])
        self.classes: NDArray[np.uint8] = np.searchsorted(study.label_values, drawn).astype(np.uint8)
        self.volumes: NDArray[np.float32] = np.zeros((number, 0, *study.grid.shape), np.float32)
