"""What the system says of a place that cannot be written, in words and with an exit code, early where possible."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputTaken, StorageError

TEMPORARY_PREFIX = ".tmp-"
"""How every unfinished file or folder is named; readers skip such names."""
CHOOSE_ANOTHER = "Choose another path, or remove what is there."
"""What to do where an output's place is taken."""

_FORBIDDEN = ("the folder may not be written to", "Choose another folder or mend its permissions.")
_FORBIDDEN_FILE = ("the file may not be written to", "Mend its permissions, or choose another folder.")
_FAILURES = {
    errno.ENOSPC: ("no space is left on the disk", "Free some space or choose another folder, then run it again."),
    errno.EDQUOT: ("the disk quota is spent", "Free some space or ask for more quota, then run it again."),
    errno.EROFS: ("the file system is mounted read-only", "Choose a folder on a writable disk."),
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EIO: ("the disk failed while writing", "Check the disk, then run it again."),
}
_TAKEN = {
    errno.ENOTEMPTY: "another process made the same folder meanwhile",
    errno.EEXIST: "a file where a folder is to be made",
    errno.ENOTDIR: "a file where a folder is to be made",
    errno.EISDIR: "a folder where a file is to be written",
}


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Turn a full, read-only or forbidden disk into a :class:`StorageError`, a path in use into :class:`OutputTaken`.

    Other OSErrors (a missing file, say) pass unchanged: they are not the disk's fault.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _TAKEN:
            raise OutputTaken(_TAKEN[error.errno], expected="a new path", remedy=CHOOSE_ANOTHER) from None
        if error.errno not in _FAILURES:
            raise
        found, remedy = _FAILURES[error.errno]
        if (found, remedy) == _FORBIDDEN and isinstance(error.filename, str | os.PathLike):
            found, remedy = _FORBIDDEN_FILE if os.path.isfile(error.filename) else _FORBIDDEN
        raise StorageError(found, expected="a writable disk with free space", remedy=remedy) from None


@contextlib.contextmanager
def making_errors() -> Iterator[None]:
    """The same around the making of a file or folder whose parent is there.

    That something is missing then (as under ``/proc``) means that nothing can be made there.
    """
    with storage_errors():
        try:
            yield
        except FileNotFoundError:
            found, remedy = _FORBIDDEN
            raise StorageError(found, expected="a folder on a writable disk", remedy=remedy) from None


def refuse_unwritable(place: Path) -> None:
    """Find before any work that a folder, or the nearest one above it that is there, can be written to.

    It makes a folder there and removes it: permissions alone tell neither of read-only disks nor of the system's own.

    Raises:
        OutputTaken: a file where one of its folders would be.
        StorageError: the disk is full, read-only or forbidden.
    """
    with making_errors():
        there = next(folder for folder in (place, *place.absolute().parents) if _exists(folder))
        with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=there):
            pass


def refuse_unwritable_file(file: Path) -> None:
    """Find before any work that a file, if it is there, can be added to; nothing is written.

    Raises:
        StorageError: the disk is read-only or the file forbidden.
    """
    with contextlib.suppress(FileNotFoundError), storage_errors():
        os.close(os.open(file, os.O_WRONLY | os.O_APPEND))


def _exists(path: Path) -> bool:
    """Also for a dangling link, which could be neither made nor written through."""
    return path.exists() or path.is_symlink()
