"""A log file that does not grow for ever: whole lines are appended, and full files are renamed and counted off.

``name.log`` is the newest, ``name.log.1`` the one before it, and so on. The standard library alone is imported:
:mod:`.process_keeper` reads this file by its path.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

LARGEST = 10_000_000
"""Bytes in one file, unless a single line has more; of a line without end, about twice as many."""
KEPT = 5
"""Files, the newest among them."""


class RotatedLog:
    """Appends to a file. Of several processes that rotate it at one moment, one may begin a file too early.

    Args:
        path: Of the newest file; its folder is there.
        largest: Bytes in one file.
        kept: How many files there are at most, two or more.
    """

    def __init__(self, path: Path, largest: int = LARGEST, kept: int = KEPT) -> None:
        self._path, self._largest, self._kept = path, largest, kept

    def write(self, content: bytes) -> None:
        """Append, beginning a new file first where this one would grow too large; its lines stay whole.

        Raises:
            OSError: the disk is full or forbidden; what of it was written stays.
        """
        while content:
            end = self._fitting(content)
            with self._path.open("ab") as file:
                file.write(content[:end])
            content = content[end:]

    def _fitting(self, content: bytes) -> int:
        """How many bytes of this go into the present file, which is a new one where none would."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            size = 0
        if size + len(content) <= self._largest:
            return len(content)
        end = content.rfind(b"\n", 0, max(0, self._largest - size)) + 1
        if not end and size:
            if size < 2 * self._largest and not self._ends_a_line():
                # The rest of a line goes where its beginning is, unless it has no end.
                return content.find(b"\n") + 1 or len(content)
            self._rotate()
            return self._fitting(content)
        return end or content.find(b"\n") + 1 or len(content)

    def _ends_a_line(self) -> bool:
        try:
            with self._path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read() == b"\n"
        except OSError:  # another process began a new one
            return True

    def _rotate(self) -> None:
        def file(number: int) -> Path:
            return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

        for number in range(self._kept - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(file(number - 1), file(number))
