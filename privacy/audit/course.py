"""How far an audit is, and how long what is asked for beyond the ordinary will take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...common.parallel import usable_cores
from ..attacks.interface import AuditedScans, Networks, Search, Told
from ..statistics import Floats

Progress = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)."""

Estimate = Callable[[str, float], None]
"""(what takes long, seconds that it will take)."""

LONG = 10
"""Steps that a stage counts as which tells how far it is: beside a training it is long, a volume of it short."""


class Course:
    """Steps done, of those that an audit will take.

    Args:
        told: Told of each.
        total: Steps in all.
    """

    def __init__(self, told: Progress, total: int) -> None:
        self.told, self.total, self.done = told, total, 0

    def at(self, stage: str, steps: int = 0) -> None:
        """A stage begins, after so many further steps."""
        self.done += steps
        self.told(stage, self.done, self.total)

    def within(self, stage: str) -> Told:
        """Of a long stage: told how far it is, it counts ``LONG`` steps by its end."""
        before = self.done

        def told(part: int, of: int) -> None:
            self.done = before + LONG * part // of
            self.told(stage, self.done, self.total)

        return told

    def of_search(self, networks: Networks) -> Networks:
        """The same networks, whose weights' search is a long stage."""
        search = networks.search
        if search is None:
            return networks

        def errors(scans: AuditedScans, judged: NDArray[np.bool_], told: Told) -> Floats:
            return search.errors(scans, judged, self.within("searching a generator's weights"))

        return replace(networks, search=Search(errors, search.seconds))


def seconds_for_trainings(steps: Sequence[int], train: Callable[..., object], at_once: int | None) -> float:
    """Seconds that trainings of so many steps each will take, by two steps of one that is thrown away.

    Args:
        steps: Of each training.
        train: Called as ``train(steps=...)``.
        at_once: Trained side by side; one a core where None.
    """
    took = []
    for few in (1, 3):
        begun = time.perf_counter()
        train(steps=few)
        took.append(time.perf_counter() - begun)
    return sum(steps) * max(took[1] - took[0], 0.0) / 2 / min(len(steps), at_once or usable_cores())


def duration(seconds: float) -> str:
    """As one says it to a person who decides whether to wait: rounded up, in minutes, or hours from two on."""
    minutes = max(1, math.ceil(seconds / 60))
    if minutes < 120:
        return f"{minutes} minute{'' if minutes == 1 else 's'}"
    return f"{math.ceil(minutes / 60)} hours"
