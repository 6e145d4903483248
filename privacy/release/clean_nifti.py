"""Whether a NIfTI file carries nothing but voxels on a canonical grid (PRIVACY §5, "Files").

Reads the bytes by the published layout and not through the code that wrote them, so that a fault
in the writer cannot hide itself. Every byte before the voxels must have its one permitted value.

Source: NIfTI-1.1 data format (nifti1.h); RFC 1952 (gzip).
"""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from ...common.errors import VerificationFailed
from ...common.volumes.grid import Grid

_HEADER = struct.Struct("<i10s18s4s2s1s1s8h12s2s2h2s8f3f2s1s1B8s4s4s8s80s24s2h3f3f12f16s4s4s")
_GZIP_HEADER = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"
"""Deflate; no file name, comment or extra field; time 0; level and system not told."""

_DTYPES = {2: ("<u1", 8), 16: ("<f4", 32)}
_MOST_VOXELS = 1 << 28


def check_clean_nifti(content: bytes, *, is_label_map: bool, declared: Grid | None = None) -> Grid:
    """Check the bytes of a ``.nii.gz`` file.

    Args:
        content: The whole file.
        is_label_map: Whether it must hold uint8 labels, and not float32 intensities.
        declared: The grid that it must lie on: a file whose header says another is not unpacked, however small it is.

    Returns:
        The grid the voxels lie on.

    Raises:
        VerificationFailed: anything in gzip header, NIfTI header, extensions or tail that could tell
            where the file or its subject comes from; the place is named, its content is not.
    """
    if content[:10] != _GZIP_HEADER:
        raise _unclean("a gzip header with a name, comment, time or other field")
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        header = stream.decompress(content[10:], _HEADER.size)
        grid, dtype = _check_header(header, is_label_map)
        if declared not in (None, grid):
            raise _unclean("a grid other than the one that was declared")
        size = math.prod(grid.shape) * np.dtype(dtype).itemsize
        voxels = stream.decompress(stream.unconsumed_tail, size)
        surplus = b"" if stream.eof else stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error:
        raise _unclean("a gzip stream that is damaged") from None
    if len(voxels) != size or not stream.eof:
        raise _unclean("bytes behind the voxels" if surplus else "fewer voxels than the header says")
    tail = struct.pack("<II", zlib.crc32(voxels, zlib.crc32(header)), (len(header) + size) & 0xFFFFFFFF)
    if stream.unused_data != tail:
        raise _unclean("bytes behind the gzip stream, or a wrong checksum")
    if dtype == "<f4" and not np.isfinite(np.frombuffer(voxels, dtype)).all():
        raise _unclean("NaN or infinity among the voxels")
    return grid


def clean_voxels(content: bytes, grid: Grid) -> NDArray[np.float32]:
    """The intensities of a file that :func:`check_clean_nifti` found clean, shape (X, Y, Z)."""
    raw = zlib.decompress(content, zlib.MAX_WBITS | 16)
    return np.frombuffer(raw, "<f4", offset=_HEADER.size).reshape(grid.shape, order="F")


def clean_labels(content: bytes, grid: Grid) -> NDArray[np.uint8]:
    """The labels of a file that :func:`check_clean_nifti` found clean, shape (X, Y, Z)."""
    raw = zlib.decompress(content, zlib.MAX_WBITS | 16)
    return np.frombuffer(raw, "<u1", offset=_HEADER.size).reshape(grid.shape, order="F")


def _check_header(header: bytes, is_label_map: bool) -> tuple[Grid, str]:
    if len(header) < _HEADER.size or header[:4] != struct.pack("<i", 348):
        raise _unclean("no little-endian NIfTI-1 header")
    names = (
        "sizeof_hdr data_type db_name extents session_error regular dim_info dim*8 intent_p intent_code datatype bitpix"
        " slice_start pixdim*8 vox_offset scl_slope scl_inter slice_end slice_code xyzt_units cal_max_min"
        " slice_duration toffset glmax_min descrip aux_file qform_code sform_code quatern*3 qoffset*3 srow*12"
        " intent_name magic extension"
    )
    values = iter(_HEADER.unpack(header))
    found: dict[str, tuple[int | float | bytes, ...]] = {}
    for name in names.split():
        field, _, count = name.partition("*")
        found[field] = tuple(next(values) for _ in range(int(count or 1)))
    for field, (first, *_) in found.items():
        if isinstance(first, bytes) and field != "magic" and any(first):
            raise _unclean(f"header field '{field}' not empty")

    dim = [int(n) for n in found["dim"]]
    shape, spacing = (dim[1], dim[2], dim[3]), tuple(float(mm) for mm in found["pixdim"][1:4])
    if dim[0] != 3 or dim[4:] != [1, 1, 1, 1] or min(shape) < 1 or math.prod(shape) > _MOST_VOXELS:
        raise _unclean("header field 'dim' other than three axes")
    if not all(math.isfinite(mm) and 0 < mm < 50 for mm in spacing):
        raise _unclean("header field 'pixdim' out of range")
    code = int(found["datatype"][0])
    if code != (2 if is_label_map else 16):
        raise _unclean("header field 'datatype' other than uint8 labels or float32 intensities")
    dtype, bits = _DTYPES[code]
    grid = Grid(shape, (spacing[0], spacing[1], spacing[2]))
    affine = grid.affine()
    expected: dict[str, tuple[float | bytes, ...]] = {
        "bitpix": (bits,),
        "pixdim": (1, *spacing, 1, 1, 1, 1),
        "vox_offset": (352,),
        "scl_slope": (1,),
        "scl_inter": (0,),
        "xyzt_units": (2,),
        "qform_code": (2,),
        "sform_code": (2,),
        "quatern": (0, 0, 0),
        "qoffset": tuple(affine[:3, 3]),
        "srow": tuple(affine[:3].ravel()),
        "magic": (b"n+1\0",),
    }
    for field, permitted in expected.items():
        if not all(map(_same, found[field], permitted)):
            raise _unclean(f"header field '{field}' other than on the canonical grid")
    return grid, dtype


def _same(found: int | float | bytes, permitted: float | bytes) -> bool:
    if isinstance(found, bytes) or isinstance(permitted, bytes):
        return found == permitted
    # The header rounds the spacing to float32 before the offset can be computed from it.
    return math.isclose(found, permitted, rel_tol=1e-6, abs_tol=0)


def _unclean(found: str) -> VerificationFailed:
    return VerificationFailed(
        f"a volume with {found}",
        expected="a fresh header, no extensions, and nothing but voxels behind it",
        remedy="Generate the volumes again with 'fedphantom generate'; do not pass this file on.",
    )
