"""``copy_search.py FOLDER``: a tenth of a search for copies, in a process of its own; prints JSON.

500 patients' scans and 200 of 2,000 synthetic volumes, 96³ voxels, one channel: smooth random tissue inside a head, of
which ten volumes are a patient's scan, mirrored, moved and relit.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from resident_peak import resident_peak_gib
from scipy import ndimage

from fedphantom.common.cohorts.disk_rows import let_go
from fedphantom.common.randomness import numpy_generator
from fedphantom.privacy.attacks.copies import confirmed_copies
from fedphantom.privacy.attacks.distances import distances
from fedphantom.privacy.attacks.interface import AuditedScans, foreground
from fedphantom.privacy.attacks.moved_copies import search_moved

SCANS, VOLUMES, SIDE, PLANTED, SHARE = 500, 200, 96, 10, 10
"""``SHARE``: the volumes are this part of all that a large release holds."""


def head(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A head of a shape and tissue of its own: volume in [-1, 1], shape (1, X, Y, Z), and label map."""
    axes = np.indices((SIDE, SIDE, SIDE), dtype=np.float32) / SIDE - 0.5
    radii = rng.uniform(0.33, 0.45, 3).astype(np.float32)
    inside = sum((axis / radius) ** 2 for axis, radius in zip(axes, radii, strict=True)) < 1
    coarse = rng.normal(0, 1, (12, 12, 12)).astype(np.float32)
    tissue = ndimage.zoom(coarse, SIDE / 12, order=1)
    return np.where(inside, np.tanh(tissue), -1).astype(np.float32)[None], np.asarray(inside, np.uint8)


def main(folder: Path) -> None:
    """Make the volumes, search, print what it took and what was found."""
    rng = numpy_generator(1, "copy search")
    images = np.lib.format.open_memmap(folder / "scans.npy", "w+", np.float32, (SCANS, 1, SIDE, SIDE, SIDE))
    labels = np.empty((SCANS, SIDE, SIDE, SIDE), np.uint8)
    for i in range(SCANS):
        images[i], labels[i] = head(rng)
        let_go(images)
    synthetic = np.lib.format.open_memmap(folder / "volumes.npy", "w+", np.float32, (VOLUMES, 1, SIDE, SIDE, SIDE))
    for i in range(VOLUMES):
        synthetic[i] = head(rng)[0]
        let_go(synthetic)
    for i in range(PLANTED):
        moved = np.roll(images[i][:, :: -1 if i % 2 else 1], rng.integers(-4, 5, 3), axis=(1, 2, 3))
        synthetic[i] = 2 * ((moved + 1) / 2) ** 1.2 - 1
    scans = AuditedScans(images, labels, tuple(f"p{i}" for i in range(SCANS)), ("A",) * SCANS, (True,) * SCANS)
    began = time.perf_counter()
    judged = foreground(scans.images, scans.labels)
    near = distances(scans, judged, synthetic)
    moved_found = search_moved(scans, judged, synthetic).source
    found = confirmed_copies(scans, judged, near, moved_found)
    print(
        json.dumps(
            {
                "seconds": (time.perf_counter() - began) * SHARE,
                "peak_mb": resident_peak_gib() * 2**30 / 1e6,
                "planted": PLANTED,
                "found": found.volumes,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
