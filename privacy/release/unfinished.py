"""What a killed command left in a release: an approval half written, which nobody signed."""

from __future__ import annotations

from pathlib import Path

from ...common.storage import TEMPORARY_PREFIX, storage_errors
from .approval import FOLDER


def forget_unfinished(release: Path) -> None:
    """Remove it, before the release is verified: a folder with anything in it that nobody signed does not hold.

    Raises:
        StorageError: the disk is read-only or forbidden.
    """
    place = release / FOLDER
    if place.is_symlink() or not place.is_dir():
        return
    with storage_errors():
        for stray in place.glob(f"{TEMPORARY_PREFIX}*"):
            if stray.is_file() and not stray.is_symlink():
                stray.unlink(missing_ok=True)
        if not any(place.iterdir()):
            place.rmdir()
