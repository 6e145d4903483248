"""The ledger under crashes, rivals and any order of events: it never counts less than was done (PRIVACY T6)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ledgered_site import BUDGET, DELTA, UNLIMITED, cost, counted, fit, ledger_in, people, run_named, scan, steps

from fedphantom.common.errors import BudgetSpent, VerificationFailed
from fedphantom.common.journal import verify_journal
from fedphantom.privacy.dp.ledger import Ledger, OpenReservation
from fedphantom.privacy.dp.limits import Budget
from fedphantom.privacy.dp.persons import Held

RUN = run_named("a" * 64)


def forked(work: Callable[[], None]) -> int:
    """A real process that does this and ends; its number."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def wait_until_written(path: Path, more: int) -> None:
    """Until the file has grown by so much: on a busy machine the clock would say nothing."""
    size = path.stat().st_size if path.exists() else 0
    end = time.monotonic() + 60
    while (path.stat().st_size if path.exists() else 0) < size + more and time.monotonic() < end:
        time.sleep(0.001)


def take_steps(ledger: Ledger, truth: Path, budget: Budget, chance: Random) -> None:
    """A training that never ends by itself while something is left: each step is told to ``truth`` as it begins."""
    with truth.open("ab", buffering=0) as file:
        while True:
            size = chance.randint(1, 6)
            try:
                reserved = ledger.reserve(RUN, people("abc"), steps(size), budget)
            except BudgetSpent:
                return
            done = chance.randint(0, size)
            for _ in range(done):
                file.write(b".")
                time.sleep(chance.random() / 2000)
            reserved.commit(done)


def test_processes_killed_at_any_moment_never_leave_less_counted_than_was_done(tmp_path: Path) -> None:
    ledger, truth, chance = ledger_in(tmp_path), tmp_path / "truth", Random(5)  # noqa: S311
    counted(ledger)
    cost(1)  # now, for every child: what the accountant imports
    after: list[int] = []
    for crash in range(12):
        child = forked(partial(take_steps, ledger, truth, UNLIMITED, Random(crash)))  # noqa: S311  # no secret
        wait_until_written(ledger.path, chance.randint(0, 3000))
        time.sleep(chance.random() / 100)
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert counted(ledger) >= (truth.stat().st_size if truth.exists() else 0)
        after.append(counted(ledger))
    assert after == sorted(after)
    assert truth.stat().st_size > 0
    ledger.reserve(RUN, people("abc"), steps(1), UNLIMITED)
    assert counted(ledger) == after[-1] + 1
    assert verify_journal(ledger.path) > 12


def test_two_processes_at_once_spend_one_budget_together(tmp_path: Path) -> None:
    ledger, truth = ledger_in(tmp_path), tmp_path / "truth"
    budget = Budget(1.0, DELTA)
    whole = fit(1.0)
    children = [forked(partial(take_steps, ledger, truth, budget, Random(seed))) for seed in (1, 2)]  # noqa: S311
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert truth.stat().st_size == counted(ledger)
    assert whole - 6 < counted(ledger) <= whole
    assert cost(counted(ledger)) <= 1.0


class Site(RuleBasedStateMachine):
    """A site that reserves, trains, commits, crashes, renames patients and loses lines, against plain sums."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.ledger = ledger_in(self.folder)
        self.done: dict[str, int] = {}  # steps that each person's data were really in
        self.counted: dict[str, int] = {}  # and that must count
        self.open: list[tuple[OpenReservation, str, int]] = []
        self.runs = 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @rule(who=st.sets(st.sampled_from("abcdeABCDE"), min_size=1, max_size=4), number=st.integers(1, 40))
    def reserve(self, who: set[str], number: int) -> None:
        names = {name.lower(): name for name in sorted(who)}  # a person once, by the old name or the new
        self.runs += 1
        before = max(self.counted.get(person, 0) for person in names)
        try:
            reserved = self.ledger.reserve(
                run_named(f"{self.runs:064x}"), people(names.values()), steps(number), BUDGET
            )
        except BudgetSpent:
            assert cost(before + number) > BUDGET.epsilon
            return
        assert cost(before + number) <= BUDGET.epsilon
        assert reserved.epsilon == cost(before + number)
        for person in names:
            self.counted[person] = self.counted.get(person, 0) + number
        self.open.append((reserved, "".join(names), number))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def train_and_commit(self, data: st.DataObject) -> None:
        reserved, persons, number = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        done = data.draw(st.integers(0, number))
        reserved.commit(done)
        for person in persons:
            self.done[person] = self.done.get(person, 0) + done
            self.counted[person] += done - number

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def train_and_crash(self, data: st.DataObject) -> None:
        _, persons, number = self.open.pop()
        for person in persons:
            self.done[person] = self.done.get(person, 0) + data.draw(st.integers(0, number))
        self.ledger = ledger_in(self.folder)

    @precondition(lambda self: self.counted)
    @rule(lines=st.integers(1, 3), head_too=st.booleans())
    def lose_lines_and_find_them_again(self, lines: int, head_too: bool) -> None:
        head = self.ledger.path.with_name("ledger.jsonl.head")
        kept, kept_head = self.ledger.path.read_bytes(), head.read_bytes()
        left = kept.splitlines(keepends=True)[:-lines]
        self.ledger.path.write_bytes(b"".join(left))
        if head_too:
            head.unlink()
        with contextlib.suppress(VerificationFailed):
            self.ledger.spending()
            raise AssertionError("lost lines were not noticed")
        self.ledger.path.write_bytes(kept)
        head.write_bytes(kept_head)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        if not hasattr(self, "ledger"):
            return
        found = counted(self.ledger)
        assert found == max(self.counted.values(), default=0)
        assert found >= max(self.done.values(), default=0)
        assert cost(found) <= BUDGET.epsilon


TestSite = Site.TestCase
TestSite.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)


def test_the_model_s_names_are_one_person_in_both_cases() -> None:
    assert people("a")["patient-a"] == people("A")["patient-A"] == Held([scan("a")])
