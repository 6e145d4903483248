"""Whether the coordinator answers a SuperNode, read from the lines that Flower 1.41 writes into the node's log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

LET_IN = b"SuperNode ID:"
"""Once the SuperLink has let the node in by its key."""

BACK = b"Connection successful"
"""Once a request was answered that was not answered before."""

TRIED_AGAIN = b"Connection attempt failed"
"""Where a request was not answered."""

GIVEN_UP = b"Giving up reconnection"
"""Where the last try of a request was not; the node ends then, and is started again."""

UNANSWERED_S = 60.0
"""Until a silence is told of: proxies are reloaded, SuperLinks started again, machines slow to load Flower."""


class Connection:
    """A SuperNode's way to the coordinator, as its log tells of it; begins with a node that was just started."""

    def __init__(self, now: float) -> None:
        self._silent_since: float | None = now
        self._told: Literal["silent", "answers"] | None = None
        self._let_in = False

    def started_again(self, now: float) -> None:
        """The node is another one, which nobody has let in yet."""
        self._let_in = False
        if self._silent_since is None:
            self._silent_since = now

    def change(self, lines: Iterable[bytes], now: float) -> Literal["silent", "answers"] | None:
        """What to tell a person, if anything is new.

        Args:
            lines: Added to the log since the last call.
            now: Seconds, of a clock that goes only forward.

        Returns:
            ``"answers"`` at the first answer, and at the first after a silence that was told of; ``"silent"`` once
            nothing was answered for :data:`UNANSWERED_S`.
        """
        for line in lines:
            self._let_in = self._let_in or LET_IN in line
            if self._let_in and (LET_IN in line or BACK in line):
                self._silent_since = None
            elif (TRIED_AGAIN in line or GIVEN_UP in line) and self._silent_since is None:
                self._silent_since = now
        if self._silent_since is None:
            new: Literal["silent", "answers"] = "answers"
        elif now - self._silent_since >= UNANSWERED_S:
            new = "silent"
        else:
            return None
        if new == self._told:
            return None
        self._told = new
        return new
