"""What a command that stays said, as JSON lines for whoever watches over machines: ``log.jsonl``.

    {"time": "…Z", "level": "info", "event": "round-answered", "facts": {"round": 3, "bytes": 120345}}

Facts are numbers, public names and fixed words, never a patient's identifier, a path or an exception's text. It is
rotated, and proves nothing: what counts stands in the journal.
"""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from .in_toto import time_text
from .journal import Fact
from .rotated_log import RotatedLog

EVENT_LOG = "log.jsonl"
"""In the folder of a site or a coordinator."""

Level = Literal["info", "warning", "error"]


class EventLog:
    """Appends to a log of events.

    Args:
        path: Of the newest file.
    """

    def __init__(self, path: Path) -> None:
        self._log = RotatedLog(path)

    def write(self, level: Level, event: str, **facts: Fact) -> None:
        """Append one line. A full disk stops nobody from answering: the line is lost then."""
        line = {"time": time_text(datetime.now(UTC)), "level": level, "event": event, "facts": facts}
        with contextlib.suppress(OSError):
            self._log.write(f"{json.dumps(line, allow_nan=False)}\n".encode())
