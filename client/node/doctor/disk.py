"""Whether a site's disk holds what its study will write."""

from __future__ import annotations

import shutil
from math import prod
from pathlib import Path

from ....common.gan.networks import make_discriminator, make_generator
from ....common.round_record import MOST
from ....common.storage import refuse_unwritable
from ....common.study import Study
from ....privacy.evidence import SMALLEST_CELL
from .finding import Outcome, green, red, yellow

_SAVED = 3
"""Copies of the training state at a time: committed, of a round under way, and one being written."""
_CARRIED = 4
"""Copies of a round's parameters with the SuperNode: asked and answered, whole and in pieces."""
_LOGS = 200_000_000
_ADAM = 3
"""Of each parameter in a saved state: itself and two moments."""


def needed_bytes(study: Study, scans: int, reply: int, prepared: int) -> int:
    """What a site's folder will still grow by over the study, in bytes.

    Reckoned with 20 scans where there are fewer, so that nobody reads the number of patients from it.

    Args:
        study: What is to be trained.
        scans: Of the cohort.
        reply: Size of the site's largest reply.
        prepared: Bytes in the prepared cache.
    """
    networks = (make_generator(study, 0), make_discriminator(study, 0))
    weights = sum(value.numel() for network in networks for value in network.parameters())
    scan = (4 * len(study.channels) + 1) * prod(study.grid.shape)
    cache = 0 if prepared >= scans * scan else max(scans, SMALLEST_CELL) * scan
    return cache + _SAVED * _ADAM * 4 * weights + (2 * MOST + _CARRIED) * reply + _LOGS


def check_disk(root: Path, needed: int) -> Outcome:
    """Whether the folder can be written to and grow by so much.

    Raises:
        StorageError: it cannot be written to.
    """
    refuse_unwritable(root)
    free = shutil.disk_usage(root).free
    # A power of two: the cache's size would tell how many scans there are.
    said = f"{_gb(free)} free; the study needs under {_coarse(needed)} for cache, training state, rounds and logs"
    if free < needed:
        return red(said, "Free space, or move the site's folder to a larger disk.")
    if free < 2 * needed:
        return yellow(said, "Free space: a full disk ends a round.")
    return green(said)


def folder_bytes(folder: Path) -> int:
    """Of all files below it; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _coarse(size: int) -> str:
    gigabytes = 1
    while gigabytes * 1e9 < size:
        gigabytes *= 2
    return f"{gigabytes} GB"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
