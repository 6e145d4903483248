"""Replies over a Flower grid: one at a time, whoever is slow, until the deadline; and each from the site it names."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flower_messages import InProcessGrid, prepared
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from linear_site import cohorts_of, study_text

from fedphantom.common.errors import PeerError
from fedphantom.common.gan.parameters import ParameterSpec
from fedphantom.common.wire import FAILURE, HEADER
from fedphantom.server.polling_grid import PollingGrid
from fedphantom.server.rounds import Rounds
from fedphantom.server.run_folder import RunFolder
from fedphantom.server.strategy import GeneratorAveraging

SITES = ("site-a", "site-b", "site-c")
NODES = {2: "site-a", 3: "site-b", 4: "site-c"}

pytestmark = pytest.mark.usefixtures("identity")


@pytest.fixture
def cohorts(tmp_path: Path) -> dict[str, Path]:
    return cohorts_of(tmp_path, SITES)


def run_of(
    folder: RunFolder, grid: InProcessGrid, known: Mapping[int, str] | None = None, poll_s: float = 0.02
) -> Rounds:
    study, sites = folder.claimed()
    rounds = Rounds.open(study, folder, sites)
    polling = PollingGrid(grid, poll_s)
    strategy = GeneratorAveraging(rounds, polling.node_of, 0.3, sites_of_nodes=None if known is None else lambda: known)
    strategy.start(polling, ArrayRecord(), num_rounds=rounds.remaining, timeout=rounds.deadline_s)
    return rounds


class OneAtATime(InProcessGrid):
    """Makes each reply only when it is asked for, and looks whether an earlier one is still held."""

    held: int = 0
    asked: int = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        identifiers = list(super().push_messages(messages))
        self.made, self.replies = self.replies, {}
        self.handed: list[weakref.ref[Any]] = []
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        (identifier,) = message_ids
        self.asked += 1
        self.held += sum(one() is not None for one in self.handed)
        found = [self.made.pop(identifier)] if identifier in self.made else []
        self.handed += [weakref.ref(held) for one in found for held in (one, one.content)]
        return found


def test_the_coordinator_holds_one_reply_at_a_time_and_waits_for_no_collector_of_cycles(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    folder, grid = prepared(tmp_path / "out", cohorts, study_text(rounds=2), OneAtATime)
    gc.disable()
    try:
        assert run_of(folder, grid).checkpoint.history[1].sites == SITES
    finally:
        gc.enable()
    assert isinstance(grid, OneAtATime)
    assert (grid.asked, grid.held) == (6, 0)


class Slow(InProcessGrid):
    """The second site's reply is there only after a while."""

    ready = 0.25

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        asked = list(message_ids)
        if asked == [list(self.order)[1]] and time.monotonic() < self.pushed + self.ready:
            return []
        return super().pull_messages(asked)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self.order = list(super().push_messages(messages))
        self.pushed = time.monotonic()
        return self.order


