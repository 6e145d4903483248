"""Files without which nothing can be packed."""

from __future__ import annotations

from pathlib import Path

from ...common.errors import DataError


def read_needed(path: Path, what: str, remedy: str = "Check the path.") -> bytes:
    """Its content.

    Args:
        path: Of the file.
        what: It is, in words.
        remedy: What to do where it is missing.

    Raises:
        DataError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError:
        raise DataError(
            f"no readable {what}", expected=f"'{path.suffix}' file of a finished run", remedy=remedy
        ) from None
