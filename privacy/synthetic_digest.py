"""One digest over a synthetic cohort's volumes and label maps, whatever they are called."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ..common.errors import DataError

VOLUME_ENDING = ".nii.gz"


def digest_of_hashes(hashes: Iterable[str]) -> str:
    """The digest from the files' own SHA-256, hexadecimal, in any order."""
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def synthetic_digest(cohort: Path) -> str:
    """The digest over every ``.nii.gz`` in a folder: by content, since a release renames its files at random.

    Raises:
        DataError: a file cannot be read, or there is none.
    """
    try:
        hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(cohort.rglob(f"*{VOLUME_ENDING}"))]
    except OSError:
        hashes = []
    if not hashes:
        raise DataError(
            "no readable volume in the synthetic cohort",
            expected=f"'{VOLUME_ENDING}' files as 'fedphantom generate' writes them",
            remedy="Give that cohort's folder.",
        )
    return digest_of_hashes(hashes)
