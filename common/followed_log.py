"""What is added to a log from now on, also where it is rotated meanwhile (:mod:`.rotated_log`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


class FollowedLog:
    """Follows a log from its present end; asked more often than a file of it fills up, it misses nothing.

    Args:
        path: Of the newest file, which may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = b""
        self._file = self._opened()
        if self._file:
            self._file.seek(0, os.SEEK_END)

    def lines(self) -> list[bytes]:
        """Whole lines added since the last call, without their ends."""
        self._file = self._file or self._opened()
        if not self._file:
            return []
        content = self._rest + self._file.read()
        if self._renamed(self._file):
            # Nothing more comes into the one that is open; between reading and asking something might have.
            content += self._file.read()
            self._file.close()
            self._file = self._opened()
            content += self._file.read() if self._file else b""
        *lines, self._rest = content.split(b"\n")
        return lines

    def _opened(self) -> BinaryIO | None:
        try:
            return self._path.open("rb")
        except FileNotFoundError:
            return None

    def _renamed(self, file: BinaryIO) -> bool:
        try:
            return self._path.stat().st_ino != os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            return True
