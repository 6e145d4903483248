"""Where a command may write: a new or empty place, or one that an earlier call of it began."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from .errors import OutputTaken

CHOOSE_ANOTHER = "Choose another path, or remove what is there."
"""What to do where an output's place is taken."""


def refuse_taken(out: Path) -> None:
    """Keep out of every place but a new or empty folder.

    Raises:
        OutputTaken: a file, or a folder with something in it, or one that cannot be exchanged for a whole one.
    """
    name = out.name or out.resolve().name
    if out.is_symlink() or os.path.ismount(out) or (out.exists() and out.samefile(Path())):
        found = f"'{name}' is a link, a mounted disk, or the folder this was called in"
        raise OutputTaken(found, expected="a new folder", remedy="Name a folder in it that is not there yet.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputTaken(f"'{name}' is there already", expected="a new or empty folder", remedy=CHOOSE_ANOTHER)


def refuse_used(out: Path, mark: str, own: Collection[str] = ()) -> None:
    """Keep out of folders that hold something else, a hospital's cohort for example.

    Args:
        out: Where a command is to write.
        mark: A file that says that the folder is its own.
        own: What else it may have left there.

    Raises:
        OutputTaken: a file, or a folder with other things in it.
    """
    if out.exists() and not out.is_dir():
        found = "a file where a folder is to be written"
    elif out.is_dir() and not (out / mark).exists() and {entry.name for entry in out.iterdir()} - set(own):
        found = "a folder that holds something else"
    else:
        return
    raise OutputTaken(found, expected="a new or empty folder, or the one to go on with", remedy="Choose another --out.")
