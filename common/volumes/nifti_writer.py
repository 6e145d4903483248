"""NIfTI files written: clean and byte-deterministic.

PRIVACY §5 ("Files") is followed: nothing of a source's header survives, because no source header is ever taken.

Source: NIfTI-1 data format, nifti.nimh.nih.gov; RFC 1952 (gzip).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ..atomic import write_atomic_pieces
from ..errors import DataError, GeometryError
from .grid import Affine, Grid
from .nifti import TEXT_FIELDS, VOXEL_OFFSET

_nibabel: Any = nib
"""nibabel's functions carry no annotations."""
_COMPRESSION_LEVEL = 6
_PIECE_VOXELS = 1 << 20
"""Voxels converted and compressed at once."""


def write_volume(path: Path, voxels: NDArray[np.float32], grid: Grid, *, flush: bool = True) -> None:
    """Write one channel, shape (X, Y, Z), float32, as a clean NIfTI-1 on the grid's canonical affine.

    Equal voxels and grid give equal bytes. The name decides: ``.nii.gz`` or ``.nii``. ``flush`` is
    that of :func:`atomic.write_atomic`.

    Raises:
        GeometryError: the shape is not the grid's.
        DataError: a voxel is not finite.
        StorageError: the disk is full, read-only or forbidden.
    """
    if not np.isfinite(voxels).all():
        raise DataError(
            "a volume to be written holds NaN or infinity",
            expected="finite intensities",
            remedy="Train or generate again; a generator that does so has collapsed.",
        )
    _write(path, np.asarray(voxels), np.dtype("<f4"), grid, flush)


def write_label_map(path: Path, labels: NDArray[np.uint8], grid: Grid, *, flush: bool = True) -> None:
    """Write a label map, shape (X, Y, Z), uint8; otherwise as :func:`write_volume`."""
    _write(path, np.asarray(labels), np.dtype("u1"), grid, flush)


def write_private_label_map(path: Path, labels: NDArray[np.uint8], affine: Affine) -> None:
    """Write a label map (X, Y, Z) where its scan lies, so that the two fit; for the site's own use.

    The header is as clean as any of ours but for the scanner's affine, which is a quasi-identifier (PRIVACY §5):
    such a file may not be released.

    Raises:
        StorageError: the disk is full, read-only or forbidden.
    """
    _write_pieces(path, _pieces(np.asarray(labels), np.dtype("u1"), affine))


def write_private_volume(path: Path, voxels: NDArray[np.float32], affine: Affine, *, flush: bool = True) -> None:
    """Write intensities (X, Y, Z), finite, where the scanner put them; otherwise as :func:`write_private_label_map`."""
    _write_pieces(path, _pieces(np.asarray(voxels), np.dtype("<f4"), affine), flush=flush)


def _write(path: Path, voxels: NDArray[Any], dtype: np.dtype[Any], grid: Grid, flush: bool) -> None:
    if voxels.shape != grid.shape:
        raise GeometryError(
            f"a volume of shape {voxels.shape}",
            expected=f"the grid's shape {grid.shape}",
            remedy="Prepare the volume on the study's grid first.",
        )
    _write_pieces(path, _pieces(voxels, dtype, grid.affine()), flush=flush)


def _write_pieces(path: Path, pieces: Iterator[bytes], *, flush: bool = True) -> None:
    write_atomic_pieces(path, _plain_gzip(pieces) if path.name.endswith(".gz") else pieces, flush=flush)


def _pieces(voxels: NDArray[Any], dtype: np.dtype[Any], affine: Affine) -> Iterator[bytes]:
    """The file's bytes before compression, a few slices at a time: X runs fastest, so slices of Z follow each other."""
    yield _clean_header(dtype, voxels.shape, affine)
    casting: Literal["safe", "same_kind"] = "same_kind" if dtype.kind == "f" else "safe"
    step = max(1, _PIECE_VOXELS // (voxels.shape[0] * voxels.shape[1]))
    for start in range(0, voxels.shape[2], step):
        yield voxels[:, :, start : start + step].astype(dtype, casting=casting).tobytes(order="F")


def _clean_header(dtype: np.dtype[Any], shape: tuple[int, ...], affine: Affine) -> bytes:
    header = _nibabel.Nifti1Header(endianness="<")
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_qform(affine, code=2)
    header.set_sform(affine, code=2)
    header.set_xyzt_units("mm")
    header["vox_offset"] = VOXEL_OFFSET
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["magic"] = b"n+1"
    for name in (*TEXT_FIELDS, "regular"):
        header[name] = b""
    for name in ("extents", "session_error", "cal_max", "cal_min", "glmax", "glmin", "toffset"):
        header[name] = 0
    without_extensions = bytes(4)
    return bytes(header.binaryblock) + without_extensions


def _plain_gzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    # Written by hand because the standard library's operating-system byte differs between Python versions.
    deflate = zlib.compressobj(_COMPRESSION_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    checksum = length = 0
    yield b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"  # no flags, no time
    for piece in pieces:
        checksum, length = zlib.crc32(piece, checksum), length + len(piece)
        yield deflate.compress(piece)
    yield deflate.flush() + struct.pack("<II", checksum, length & 0xFFFFFFFF)
