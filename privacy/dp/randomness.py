"""Chance that nobody can repeat: seeded by the operating system, never stored, never told.

Whoever could repeat the noise could take it away. So nothing here takes a seed, and a resumed training draws anew
(PRIVACY §1.5, §1.6.11). Generators stretch 256 bits of the operating system's; they are no CSPRNGs themselves, and
releases and reports say so.
"""

from __future__ import annotations

import math
import secrets

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SUMMED = 4
"""Normal draws in a value of noise: the low bits of one tell which floating-point number was noised (Mironov 2012);
Holohan and Braghin 2021 sum several."""


class SecretRandom:
    """Sampling, noise, and the generator's own input, of one training process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # NumPy's for the noise, too: torch's on the CPU keeps 32 bits of any seed, which can be tried out one by one.
        self._noise = np.random.default_rng(secrets.randbits(256))
        self.numpy = np.random.default_rng(secrets.randbits(256))
        self.fakes = torch.Generator().manual_seed(secrets.randbits(63))

    def poisson_sample(self, patients: int, rate: float) -> NDArray[np.intp]:
        """Which patients take part, in ascending order: each with probability ``rate``, independently; maybe none."""
        return np.flatnonzero(self.numpy.random(patients) < rate)

    def normal(self, size: int) -> Tensor:
        """Standard normal draws, shape (size,), float64 (float32 on a device that has none)."""
        dtype = torch.float32 if self._device.type == "mps" else torch.float64
        summed = self._noise.standard_normal((_SUMMED, size)).sum(axis=0) / math.sqrt(_SUMMED)
        drawn = torch.from_numpy(summed).to(dtype)
        if self._device.type == "cuda":
            drawn = drawn.pin_memory()  # else the copy would wait for all that the GPU was given to do
        return drawn.to(self._device, non_blocking=True)
