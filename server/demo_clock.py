"""How far a demo came and how long each stage took, over all calls: kept in its folder, so that no stop loses time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, ValidationError

from ..common.atomic import write_atomic
from ..common.errors import FedPhantomError

TIMES = "times.json"

_NOTED_EVERY_S = 5.0
"""What a kill may lose, where a stage reports its progress as often."""


class _Noted(BaseModel):
    """The file's content.

    Attributes:
        seconds: Stage to the time spent on it, over all calls.
        again: Time that later calls took to find finished stages.
        stops: Calls that did not come to the end.
        kills: Those of them that ended without a word: their last seconds are not counted.
        running: The stage at work; None when no call is.
    """

    model_config = ConfigDict(extra="forbid")

    seconds: dict[str, NonNegativeFloat] = {}
    again: NonNegativeFloat = 0.0
    stops: NonNegativeInt = 0
    kills: NonNegativeInt = 0
    running: str | None = None


@dataclass
class DemoClock:
    """Times the stages of one call and adds them to those of the calls before.

    Use it as a context manager around the stages: leaving the block notes the time, an exception also the stop.

    Attributes:
        file: Where the times stand; damaged or missing, they begin anew.
        marks: Stage to what it leaves, in order; a stage is finished where one of these is there.
        now: A clock in seconds that never goes back.
    """

    file: Path
    marks: Mapping[str, tuple[Path, ...]]
    now: Callable[[], float] = time.monotonic
    stage: str | None = None
    _noted: _Noted = field(default_factory=_Noted)
    _began: float = 0.0
    _written: float = 0.0
    _counts_as_again: bool = False
    _over: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        with suppress(OSError, ValidationError):
            self._noted = _Noted.model_validate_json(self.file.read_bytes())
        if self._noted.running is not None:
            self._noted.stops += 1
            self._noted.kills += 1
            self._noted.running = None
        # A finished demo that is called again took no longer for it.
        self._over = not self.missing()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._over:
            return
        self._take()
        self.stage = self._noted.running = None
        self._noted.stops += error is not None
        if error is None:
            self._write()
            return
        # A disk that is full is told by the error that ended the stage.
        with suppress(FedPhantomError):
            self._write()

    def missing(self) -> tuple[str, ...]:
        """Stages that are not finished, in order."""
        return tuple(name for name, marks in self.marks.items() if not any(mark.exists() for mark in marks))

    def begin(self, stage: str) -> None:
        """The stage before is over, this one begins."""
        self._take()
        self.stage, self._counts_as_again = stage, stage not in self.missing()
        if not self._over:
            self._noted.running = stage
            self._write()

    def tick(self) -> None:
        """Note the time up to now, unless that was done a moment ago; any thread may call it."""
        with self._lock:
            if not self._over and self.now() - self._written >= _NOTED_EVERY_S:
                self._take()
                self._write()

    def seconds(self) -> dict[str, float]:
        """Stage to seconds up to now, then what taking up again took, where it took any, and ``all``."""
        self._take()
        told = {name: round(self._noted.seconds[name], 1) for name in self.marks if name in self._noted.seconds}
        if self._noted.again:
            told["taking up again"] = round(self._noted.again, 1)
        return told | {"all": round(sum(self._noted.seconds.values()) + self._noted.again, 1)}

    @property
    def stops(self) -> int:
        """Calls before this one that did not come to the end."""
        return self._noted.stops

    def note(self) -> str:
        """What a reader of the times has to know of the stops; empty where there was none."""
        noted = self._noted
        if not noted.stops:
            return ""
        told = (
            f"The run was stopped {_times(noted.stops)} before its end and taken up again. The times are added up over "
        )
        told += "all calls, without the pauses between them; work that a stop cut off was done again and counts twice."
        if noted.kills:
            told += (
                f" {_times(noted.kills).capitalize()} it ended without warning; what it did in the last moments before"
            )
            told += " is not in them."
        return told

    def greeting(self) -> str | None:
        """Where a demo that was begun before goes on; None for a new one."""
        missing = self.missing()
        if not missing:
            return "this demo is finished: it is read again, nothing is trained or audited anew"
        finished = [name for name in self.marks if name not in missing]
        if not finished and not self._noted.seconds:
            return None
        done = f"finished: {', '.join(finished)}" if finished else "no stage is finished yet"
        return f"this demo was begun before and goes on at '{missing[0]}' ({done})"

    def _take(self) -> None:
        """Count what passed since the last look to the stage at work."""
        now = self.now()
        passed, self._began = now - self._began, now
        if self._over or self.stage is None:
            return
        if self._counts_as_again:
            self._noted.again += passed
        else:
            self._noted.seconds[self.stage] = self._noted.seconds.get(self.stage, 0.0) + passed

    def _write(self) -> None:
        self._written = self.now()
        write_atomic(self.file, (json.dumps(self._noted.model_dump(), indent=1) + "\n").encode())


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