def test_a_slow_site_is_waited_for_and_one_past_the_deadline_is_not(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    folder, grid = prepared(tmp_path / "in-time", cohorts, study_text(rounds=1, deadline_s=20.0), Slow)
    assert run_of(folder, grid).checkpoint.history[0].sites == SITES
    folder, grid = prepared(tmp_path / "late", cohorts, study_text(rounds=1, deadline_s=0.2), Slow)
    grid.ready = 60.0  # type: ignore[attr-defined]  # a Slow one
    began = time.monotonic()
    record = run_of(folder, grid).checkpoint.history[0]
    assert record.left_out == {"site-b": "no reply"}
    assert 0.2 <= time.monotonic() - began < 5


def test_a_reply_that_came_in_time_counts_though_another_took_until_after_the_deadline(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    class Stalling(InProcessGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            time.sleep(0.3)
            return super().pull_messages(message_ids)

    folder, grid = prepared(tmp_path / "out", cohorts, study_text(rounds=1, deadline_s=0.1), Stalling)
    assert run_of(folder, grid).checkpoint.history[0].sites == SITES


def test_a_deadline_is_no_shorter_than_twice_the_quickest_round_that_every_site_answered(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    folder, grid = prepared(tmp_path / "out", cohorts, study_text(rounds=3, deadline_s=20.0))
    study, sites = folder.claimed()
    rounds = Rounds.open(study, folder, sites)
    declared = study.federation.deadline_with(ParameterSpec.of(rounds.checkpoint.aggregate).values)
    assert rounds.deadline_s == declared
    done = run_of(folder, grid)
    first, second, third = done.checkpoint.history
    partial = replace(third, seconds=1.0, sites=third.sites[:2])
    for history, expected in (
        ((replace(first, seconds=40.0), replace(second, seconds=30.0), partial), 60.0),
        ((replace(first, seconds=5.0), second, partial), declared),
        ((partial,), declared),
    ):
        done.checkpoint = replace(done.checkpoint, history=history)
        assert done.deadline_s == pytest.approx(expected)


def test_each_rounds_deadline_is_asked_for_anew(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    """Flower's loop would keep the first for all of them."""
    folder, grid = prepared(tmp_path / "out", cohorts, study_text(rounds=1), Slow)
    grid.ready = 0.5  # type: ignore[attr-defined]  # a Slow one
    study, sites = folder.claimed()
    rounds = Rounds.open(study, folder, sites)
    polling = PollingGrid(grid, 0.02, timeout_s=lambda: 60.0)
    strategy = GeneratorAveraging(rounds, polling.node_of, 0.3)
    strategy.start(polling, ArrayRecord(), num_rounds=1, timeout=0.01)
    assert rounds.checkpoint.history[0].sites == SITES


# Whose reply it is


def named(reply: Message, site: str) -> Message:
    reply.content[HEADER] = ConfigRecord({**reply.content.config_records[HEADER], "site": site})
    return reply


def test_a_node_whose_key_is_known_answers_for_its_site_from_the_first_round_on(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    folder, grid = prepared(tmp_path / "out", cohorts, study_text(rounds=2))
    assert [record.sites for record in run_of(folder, grid, NODES).checkpoint.history] == [SITES, SITES]


@pytest.mark.parametrize("other", ["site-a", "site-x", ""])
def test_a_reply_in_another_name_than_the_nodes_is_left_out_also_in_the_first_round(
    tmp_path: Path, cohorts: dict[str, Path], other: str
) -> None:
    class Impostor(InProcessGrid):
        def change(self, node: int, reply: Message) -> Message | None:
            return named(reply, other) if node == 3 else reply

    folder, grid = prepared(tmp_path / "out", cohorts, study_text(rounds=1), Impostor)
    record = run_of(folder, grid, NODES).checkpoint.history[0]
    assert record.sites == ("site-a", "site-c")
    assert record.left_out == {"site-b": "it answered in another site's name"}


def test_a_failure_told_in_another_sites_name_is_the_nodes_own(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    class Slanderer(InProcessGrid):
        def change(self, node: int, reply: Message) -> Message | None:
            if node == 3:
                reply.content = RecordDict({FAILURE: ConfigRecord({"site": "site-a", "reason": "it failed"})})
            return reply

    folder, grid = prepared(tmp_path / "out", cohorts, study_text(rounds=1), Slanderer)
    record = run_of(folder, grid, NODES).checkpoint.history[0]
    assert record.sites == ("site-a", "site-c")
    assert record.left_out == {"site-b": "it answered in another site's name"}


def test_a_node_that_is_nobodys_is_neither_asked_nor_counted(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    folder, grid = prepared(tmp_path / "out", cohorts, study_text(rounds=1, deadline_s=0.5))
    record = run_of(folder, grid, {2: "site-a", 4: "site-c", 9: "site-of-another-study"}).checkpoint.history[0]
    assert sorted(message.metadata.dst_node_id for message in grid.sent) == [2, 4]
    assert record.left_out == {"site-b": "no reply"}
    folder, grid = prepared(tmp_path / "alone", cohorts, study_text(rounds=1, deadline_s=0.3))
    with pytest.raises(PeerError, match="1 of 3 sites connected"):
        run_of(folder, grid, {2: "site-a"})


def test_a_reply_from_a_node_that_nobody_asked_is_left_out(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    folder, grid = prepared(tmp_path / "out", cohorts, study_text(rounds=1))
    study, sites = folder.claimed()
    rounds, polling = Rounds.open(study, folder, sites), PollingGrid(grid, 0.02)

    def node_of(message: Message) -> int:
        node = polling.node_of(message)
        return 9 if node == 3 else node

    strategy = GeneratorAveraging(rounds, node_of, 0.3, sites_of_nodes=lambda: NODES)
    strategy.start(polling, ArrayRecord(), num_rounds=1, timeout=rounds.deadline_s)
    record = rounds.checkpoint.history[0]
    assert record.sites == ("site-a", "site-c")
    assert record.left_out["site-b"] == "no reply"


def test_no_two_requests_can_be_told_from_each_other_by_guessing(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    folder, grid = prepared(tmp_path / "out", cohorts, study_text(rounds=2))
    run_of(folder, grid, NODES)
    words = [message.metadata.group_id for message in grid.sent]
    assert len(set(words)) == len(words) == 6
    assert all(len(word) == 32 for word in words)
