"""A scan's error: how far what a generator paints from the scan's own label map is from the scan."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ...common.cohorts.disk_rows import let_go
from ...common.parallel import in_order
from ..statistics import Floats
from .interface import AuditedScans, Images, Reconstruct, paint
from .once import Arrays, Once, anew

_SMALLEST = 1e-12
"""Keeps the logarithm of a perfect reconstruction finite and ordered."""

SETTLED = 0.05
"""Of the spread of errors among scans: noise of this size beside it costs an AUC less than a hundredth."""


class OwnMapErrors:
    """Errors of one generator, draw by draw; each is painted once, whoever else looks at it.

    Attributes:
        each: Mean squared error in judged voxels and all channels, one array (N,) a draw.
    """

    def __init__(self, scans: AuditedScans, judged: NDArray[np.bool_], once: Once = anew) -> None:
        self._scans, self._judged, self._once = scans, judged, once
        self.each: list[Floats] = []

    def seen(self, draw: Iterator[Images]) -> Iterator[Images]:
        """One volume a scan, in their order, in batches; the same batches, each compared with its scans."""
        errors: list[float] = []
        for batch in draw:
            tasks = [partial(self._error, i, volume) for i, volume in enumerate(batch, start=len(errors))]
            errors += in_order(tasks)
            let_go(self._scans.images)
            yield batch
        self.each.append(np.array(errors))

    def after(self, draws: int, generator: Reconstruct, seed: int) -> Floats:
        """The smallest over so many draws, of which draw d is painted with ``seed + d``; the first may be there."""
        while (draw := len(self.each)) < draws:
            found = self._once(f"draw {draw}", partial(self._painted, draw, generator, seed))
            self.each[draw:] = [found["errors"]]
        return np.asarray(np.min(self.each[:draws], axis=0))

    def settled(self, most: int, generator: Reconstruct, seed: int) -> int:
        """After how many draws, at least two and at most ``most``, further ones no longer tell scans apart otherwise.

        That is where twice as many moved the logarithms of the errors by less than :data:`SETTLED` of their spread
        among scans. Members and holdout alike are looked at: the coins have no part in it.
        """
        draws, before = min(2, most), log_errors(self.after(1, generator, seed))
        while draws < most:
            now = log_errors(self.after(draws, generator, seed))
            if np.std(now - before) <= SETTLED * np.std(now):
                break
            draws, before = min(2 * draws, most), now
        return draws

    def _error(self, i: int, volume: NDArray[np.float32]) -> float:
        """Mean squared difference of a volume (C, X, Y, Z) from scan i where it is judged."""
        difference = volume - self._scans.images[i]
        squares = np.square(difference, out=difference).sum(axis=0)[self._judged[i]]
        return float(squares.mean(dtype=np.float64)) / len(volume)

    def _painted(self, draw: int, generator: Reconstruct, seed: int) -> Arrays:
        for _ in self.seen(paint(generator, self._scans.labels, seed + draw)):
            pass
        return {"errors": self.each[draw]}


def own_map_errors(
    generator: Reconstruct, scans: AuditedScans, judged: NDArray[np.bool_], draws: int, seed: int
) -> Floats:
    """Smallest mean squared error over noise draws, in judged voxels and all channels. Shape (N,)."""
    return OwnMapErrors(scans, judged).after(draws, generator, seed)


def log_errors(errors: Floats) -> Floats:
    """Of mean squared errors, on whose scale those of any two networks compare."""
    return np.asarray(np.log(np.maximum(errors, _SMALLEST)))
