"""Updates as whole numbers modulo 2^32, so that sums are exact and masks hide every bit; and back.

A value v of an update of L2 norm clip or less becomes round(v · 2^bits / clip), which lies in ±2^bits. Times whole
weights w of sum W, the sum over sites lies in ±W·2^bits. Below 2^31 it is the same number modulo 2^32, whatever
happened on the way. 32 bits, not 64: a masked value then takes as many bytes on the wire as the float32 it stands for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.uint32]
"""Whole numbers modulo 2^32, shape (values,)."""

_BLOCK = 1 << 20
"""Values converted at once: bounds the float64 copies."""


@dataclass(frozen=True)
class FixedPoint:
    """How a study's updates become whole numbers.

    Attributes:
        clip: Largest L2 norm of an update, > 0.
        bits: Of the fraction that ``clip`` stands above.
    """

    clip: float
    bits: int

    @property
    def step(self) -> float:
        """Distance of two neighbouring values; a site's rounding errs by half of it, and so does a mean of sites."""
        return math.ldexp(self.clip, -self.bits)

    def weight_problem(self, weights: Iterable[float]) -> str | None:
        """Why sites of these weights cannot be summed, as one phrase; None if they can."""
        weights, room = list(weights), 2 ** (31 - self.bits)
        if not all(weight == int(weight) and weight >= 1 for weight in weights):
            return "a weight that is not a whole number"
        if sum(weights) >= room:
            return f"weights of {sum(weights):g} in all, where {self.bits} bits leave room for less than {room}"
        return None

    def encode(self, trained: NDArray[np.float32], start: NDArray[np.float32], weight: int) -> tuple[Ring, float]:
        """A site's weighted update, clipped and rounded.

        Args:
            trained: Shape (values,), finite.
            start: What the round began with, shape (values,), finite.
            weight: The site's, whole.

        Returns:
            The whole numbers, and the update's norm before it was clipped.
        """
        norm = math.sqrt(math.fsum(float(np.dot(block, block)) for _, block in _updates(trained, start)))
        if not math.isfinite(norm):
            raise ValueError("an update that is not finite")
        scale = min(1.0, self.clip / norm if norm else 1.0) / self.step
        most = 2**self.bits
        out = np.empty(trained.shape, np.uint32)
        for place, block in _updates(trained, start):
            # Clipped once more: the scaled norm may stand a rounding error above the bound.
            out[place] = (np.clip(np.rint(block * scale), -most, most).astype(np.int64) * weight).astype(np.uint32)
        return out, norm

    def decode(self, total: Ring, start: NDArray[np.float32], weights: int) -> NDArray[np.float32]:
        """The sites' mean: the start, and the summed updates over the sum of their weights."""
        out = np.empty(start.shape, np.float32)
        for first in range(0, len(start), _BLOCK):
            place = slice(first, first + _BLOCK)
            out[place] = start[place].astype(np.float64) + total[place].view(np.int32) * (self.step / weights)
        return out


def _updates(trained: NDArray[np.float32], start: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    for first in range(0, len(trained), _BLOCK):
        place = slice(first, first + _BLOCK)
        yield place, trained[place].astype(np.float64) - start[place].astype(np.float64)
