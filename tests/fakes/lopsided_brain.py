"""A brain whose halves are alike but not the same, with a lesion over cortex, white matter and a ventricle."""

from __future__ import annotations

from functools import cache

import numpy as np
from little_brain import SPACING, healthy_brain, with_tumour
from numpy.typing import NDArray

from fedphantom.common.labels.deformation import AffineParameters, DiffeomorphismParameters, warp_labels

OVER_ALL_TISSUES = (-30.0, 4.0, 3.0)
"""Where a lesion of 20 mm reaches from the ventricle into the cortex."""


@cache
def lopsided_brain() -> NDArray[np.uint8]:
    """A thick cortex, wide ventricles; then warped, so that no mirrored voxel is sure to be right. Read-only."""
    labels = healthy_brain(white_mm=36.0, ventricle=(15.0, 4.0, 3.0), ventricle_mm=10.0)
    still = AffineParameters(rotation_deg=(0, 0, 0), scale=(1, 1, 1), shift_mm=(0, 0, 0))
    warp = DiffeomorphismParameters(seed=1, displacement_mm=1.2, smoothness_mm=16)
    warped = warp_labels(labels, SPACING, still, warp)
    warped.flags.writeable = False
    return warped


def ill_lopsided_brain() -> NDArray[np.uint8]:
    return with_tumour(lopsided_brain(), OVER_ALL_TISSUES, radius=20)
