"""NIfTI files read: tolerant of strange headers, and trusting none.

Sizes are compared with what the file can hold before anything is allocated, and a gzip stream is read to its checksum.

Source: NIfTI-1 and NIfTI-2 data format, nifti.nimh.nih.gov; RFC 1952 (gzip).
"""

from __future__ import annotations

import gzip
import io
import itertools
import math
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ..cohort import ChannelSource
from ..errors import DataError, GeometryError
from .grid import Affine, Spacing

TEXT_FIELDS = ("descrip", "aux_file", "db_name", "data_type", "intent_name")
"""Header fields of free text: where scanners and converters leave names, dates and paths."""

_nibabel: Any = nib
"""nibabel's functions carry no annotations."""
_Stream = gzip.GzipFile | io.BufferedReader

VOXEL_OFFSET = 352
"""Where the voxels of a NIfTI-1 file without extensions begin."""
_SMALLEST_GZIP_SHARE = 1 / 1100
"""Deflate cannot do better than 1:1032; a file that claims more has lost its end (or lies)."""
_MOST_TRAILING_BYTES = 1 << 24
MOST_BYTES = 1 << 31
"""Of one file unpacked, and of the array that is made of it: as much as a CT of a whole body in single precision.

A small file can claim, and hold, any number of voxels. Reading takes the array and a few megabytes."""
_BLOCK_VOXELS = 1 << 18
"""Unpacked and scaled at a time."""


class Damaged(DataError):
    """A file that is missing, cut short or no NIfTI; its remedy is a cohort's, whose check names the scan."""


class NotAVolume(DataError):
    """A whole NIfTI file that holds something else than one 3-D volume of real numbers.

    Attributes:
        what: Shape and kind of numbers, or of colours: "16 × 16 × 16 × 3 float32".
    """

    def __init__(self, what: str, expected: str = "3 axes of real numbers") -> None:
        super().__init__(
            f"a whole NIfTI file, but of {what}",
            expected=expected,
            remedy="Split a series into one file a channel; of colours or complex numbers write the intensities alone.",
        )
        self.what = what


@dataclass(frozen=True, eq=False)
class Header:
    """What a NIfTI header says, unmended.

    Attributes:
        shape: Voxels along every stored axis: (X, Y, Z) or (X, Y, Z, channels).
        affine: Voxel to world, shape (4, 4), RAS+, millimetres; may be singular or non-finite.
        spacing: Voxel size of the first three axes as stored (pixdim), absolute, in mm; may be 0.
        dtype: Of the stored numbers, before scaling.
        text: The free-text fields of :data:`TEXT_FIELDS` that are not empty.
        extensions: Codes of the header extensions (2 DICOM, 4 AFNI, 6 comment, ...).
    """

    shape: tuple[int, ...]
    affine: Affine
    spacing: Spacing
    dtype: np.dtype[Any]
    text: Mapping[str, str]
    extensions: tuple[int, ...]

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """The shape without trailing axes of length 1 beyond the third."""
        shape = self.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        return shape


def is_nifti(path: Path) -> bool:
    """Whether the name is that of a single NIfTI file. Hidden files (``._x.nii.gz`` of macOS, too) are not."""
    return path.name.lower().endswith((".nii", ".nii.gz")) and not path.name.startswith(".")


