"""What shadow generators show of the audited scans: how well each paints them, and whom it saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..statistics import Floats
from .interface import AuditedScans, Reconstruct
from .own_map import own_map_errors


@dataclass(frozen=True, eq=False)
class Errors:
    """How errors are measured: alike for shadows and target.

    Attributes:
        scans: Audited.
        judged: Their voxels judged, shape (N, X, Y, Z).
        reference: Scans of patients whom no shadow saw.
        reference_judged: Their voxels judged, shape (R, X, Y, Z).
        draws: Noise draws.
        seed: Of the noise.
    """

    scans: AuditedScans
    judged: NDArray[np.bool_]
    reference: AuditedScans
    reference_judged: NDArray[np.bool_]
    draws: int
    seed: int

    def of(self, generator: Reconstruct) -> Floats:
        """Mean squared errors of the audited scans, then of the reference's, shape (N + R,)."""
        own = own_map_errors(generator, self.scans, self.judged, self.draws, self.seed)
        others = own_map_errors(generator, self.reference, self.reference_judged, self.draws, self.seed)
        return np.concatenate([own, others])


@dataclass(frozen=True, eq=False)
class Shadows:
    """What shadow generators showed; the generators themselves are gone.

    Attributes:
        measure: How.
        errors: One row a shadow, shape (S, N + R), as :meth:`Errors.of` gives them.
        saw: Whether each shadow trained on each audited scan's patient, shape (S, N); of every scan some did, some not.
    """

    measure: Errors
    errors: Floats
    saw: NDArray[np.bool_]
