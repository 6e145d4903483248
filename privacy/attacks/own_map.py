"""A scan's error: how far what a generator paints from the scan's own label map is from the scan."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..statistics import Floats
from .interface import AuditedScans, Images, Reconstruct, paint

_SMALLEST = 1e-12
"""Keeps the logarithm of a perfect reconstruction finite and ordered."""


class OwnMapErrors:
    """Smallest errors so far, over draws that are painted once, whoever else looks at them.

    Args:
        scans: Audited scans.
        judged: Shape (N, X, Y, Z).
    """

    def __init__(self, scans: AuditedScans, judged: NDArray[np.bool_]) -> None:
        self._scans, self._judged = scans, judged
        self.smallest: Floats = np.full(len(scans), np.inf)

    def seen(self, draw: Iterator[Images]) -> Iterator[Images]:
        """One volume a scan, in their order, in batches; the same batches, each compared with its scans."""
        i = 0
        for batch in draw:
            for volume in batch:
                difference = (volume - self._scans.images[i])[:, self._judged[i]].astype(np.float64)
                self.smallest[i] = min(self.smallest[i], float(np.mean(difference**2)))
                i += 1
            yield batch


def own_map_errors(
    generator: Reconstruct,
    scans: AuditedScans,
    judged: NDArray[np.bool_],
    draws: int,
    seed: int,
    first: OwnMapErrors | None = None,
) -> Floats:
    """Smallest mean squared error over noise draws, in judged voxels and all channels. Shape (N,).

    Args:
        generator: Target, reference or control.
        scans: Audited scans.
        judged: Shape (N, X, Y, Z).
        draws: At least one.
        seed: Draw d is painted with ``seed + d``.
        first: The errors of draw 0 where somebody painted it before.
    """
    errors = OwnMapErrors(scans, judged)
    if first is not None:
        errors.smallest = first.smallest.copy()
    for draw in range(0 if first is None else 1, draws):
        for _ in errors.seen(paint(generator, scans.labels, seed + draw)):
            pass
    return errors.smallest


def log_errors(errors: Floats) -> Floats:
    """Of mean squared errors, on whose scale those of any two networks compare."""
    return np.asarray(np.log(np.maximum(errors, _SMALLEST)))
