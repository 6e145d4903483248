"""A command that stays: one process a folder, what it started ended with it, what it says told and logged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .event_log import EVENT_LOG, EventLog, Level
from .folder_lock import hold_folder
from .journal import Fact
from .processes import ProcessSet


@dataclass(frozen=True)
class Service:
    """While it runs.

    Attributes:
        processes: What it started; ended when it ends, however that is.
        events: Its log.
        say: To the person at the terminal.
    """

    processes: ProcessSet
    events: EventLog
    say: Callable[[str], None]

    @classmethod
    @contextlib.contextmanager
    def running(cls, root: Path, place: Path, say: Callable[[str], None]) -> Iterator[Service]:
        """Run until the block ends; that it ended, and whether by an error, stands in the log.

        Args:
            root: Folder of the event log.
            place: Held for this process alone.
            say: As the attribute.

        Raises:
            ConfigError: another process serves this place.
            StorageError: the disk is full, read-only or forbidden.
        """
        with hold_folder(place):
            events = EventLog(root / EVENT_LOG)
            try:
                with ProcessSet.running() as processes:
                    yield cls(processes, events, say)
            except Exception as error:
                events.write("error", "failed", kind=type(error).__name__)
                raise
            finally:
                events.write("info", "stopped")

    def report(self, level: Level, event: str, sentence: str, **facts: Fact) -> None:
        """Tell the person at the terminal, and the log."""
        self.events.write(level, event, **facts)
        self.say(sentence)