def nifti_stem(path: Path) -> str:
    """The file's name without ``.nii`` or ``.nii.gz``."""
    name = path.name
    for ending in (".nii.gz", ".nii"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return path.stem


def read_header(path: Path) -> Header:
    """Read the header alone: a few hundred bytes.

    Raises:
        NotAVolume: colours or complex numbers, or fewer than 3 axes.
        DataError: missing, not NIfTI, or a header that contradicts itself.
    """
    header, _ = _open_header(path)
    return header


def read_volume(source: ChannelSource) -> tuple[NDArray[np.float32], Affine]:
    """Read one channel.

    Returns:
        Intensities, shape (X, Y, Z), float32, scaled as the header says (may hold non-finite
        values), and the affine (4, 4), RAS+, millimetres.

    Raises:
        NotAVolume: whole, but not 3-D (or 4-D, where the source has an index), or of colours or complex numbers.
        DataError: missing, truncated, damaged or not NIfTI.
        GeometryError: the affine is singular or not finite, or a voxel size is 0.
    """
    return _read(source.path, source.index, np.dtype(np.float32))


def read_label_map(path: Path) -> tuple[NDArray[Any], Affine]:
    """Read a label map as stored, so that fractional or negative labels can be seen.

    Returns:
        Labels, shape (X, Y, Z), integer or float as in the file, float32 where its header scales them, and the affine
        (4, 4).

    Raises:
        DataError, GeometryError: as :func:`read_volume`.
    """
    return _read(path, None, None)


def is_regular(affine: Affine, spacing: Spacing) -> bool:
    """Whether affine and spacing describe a volume: finite, every axis longer than 0, none in another's plane."""
    if not np.isfinite(affine).all() or not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool((lengths > 1e-6).all() and abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-4)


def canonical_spacing(affine: Affine) -> Spacing:
    """Voxel size along the axes nearest to (right, anterior, superior), in mm, rounded to 1 µm."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    by_axis = dict(zip(_nibabel.io_orientation(affine)[:, 0].tolist(), lengths.round(3).tolist(), strict=True))
    return by_axis[0], by_axis[1], by_axis[2]


def _damaged(found: str) -> Damaged:
    return Damaged(
        found,
        expected="a whole NIfTI file (.nii or .nii.gz)",
        remedy="Convert or copy it again; 'fedphantom cohort check --show-identifiers' names the scan.",
    )


def _size(path: Path) -> int:
    """Of a regular file: a pipe or device would be waited for."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise _damaged("a folder, pipe or device where a file is expected")
    return found.st_size


def _open(path: Path) -> _Stream:
    if path.name.lower().endswith(".gz"):
        return gzip.GzipFile(path, "rb")
    return path.open("rb")


def _open_header(path: Path) -> tuple[Header, Any]:
    try:
        size = _size(path)
        with _open(path) as stream:
            raw, extensions = _parse_header(stream)
        shape = tuple(int(n) for n in raw.get_data_shape())
        dtype = np.dtype(raw.get_data_dtype())
        affine = np.array(raw.get_best_affine(), dtype=np.float64)
        x, y, z = (abs(float(mm)) for mm in raw["pixdim"][1:4])
    except DataError:
        raise
    except FileNotFoundError:
        raise _damaged("a file that the cohort names is missing") from None
    except (OSError, EOFError, zlib.error):
        raise _damaged("a file is truncated, damaged or cannot be read") from None
    except Exception:
        # nibabel answers a nonsensical header with a dozen kinds of exception, some of which quote the file.
        raise _damaged("a file whose header is not valid NIfTI") from None
    if not shape or any(n < 1 for n in shape):
        raise _damaged("a file with an empty axis")
    if dtype.fields is not None or dtype.kind not in "iuf" or not 3 <= len(shape) <= 7:
        raise NotAVolume(_in_words(shape, dtype))
    needed = _voxel_offset(raw) + math.prod(shape) * dtype.itemsize
    if needed * (_SMALLEST_GZIP_SHARE if path.name.lower().endswith(".gz") else 1) > size:
        raise _damaged("a file shorter than its header says")
    made = math.prod(shape[:3]) * max(dtype.itemsize, np.dtype(np.float32).itemsize)
    if max(needed, made) > MOST_BYTES:
        raise _damaged(f"a file of {_in_words(shape, dtype)}, more than {MOST_BYTES >> 30} GiB once read")
    present = [name for name in TEXT_FIELDS if name in raw.template_dtype.names]  # NIfTI-2 has fewer
    text = {name: bytes(raw[name].item()).rstrip(b"\0").decode("latin-1").strip() for name in present}
    return Header(
        shape=shape,
        affine=affine,
        spacing=(x, y, z),
        dtype=dtype,
        text={name: value for name, value in text.items() if value},
        extensions=extensions,
    ), raw


def _in_words(shape: Sequence[int], dtype: np.dtype[Any]) -> str:
    """As in "a file of 16 × 16 × 16 × 3 float32"."""
    if dtype.fields is not None:
        kind = f"{'RGBA' if len(dtype.fields) == 4 else 'RGB'} colours"
    else:
        kind = f"complex numbers ({dtype.name})" if dtype.kind == "c" else dtype.name
    return f"{' × '.join(map(str, shape))} {kind}"


def _parse_header(stream: _Stream) -> tuple[Any, tuple[int, ...]]:
    """The raw header, not checked or mended by nibabel, and its extensions' codes."""
    start = stream.read(4)
    kinds = {348: _nibabel.Nifti1Header, 540: _nibabel.Nifti2Header}
    for order in "<>":
        size = struct.unpack(f"{order}i", start)[0] if len(start) == 4 else 0
        if size in kinds:
            block = start + stream.read(size - 4)
            if len(block) < size:
                raise _damaged("a file that ends inside its header")
            raw = kinds[size](block, endianness=order, check=False)
            if bytes(raw["magic"].item())[:3] not in (b"n+1", b"n+2"):
                raise _damaged("a header of another format or of a split image")
            return raw, _extension_codes(stream, order, int(raw["vox_offset"]) - size)
    raise _damaged("a file that is not NIfTI")


def _extension_codes(stream: _Stream, order: str, room: int) -> tuple[int, ...]:
    codes: list[int] = []
    flag = stream.read(4)
    room -= 4
    while len(flag) == 4 and flag[0] and room >= 8:
        head = stream.read(8)
        if len(head) < 8:
            break
        size, code = struct.unpack(f"{order}ii", head)
        codes.append(code)
        if size < 8 or size > room:
            break
        stream.seek(size - 8, os.SEEK_CUR)  # not read: the size may be a lie
        room -= size
    return tuple(codes)


def _read(path: Path, index: int | None, wanted: np.dtype[Any] | None) -> tuple[NDArray[Any], Affine]:
    """One channel in the numbers that are wanted, or as stored for None."""
    header, raw = _open_header(path)
    if not is_regular(header.affine, header.spacing):
        raise GeometryError(
            "a file with a singular affine or a voxel size of 0 mm",
            expected="three independent axes longer than 0",
            remedy="Convert it again from its source; 'fedphantom cohort check' lists such scans.",
        )
    shape = header.grid_shape
    if len(shape) != (3 if index is None else 4) and not (index == 0 and len(shape) == 3):
        expected = "3 axes of real numbers" if index is None else f"a fourth axis that channel {index} is taken from"
        raise NotAVolume(_in_words(shape, header.dtype), expected)
    if index is not None and len(shape) == 4 and not 0 <= index < shape[3]:
        raise NotAVolume(_in_words(shape, header.dtype), f"a channel {index} along the fourth axis")
    scaling = _scaling(raw)
    as_stored = header.dtype.newbyteorder("=") if scaling is None else np.dtype(np.float32)
    voxels = np.empty((shape[0], shape[1], shape[2]), wanted or as_stored)
    channel, itemsize = voxels.size * header.dtype.itemsize, header.dtype.itemsize
    before = _voxel_offset(raw) + (index or 0) * channel
    try:
        with _open(path) as stream:
            _skip(stream, before)
            # A float64 beyond float32 becomes inf, which the cohort check reports.
            with np.errstate(over="ignore", invalid="ignore"):
                for block in _blocks(voxels.shape):
                    target = voxels[block]
                    content = stream.read(target.size * itemsize)
                    if len(content) < target.size * itemsize:
                        raise _damaged("a file shorter than its header says")
                    stored = np.frombuffer(content, header.dtype).reshape(target.shape, order="F")
                    target[...] = stored if scaling is None else stored * scaling[0] + scaling[1]
            _skip(stream, _voxel_offset(raw) + math.prod(shape) * itemsize - before - channel)
            # On to the end, so that gzip compares its checksum.
            trailing = 0
            while trailing <= _MOST_TRAILING_BYTES and (more := len(stream.read(1 << 16))):
                trailing += more
    except (OSError, EOFError, zlib.error):
        raise _damaged("a file is truncated or damaged") from None
    return voxels, header.affine


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice, slice]]:
    """Parts of a volume in the order of a file, whose first axis runs fastest; each lies there in one piece."""
    x, y, _ = shape
    steps = (min(x, _BLOCK_VOXELS), max(1, min(y, _BLOCK_VOXELS // x)), max(1, _BLOCK_VOXELS // (x * y)))
    for begin in itertools.product(*(range(0, n, step) for n, step in zip(shape[::-1], steps[::-1], strict=True))):
        i, j, k = (slice(at, at + step) for at, step in zip(begin[::-1], steps, strict=True))
        yield i, j, k


def _skip(stream: _Stream, size: int) -> None:
    """Read on by so many bytes. Raises DataError where there are fewer."""
    while size > 0:
        read = len(stream.read(min(size, 1 << 20)))
        if not read:
            raise _damaged("a file shorter than its header says")
        size -= read


def _voxel_offset(raw: Any) -> int:
    """Where voxels begin: after a NIfTI-1 header of 348 bytes or a NIfTI-2 header of 540, or later."""
    return max(int(raw["vox_offset"]), VOXEL_OFFSET if len(raw.binaryblock) == 348 else 544)


def _scaling(raw: Any) -> tuple[np.float64, np.float64] | None:
    """Slope and intercept; None where the numbers are as stored."""
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    intercept = intercept if math.isfinite(intercept) else 0.0
    if not math.isfinite(slope) or slope == 0 or (slope, intercept) == (1.0, 0.0):
        return None
    return np.float64(slope), np.float64(intercept)
