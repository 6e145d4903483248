"""One DICOM file opened: what its header says, read quietly and within the file's own bounds.

A length in a header may lie; nothing is read or allocated beyond the file. pydicom quotes values in its warnings, and
those may name a patient: here they are not heard.

Source: DICOM PS3.10 (files), PS3.5 (transfer syntaxes).
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from .reasons import Faulty

_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
READABLE = (*_NATIVE, RLELossless)
"""Transfer syntaxes that need no further decoder."""

PIXEL_DATA = 0x7FE00010
_UNDEFINED = 0xFFFFFFFF
_PREAMBLE = 132
_LONGEST_META = 1 << 20
_LONG_LENGTHS = (b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN", b"UC", b"UR", b"OD", b"OL", b"OV", b"SV", b"UV")


class _Bounded(io.BufferedReader):
    """A file of which nobody can ask for more than it holds: Python would allocate it first."""

    def __init__(self, raw: io.FileIO, size: int) -> None:
        super().__init__(raw)
        self.size = size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


@dataclass(frozen=True)
class Opened:
    """A header.

    Attributes:
        dataset: The elements asked for, without pixels.
        syntax: The transfer syntax, readable or not: all that are left write headers alike.
        pixel_bytes: Length of the pixel data as stored, with their encapsulation; None where there are none.
    """

    dataset: Dataset = field(repr=False)
    syntax: UID
    pixel_bytes: int | None


def is_dicom(path: Path) -> bool:
    """Whether the file is a regular one that carries DICOM's mark; pipes and devices are not waited for.

    Raises:
        Faulty: it cannot be read, so that nobody knows.
    """
    with reading(), _open(path) as stream:
        return stream.read(_PREAMBLE)[128:] == b"DICM"


def open_dicom(path: Path, tags: list[int]) -> Opened:
    """Read a header.

    Args:
        path: A file that :func:`is_dicom`.
        tags: What to read of it.

    Raises:
        Faulty: damaged or truncated, or deflated: what a deflated file comes to cannot be known before.
    """
    with reading(), _open(path) as stream:
        syntax = _transfer_syntax(stream)
        if syntax == DeflatedExplicitVRLittleEndian:
            raise Faulty("compressed", registered_name(syntax))
        pixels: list[tuple[int, int]] = []  # declared and there

        def at_pixels(tag: BaseTag, _: str | None, length: int) -> bool:
            if tag == PIXEL_DATA:
                pixels.append((length, stream.size - stream.tell()))
            return bool(tag >= PIXEL_DATA)

        stream.seek(0)
        dataset = read_partial(stream, at_pixels, specific_tags=[BaseTag(tag) for tag in tags])
        if not pixels:
            return Opened(dataset, syntax, None)
        declared, there = pixels[0]
        encapsulated = declared == _UNDEFINED
        if encapsulated == (syntax in _NATIVE) or (not encapsulated and declared > there):
            raise Faulty("unreadable")
        return Opened(dataset, syntax, there if encapsulated else declared)


def read_whole(path: Path) -> Dataset:
    """All of a file that :func:`open_dicom` has found readable, with its pixels. Raises Faulty likewise."""
    with reading(), _open(path) as stream:
        return read_partial(stream)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Turn whatever pydicom answers to a strange file into :class:`Faulty`, and keep its warnings to itself."""
    logger = logging.getLogger("pydicom")
    before, strict = logger.disabled, config.settings.reading_validation_mode
    logger.disabled, config.settings.reading_validation_mode = True, config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (Faulty, KeyboardInterrupt):
        raise
    except Exception:  # a dozen kinds, some of which quote the file
        raise Faulty("unreadable") from None
    finally:
        logger.disabled, config.settings.reading_validation_mode = before, strict


def _open(path: Path) -> _Bounded:
    """Open a regular file; a link put there meanwhile is not followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise Faulty("not-dicom")
    return _Bounded(io.FileIO(descriptor), found.st_size)


def _transfer_syntax(stream: _Bounded) -> UID:
    """Read before pydicom is let at the file, for it inflates a deflated one whole, whatever that comes to."""
    stream.seek(_PREAMBLE)
    while stream.tell() < _LONGEST_META:
        head = stream.read(8)
        if len(head) < 8:
            break
        group, element, vr, length = struct.unpack("<HH2sH", head)
        if group != 2:
            break
        if vr in _LONG_LENGTHS:
            (length,) = struct.unpack("<I", stream.read(4))
        if element == 0x10:
            return UID(stream.read(length).decode("ascii").strip("\0 "))
        stream.seek(length, os.SEEK_CUR)
    raise Faulty("unreadable")


def registered_name(uid: UID) -> str:
    """The registered name; an unregistered one is not repeated, for a file may say anything."""
    return uid.name if uid.name != str(uid) else "unregistered"
