"""Where a training step's patches lie: boxes cut from the scans, the rare structures in them as often as the large.

Patch sampling after Isensee et al. 2021 (nnU-Net, doi:10.1038/s41592-020-01008-z): a share of the patches is centred on
a voxel of a label that is drawn first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..study import PatchTable

Box = tuple[slice, slice, slice]
"""What of a scan's (X, Y, Z) is taken."""

WHOLE: Box = (slice(None), slice(None), slice(None))


def draw_box(classes: NDArray[np.uint8], patch: PatchTable, labels: int, random: np.random.Generator) -> Box:
    """Where one patch lies.

    Args:
        classes: Class indices (X, Y, Z) of one scan; a memory map is looked through, never copied.
        patch: Shape, and the share that is centred on a labelled voxel.
        labels: Number of classes, background among them.
        random: Source of chance.

    Returns:
        A box within the scan. A centred one is moved no further than to the scan's edge; a scan without any label
        gives one that lies anywhere.
    """
    start = [int(random.integers(n - size + 1)) for n, size in zip(classes.shape, patch.shape, strict=True)]
    if random.random() < patch.foreground:
        # The first of a shuffled order that the scan holds: every label present is as likely.
        for label in 1 + random.permutation(labels - 1):
            places = np.flatnonzero(np.equal(classes, label))
            if places.size:
                centre = np.unravel_index(places[random.integers(places.size)], classes.shape)
                start = [
                    min(max(0, int(at) - size // 2), n - size)
                    for at, size, n in zip(centre, patch.shape, classes.shape, strict=True)
                ]
                break
    x, y, z = (slice(first, first + size) for first, size in zip(start, patch.shape, strict=True))
    return x, y, z
