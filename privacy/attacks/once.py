"""What is found once: whoever keeps findings between two calls hands a way to look them up to those who find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
"""A finding: arrays by name. An empty one is none, and kept by nobody."""

Once = Callable[[str, Callable[[], Arrays]], Arrays]
"""(what is to be found, how it is found) → the finding, now or from an earlier call."""


def anew(what: str, find: Callable[[], Arrays]) -> Arrays:
    """Find it now: nothing is kept."""
    return find()


def under(name: str, once: Once) -> Once:
    """The same, for what is found of one network or in one search, which it is kept under."""

    def named(what: str, find: Callable[[], Arrays]) -> Arrays:
        return once(f"{name}: {what}", find)

    return named
