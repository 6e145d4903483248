"""The hash of one prepared scan: over every number that training and audit read of it."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ARRAYS = ("volumes.npy", "classes.npy", "headers.npy")
"""Files of prepared scans, row by row one scan."""

_HEX = 32
"""Digits kept of a keyed digest: 128 bits, which nobody without the key can aim at."""


def scan_digest(volume: NDArray[np.float32], classes: NDArray[np.uint8], header: NDArray[np.float64]) -> str:
    """SHA-256 (hex) over voxels (C, X, Y, Z), classes (X, Y, Z) and what its files say beside them (F,)."""
    out = hashlib.sha256()
    for array in (volume, classes, header):
        out.update(f"{array.shape} {array.dtype.str}\n".encode())
        out.update(np.ascontiguousarray(array).data)
    return out.hexdigest()


def digests_on_disk(folder: Path) -> tuple[str, ...]:
    """Of every scan in a folder of prepared ones, in order; a scan at a time is in memory.

    Raises:
        OSError, ValueError: a file is missing, or no array of the size that it says.
    """
    rows = [_rows(folder / name) for name in ARRAYS]
    return tuple(scan_digest(*row) for row in zip(*rows, strict=True))


def patients_digests(patients: Sequence[str], digests: Iterable[str], key: bytes) -> tuple[str, ...]:
    """One HMAC-SHA256 a patient (its first 32 hex digits), in the order of their identifiers.

    Without the key none of them can be held against a scan that lies elsewhere. The order of a patient's scans does not
    matter.

    Args:
        patients: Of each scan.
        digests: Of each scan, from :func:`scan_digest`.
        key: The site's, kept there.
    """
    of: dict[str, list[str]] = {}
    for patient, digest in zip(patients, digests, strict=True):
        of.setdefault(patient, []).append(digest)
    return tuple(_keyed(patient, of[patient], key) for patient in sorted(of))


def _keyed(patient: str, digests: list[str], key: bytes) -> str:
    name = patient.encode()
    content = b"scans" + len(name).to_bytes(8, "big") + name + "".join(sorted(digests)).encode()
    return hmac.new(key, content, "sha256").hexdigest()[:_HEX]


def _rows(path: Path) -> Iterator[NDArray[Any]]:
    """Row by row, read and not mapped: pages of a map would count as this process's memory."""
    with path.open("rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("another version of the array format")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        count = math.prod(shape[1:])
        if fortran or dtype.hasobject or path.stat().st_size != file.tell() + shape[0] * count * dtype.itemsize:
            raise ValueError("not the rows that the header tells of")
        for _ in range(shape[0]):
            yield np.fromfile(file, dtype, count).reshape(shape[1:])
