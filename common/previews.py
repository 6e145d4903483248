"""Previews: pictures of a training's state every few rounds, in a folder that says how often.

Coordinator and site each have such a folder. The coordinator's shows public label maps alone; the site's may show its
own patients and never leaves.
"""

from __future__ import annotations

import json
from pathlib import Path

from .atomic import write_atomic
from .errors import DataError
from .storage import storage_errors

FOLDER = "previews"
"""Where a run's or a site's folder holds its previews."""

_SCHEDULE = "schedule.json"


def schedule_previews(folder: Path, every: int | None) -> None:
    """Say in the folder that a preview is due every so many rounds; None: that none is.

    Raises:
        StorageError: the disk is full, read-only or forbidden.
    """
    if every is not None:
        write_atomic(folder / _SCHEDULE, (json.dumps({"every": every}) + "\n").encode())
    else:
        with storage_errors():
            (folder / _SCHEDULE).unlink(missing_ok=True)


def preview_due(folder: Path, round_: int) -> Path | None:
    """The picture's file, where one is due after this round.

    Raises:
        DataError: a schedule that is none.
    """
    if not (folder / _SCHEDULE).exists():
        return None
    try:
        every = json.loads((folder / _SCHEDULE).read_bytes())["every"]
        due = round_ % every == 0
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        raise DataError(
            "a schedule of previews that is damaged",
            expected="the file that '--preview-every' wrote",
            remedy="Run the command again; it writes the file anew.",
        ) from None
    return folder / f"round-{round_:03d}.png" if due else None
