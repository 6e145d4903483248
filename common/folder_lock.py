"""One process a folder: a lock that goes with its process, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import ConfigError
from .storage import storage_errors

LOCK = ".lock"


@contextlib.contextmanager
def hold_folder(root: Path) -> Iterator[None]:
    """Make the folder, or find it, and hold it for this process.

    Raises:
        ConfigError: another process holds it.
        StorageError: the disk is full, read-only or forbidden.
    """
    with storage_errors():
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                "another process is running in this folder",
                expected="one command at a time in a folder",
                remedy="Wait for it, or end it: 'site start' and 'server start' stay until Ctrl-C. Where there is an"
                " --out, another folder will do.",
            ) from None
        yield
    finally:
        os.close(descriptor)


def holds_anything(root: Path) -> bool:
    """Whether anything but its lock lies in a folder."""
    return any(path.name != LOCK for path in root.glob("*"))
