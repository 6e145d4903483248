"""How far an audit is, and how long what is asked for beyond the ordinary will take."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..attacks.interface import AuditedScans, Networks, Search, Told
from ..statistics import Floats

Progress = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)."""

Estimate = Callable[[str, float], None]
"""(attack that has to be asked for, seconds that it will take)."""

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


def duration(seconds: float) -> str:
    """As one says it to a person who decides whether to wait: rounded up, in minutes, or hours from two on."""
    minutes = max(1, math.ceil(seconds / 60))
    if minutes < 120:
        return f"{minutes} minute{'' if minutes == 1 else 's'}"
    return f"{math.ceil(minutes / 60)} hours"
