"""The MNI152 atlas as nilearn ships it inside its package: nothing is downloaded.

Grey and white matter come from the tissue maps of ICBM 152 (2009, release a), cerebrospinal fluid is
what remains of the brain mask.

Source: Fonov et al. 2011 (doi:10.1016/j.neuroimage.2010.07.033), Fonov et al. 2009
(doi:10.1016/S1053-8119(09)70884-5), Collins et al. 1999 (doi:10.1007/3-540-48714-X_16).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_opening

from ..volumes.grid import Grid
from ..volumes.placement import place_volume
from .brain import BrainLabels

ATLAS_NAME = "MNI152 (nilearn)"
ATLAS_LICENCE = (
    "Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, "
    "McGill University. Permission to use, copy, modify, and distribute this software and its documentation for "
    "any purpose and without fee is hereby granted, provided that the above copyright notice appear in all copies."
)
ATLAS_CITATION = "Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033"

BRAIN_MM = (145.0, 181.0, 155.0)
"""Extent of the atlas's brain along (X, Y, Z)."""


def load_atlas(grid: Grid, tissues: BrainLabels) -> NDArray[np.uint8]:
    """The atlas as a label map, the middle of the brain's bounding box at the grid's centre.

    Args:
        grid: Where to; what does not fit is cut off.
        tissues: Values of the tissues.

    Returns:
        Shape ``grid.shape``: background 0, csf, grey, white.
    """
    affine = np.eye(4)  # the shares are 1 mm, RAS+
    csf, grey, white = (place_volume(share, affine, grid) for share in _tissue_shares())
    shares = np.stack([1 - (csf + grey + white), csf, grey, white])
    values = np.array([0, tissues.csf, tissues.grey, tissues.white], dtype=np.uint8)
    return np.asarray(values[shares.argmax(axis=0)], dtype=np.uint8)


@lru_cache(maxsize=1)
def _tissue_shares() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Shares of csf, grey and white from 0 to 1 at 1 mm, RAS+, cut to the brain's bounding box."""
    # nilearn takes seconds to import, and studies with their own label maps never need it.
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template, load_mni152_wm_template

    grey, white, brain = (
        np.asarray(load(resolution=1).dataobj, dtype=np.float32)
        for load in (load_mni152_gm_template, load_mni152_wm_template, load_mni152_brain_mask)
    )
    # The mask, a threshold on the T1 template, trails vessels a few millimetres wide.
    brain = binary_opening(brain, iterations=2).astype(np.float32)
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(brain))
    grey, white, brain = grey[box] * brain[box], white[box] * brain[box], brain[box]
    return np.clip(brain - grey - white, 0, 1), grey, white
