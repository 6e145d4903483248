"""A label map that is public by construction: nested ellipsoids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..study import Study


def schematic_classes(study: Study) -> NDArray[np.uint8]:
    """Nested ellipsoids of all classes, (X, Y, Z), as large as a patch."""
    shape = study.training.patch.shape if study.training.patch else study.grid.shape
    axes = [np.linspace(-1, 1, n) for n in shape]
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    classes = len(study.labels)
    inside = np.clip(np.ceil((0.9 - radius) / 0.9 * (classes - 1)), 0, classes - 1)
    return np.asarray(inside, dtype=np.uint8)
