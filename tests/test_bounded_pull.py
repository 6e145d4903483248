"""No reply takes the ServerApp's memory or its time, whatever its node announced; Flower's own formats are read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable

import flwr.superlink.grid.http_grid as http_grid
import numpy as np
import pytest
from flower_messages import InProcessGrid
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_object import add_header_to_object_body, get_all_nested_objects

from fedphantom.common.errors import ConfigError
from fedphantom.server import bounded_pull
from fedphantom.server.bounded_pull import SLACK_BYTES, PullBounds, Unreadable, inflated_bytes
from fedphantom.server.polling_grid import FETCH_S, UNREADABLE, PollingGrid

VALUES = 3_000_000


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> PullBounds:
    """Installed, and put back afterwards."""
    monkeypatch.setattr(http_grid, "pull_objects", inflatable_utils.pull_objects)
    monkeypatch.setattr(http_grid, "inflate_object_from_contents", inflatable_utils.inflate_object_from_contents)
    made = PullBounds(most_bytes=4 * VALUES)
    made.install()
    return made


def reply_of(array: Array) -> tuple[str, dict[str, bytes]]:
    """A record's objects as its node announces them, by identifier, and the record's own."""
    record = ArrayRecord({"flat": array})
    return record.object_id, {name: item.deflate() for name, item in get_all_nested_objects(record).items()}


class Named(Array):
    """An array that names its pieces as it likes."""

    indices: tuple[int, ...] = ()

    def deflate(self) -> bytes:
        facts = {"dtype": self.dtype, "shape": self.shape, "stype": self.stype, "arraychunk_ids": self.indices}
        return add_header_to_object_body(object_body=json.dumps(facts).encode(), obj=self)


Named.__name__ = Named.__qualname__ = "Array"  # Flower knows classes by their names


def naming(*indices: int) -> tuple[str, dict[str, bytes]]:
    array = Named(np.zeros(VALUES, np.float32))
    array.indices = indices
    contents = {name: item.deflate() for name, item in get_all_nested_objects(array).items()}
    return array.object_id, contents


def test_a_reply_is_put_together_as_flower_does(bounds: PullBounds) -> None:
    values = np.arange(VALUES, dtype=np.float32)
    name, contents = reply_of(Array(values))
    assert values.nbytes < inflated_bytes(contents) < values.nbytes + 1000  # headers beside
    found = http_grid.inflate_object_from_contents(name, contents)
    assert isinstance(found, ArrayRecord)
    np.testing.assert_array_equal(found["flat"].numpy(), values)


def test_one_piece_named_a_thousand_times_is_never_put_together(bounds: PullBounds) -> None:
    name, contents = naming(*[0] * 1000)
    with pytest.raises(Unreadable):
        http_grid.inflate_object_from_contents(name, contents)


@pytest.mark.parametrize("indices", [(7,), (-9,), ()])
def test_a_piece_that_is_not_there_is_the_nodes_fault_and_no_crash(
    bounds: PullBounds, indices: tuple[int, ...]
) -> None:
    name, contents = naming(*indices)
    with pytest.raises(Unreadable):
        http_grid.inflate_object_from_contents(name, contents)


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"Array 3\x00abc", b"Array 2,x 3\x00{}["])
def test_what_is_no_object_is_unreadable(bounds: PullBounds, content: bytes) -> None:
    with pytest.raises(Unreadable):
        http_grid.inflate_object_from_contents("one", {"one": content})


def test_more_bytes_than_a_reply_has_are_not_pulled(bounds: PullBounds) -> None:
    asked: list[str] = []

    def piece(name: str) -> bytes:
        asked.append(name)
        return bytes(5_000_000)

    with pytest.raises(inflatable_utils.ObjectPullError, match="more bytes than a reply has"):
        http_grid.pull_objects(object_ids=[f"object-{n}" for n in range(60)], pull_object_fn=piece)
    # What is asked for at once when the bound is passed may still come.
    assert len(asked) * 5_000_000 < 4 * VALUES + SLACK_BYTES + 5_000_000 * 40


def test_more_parts_than_a_reply_has_are_not_asked_for(bounds: PullBounds) -> None:
    with pytest.raises(inflatable_utils.ObjectPullError, match="more parts than a reply has"):
        http_grid.pull_objects(object_ids=["x"] * 10_000, pull_object_fn=lambda name: pytest.fail(name))


def test_parts_that_were_announced_and_do_not_come_are_waited_for_no_longer_than_told(bounds: PullBounds) -> None:
    bounds.seconds = 0.5

    def missing(name: str) -> bytes:
        raise inflatable_utils.ObjectUnavailableError(name)

    ended = threading.Event()

    def pull() -> None:
        with pytest.raises(inflatable_utils.ObjectPullError, match="timeout"):
            http_grid.pull_objects(object_ids=["x"], pull_object_fn=missing)
        ended.set()

    threading.Thread(target=pull, daemon=True).start()
    assert ended.wait(30)


def test_a_flower_that_pulls_in_another_way_takes_no_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_pull, "_USES", ("= pull_everything(",))
    with pytest.raises(ConfigError, match="in another way than is known here"):
        PullBounds(1).install()


class OneUnreadable(InProcessGrid):
    """Node 3's reply cannot be put together."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        pushed = list(messages)
        self.asked = {f"id-{message.metadata.dst_node_id}": message for message in pushed}
        self.seconds: list[float | None] = []
        return list(self.asked)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        (identifier,) = message_ids
        self.seconds.append(self.told.seconds)
        if identifier == "id-3":
            raise Unreadable
        reply = Message(RecordDict(), reply_to=self.asked[identifier])
        reply.metadata.__dict__["_reply_to_message_id"] = identifier
        return [reply]


@pytest.mark.usefixtures("identity")
def test_a_reply_that_cannot_be_read_counts_against_its_node_and_the_others_are_taken() -> None:
    grid = OneUnreadable.__new__(OneUnreadable)
    grid.told = PullBounds(1)
    polling = PollingGrid(grid, 0.01, grid.told)
    asked = [Message(RecordDict(), node, "train") for node in (2, 3, 4)]
    replies = list(polling.send_and_receive(asked, timeout=1000.0))
    assert [polling.node_of(reply) for reply in replies] == [2, 3, 4]
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert replies[1].error.code == UNREADABLE
    assert all(seconds is not None and 900 < seconds <= 1000 for seconds in grid.seconds)
    list(polling.send_and_receive(asked, timeout=1.0))
    assert grid.seconds[-1] == FETCH_S
