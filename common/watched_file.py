"""A file that is looked at often and read seldom."""

from __future__ import annotations

from pathlib import Path


class WatchedFile:
    """Whether a file is another than it was when it was asked last; asking costs no reading."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    def changed(self) -> bool:
        """True the first time, and after every change."""
        try:
            found = self._path.stat()
            now = (found.st_ino, found.st_size, found.st_mtime_ns)
        except FileNotFoundError:
            now = (0, 0, 0)
        before, self._seen = self._seen, now
        return now != before
