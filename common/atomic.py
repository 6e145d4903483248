"""Files and folders that are whole or absent.

Everything is written beside its destination under a temporary name, flushed to the disk, then
renamed; a kill at any moment leaves the old content or none, and at worst a ``.tmp-*`` stray that
no reader believes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from .output_place import refuse_taken
from .storage import TEMPORARY_PREFIX, making_errors, storage_errors


def write_atomic(path: Path, data: bytes, *, mode: int = 0o666, flush: bool = True) -> None:
    """Replace the file's content in one step; parent folders are made.

    Args:
        path: Destination.
        data: The whole content.
        mode: Permission bits before the umask, e.g. 0o600 for a secret.
        flush: False only inside :func:`atomic_folder`, which flushes all its files at once.

    Raises:
        OutputTaken: a folder stands there, or a file where one of its folders would be.
        StorageError: the disk is full, read-only or forbidden. The old file, if any, is untouched.
    """
    write_atomic_pieces(path, (data,), mode=mode, flush=flush)


def write_atomic_pieces(path: Path, pieces: Iterable[bytes], *, mode: int = 0o666, flush: bool = True) -> None:
    """As :func:`write_atomic`, piece after piece, so that a large content never lies in memory as a whole.

    Whatever the pieces' maker raises passes unchanged, and leaves the old file.
    """
    with storage_errors():
        with making_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_name(path)
        try:
            with making_errors():
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            try:
                for piece in pieces:
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[os.write(descriptor, rest) :]
                if flush:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if flush:
            sync_folder(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder that appears whole under its name when the block ends, or not at all.

    Yields a new, empty folder beside ``path``. On success its files are flushed and it is renamed to
    ``path``; on any exception it is removed.

    Raises:
        OutputTaken: ``path`` exists and is not an empty folder.
        StorageError: the disk is full, read-only or forbidden (also while the block itself writes).
    """
    with storage_errors():
        refuse_taken(path)
        temporary = _temporary_name(path)
        with making_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
        try:
            yield temporary
            _sync_tree(temporary)
            os.replace(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(path.parent)


def for_owner_alone(folder: Path) -> None:
    """Nobody else on the machine may look into this folder: what lies in it is a patient's, or near to one's.

    Raises:
        StorageError: the folder is another's, or read-only.
    """
    with storage_errors():
        folder.chmod(0o700)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush a folder; the rename itself still is atomic there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _temporary_name(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-{path.name[:100]}")


def _sync_tree(root: Path) -> None:
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            descriptor = os.open(Path(folder) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(folder))
