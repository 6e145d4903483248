"""Where a command may write: a new or empty place, or one that an earlier call of it began."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Collection
from pathlib import Path

from .errors import OutputTaken
from .storage import CHOOSE_ANOTHER, TEMPORARY_PREFIX, refuse_unwritable


def refuse_taken(out: Path) -> None:
    """Keep out of every place but a new or empty folder.

    Raises:
        OutputTaken: a file, or a folder with something in it, or one that cannot be exchanged for a whole one.
        StorageError: the disk is full, read-only or forbidden.
    """
    name = out.name or out.resolve().name
    if out.is_symlink() or os.path.ismount(out) or (out.exists() and out.samefile(Path())):
        found = f"'{name}' is a link, a mounted disk, or the folder this was called in"
        raise OutputTaken(found, expected="a new folder", remedy="Name a folder in it that is not there yet.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputTaken(f"'{name}' is there already", expected="a new or empty folder", remedy=CHOOSE_ANOTHER)
    refuse_unwritable(out.absolute().parent)


def refuse_inside(out: Path, given: Path) -> None:
    """Keep out of a folder that is read: what is written there would be read as more of it the next time.

    Raises:
        OutputTaken: ``out`` is ``given``, or lies in it.
    """
    if given.is_dir() and out.resolve().is_relative_to(given.resolve()):
        raise OutputTaken(
            "a folder inside the one that is read",
            expected="a folder elsewhere: what is written would lie among what was given",
            remedy=CHOOSE_ANOTHER,
        )


def refuse_folder(file: Path) -> None:
    """Find that a single file, new or old, can be written there.

    Raises:
        OutputTaken: a folder stands there.
        StorageError: the disk is full, read-only or forbidden.
    """
    if file.is_dir():
        raise OutputTaken("a folder where a file is to be written", expected="a file's path", remedy=CHOOSE_ANOTHER)
    refuse_unwritable(file.absolute().parent)


def refuse_taken_file(file: Path) -> None:
    """Find that a new single file can be written there.

    Raises:
        OutputTaken: something is there already.
        StorageError: the disk is full, read-only or forbidden.
    """
    refuse_folder(file)
    if file.exists():
        raise OutputTaken(f"'{file.name}' is there already", expected="a new file", remedy=CHOOSE_ANOTHER)


def refuse_other(file: Path, same_as: Path) -> None:
    """Find that a single file can be written there: a new one, or one that holds what ``same_as`` does already.

    Raises:
        OutputTaken: a folder stands there, or another file.
        StorageError: the disk is full, read-only or forbidden.
    """
    refuse_folder(file)
    if file.exists() and not (same_as.is_file() and filecmp.cmp(file, same_as, shallow=False)):
        raise OutputTaken(f"'{file.name}' is there already", expected="a new file", remedy=CHOOSE_ANOTHER)


def refuse_used(out: Path, mark: str, own: Collection[str] = ()) -> None:
    """Keep out of folders that hold something else, a hospital's cohort for example.

    Args:
        out: Where a command is to write.
        mark: A file that says that the folder is its own.
        own: What else it may have left there.

    Raises:
        OutputTaken: a file, or a folder with other things in it.
        StorageError: the disk is full, read-only or forbidden.
    """
    if out.exists() and not out.is_dir():
        found = "a file where a folder is to be written"
    elif out.is_dir() and not (out / mark).exists() and _foreign(out, own):
        found = "a folder that holds something else"
    else:
        refuse_unwritable(out)
        return
    raise OutputTaken(
        found, expected="a new or empty folder, or the one to go on with", remedy="Choose another folder."
    )


def _foreign(out: Path, own: Collection[str]) -> set[str]:
    """What lies there besides what a command may have left, strays of a kill among it."""
    names = {entry.name for entry in out.iterdir()} - set(own)
    return {name for name in names if not name.startswith(TEMPORARY_PREFIX)}
