"""A Flower Grid that asks for replies often, hands them over one at a time, and gives up at a deadline.

What cannot be read counts against the node that sent it, and not against the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flwr.app import Error, Message, MessageType, Metadata
from flwr.app.message import make_message
from flwr.serverapp import Grid

from .bounded_pull import PullBounds, Unreadable

UNREADABLE = 9001
"""Code of the error that stands for a reply which cannot be read; Flower's own end far below."""

FETCH_S = 120.0
"""What the fetching of one reply may take at least, however near the deadline is: it lies at the SuperLink by then, and
one whose parts are announced and do not come is given up after it."""


class PollingGrid(Grid):
    """Hands everything to another Grid, but asks every ``poll_s`` seconds for replies, not every three.

    Args:
        grid: The Grid that Flower gave the ServerApp.
        poll_s: Seconds between two questions.
        bounds: Told how long each fetch may take; without it, Flower's own two hours hold.
        timeout_s: Asked at each sending, instead of the timeout that Flower's loop fixes once for all rounds.
    """

    def __init__(
        self,
        grid: Grid,
        poll_s: float = 0.25,
        bounds: PullBounds | None = None,
        timeout_s: Callable[[], float] | None = None,
    ) -> None:
        self._grid = grid
        self._poll_s = poll_s
        self._timeout_s = timeout_s
        self._bounds = bounds or PullBounds(most_bytes=0)
        self._asked: dict[str, int] = {}

    def node_of(self, reply: Message) -> int:
        """The node that was asked; an error that the SuperLink made in a dead node's stead names another sender."""
        return self._asked.get(reply.metadata.reply_to_message_id, reply.metadata.src_node_id)

    def set_run(self, run: Any) -> None:  # Flower's type is private
        """As the wrapped Grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:  # Flower's type is private
        """As the wrapped Grid."""
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:  # deprecated in Flower; passed on as it comes
        """As the wrapped Grid."""
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """As the wrapped Grid."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[Any]:  # Flower's type is private
        """As the wrapped Grid; Flower's own default knows identifiers alone, and no keys."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As the wrapped Grid."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As the wrapped Grid."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send at once; then yield each reply as it is asked for, until all are there or ``timeout`` seconds are over.

        A reply is fetched when the one before has been taken, so that memory holds one. Every node is asked once more
        when the time is over: its reply may have come while another was worked on.
        """
        timeout = timeout if self._timeout_s is None else self._timeout_s()
        deadline = None if timeout is None else time.monotonic() + timeout
        messages = list(messages)
        pushed = zip(messages, self._grid.push_messages(messages), strict=False)
        self._asked = {identifier: message.metadata.dst_node_id for message, identifier in pushed if identifier}
        return self._replies(list(self._asked), deadline)

    def _replies(self, waiting: list[str], deadline: float | None) -> Iterator[Message]:
        while waiting:
            begun = time.monotonic()
            last = deadline is not None and begun >= deadline
            for identifier in tuple(waiting):
                # One identifier a question: the answer holds every reply that is there.
                left = FETCH_S if deadline is None else deadline - time.monotonic()
                self._bounds.seconds = max(FETCH_S, left)
                try:
                    found = list(self._grid.pull_messages([identifier]))
                except Unreadable:
                    found = [self._unreadable(identifier)]
                if found:
                    waiting.remove(identifier)
                    yield found.pop()
            if last:
                return
            if waiting:
                # Of many nodes a round of questions takes its time; no more than half of all is spent on asking.
                pause = max(self._poll_s, time.monotonic() - begun)
                time.sleep(pause if deadline is None else max(0.0, min(pause, deadline - time.monotonic())))

    def _unreadable(self, identifier: str) -> Message:
        """What stands for a reply that cannot be read: an error, as the SuperLink makes one in a dead node's stead."""
        node = self._asked[identifier]
        metadata = Metadata(
            run_id=0,  # it never travelled
            message_id="",
            src_node_id=node,
            dst_node_id=node,
            reply_to_message_id=identifier,
            group_id="",
            created_at=time.time(),
            ttl=0,
            message_type=MessageType.TRAIN,
        )
        return make_message(metadata=metadata, error=Error(UNREADABLE, "unreadable"))
