"""Times are added up over all calls of a demo, and every stop is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedphantom.server.demo_clock import TIMES, DemoClock

STAGES = ("cohorts", "training", "report")


class Hand:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class Demo:
    """Calls of a demo of three stages; each leaves its mark when it is done."""

    def __init__(self, root: Path) -> None:
        self.root, self.hand = root, Hand()

    def clock(self) -> DemoClock:
        return DemoClock(self.root / TIMES, {name: (self.root / name,) for name in STAGES}, now=self.hand)

    def call(self, *takes: float, fails: type[BaseException] | None = None) -> DemoClock:
        """Stages that take so long; the last one fails, or all are done."""
        clock = self.clock()
        try:
            with clock:
                for i, seconds in enumerate(takes):
                    clock.begin(STAGES[i])
                    self.hand.at += seconds
                    if fails and i == len(takes) - 1:
                        raise fails
                    (self.root / STAGES[i]).touch()
        except BaseException as error:
            if not fails or not isinstance(error, fails):
                raise
        self.hand.at += 10_000  # the pause between two calls counts for nothing
        return clock


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    return Demo(tmp_path)


def test_an_uninterrupted_call_is_its_stages_and_says_nothing_more(demo: Demo) -> None:
    assert demo.clock().greeting() is None
    clock = demo.call(1.0, 20.0, 3.0)
    assert clock.seconds() == {"cohorts": 1.0, "training": 20.0, "report": 3.0, "all": 24.0}
    assert clock.note() == ""
    assert clock.stops == 0


@pytest.mark.parametrize("fails", [KeyboardInterrupt, RuntimeError])
def test_a_stopped_stage_keeps_its_time_and_the_next_call_adds_to_it(demo: Demo, fails: type[BaseException]) -> None:
    demo.call(1.0, 20.0, fails=fails)
    clock = demo.call(0.5, 7.0, 3.0)
    assert clock.seconds() == {
        "cohorts": 1.0,
        "training": 27.0,
        "report": 3.0,
        "taking up again": 0.5,
        "all": 31.5,
    }
    assert clock.stops == 1
    assert "was stopped once before its end and taken up again" in clock.note()
    assert "without warning" not in clock.note()


def test_a_kill_loses_no_more_than_was_not_noted_and_is_told(demo: Demo) -> None:
    clock = demo.clock().__enter__()  # no exit: the process is gone
    clock.begin("cohorts")
    demo.hand.at += 2
    clock.tick()
    assert json.loads((demo.root / TIMES).read_text())["seconds"].get("cohorts", 0) == 0, "noted every few seconds only"
    demo.hand.at += 6
    clock.tick()
    demo.hand.at += 100
    again = demo.call(1.0, 1.0, 1.0)
    assert again.seconds()["cohorts"] == 9.0
    assert again.stops == 1
    assert "Once it ended without warning" in again.note()


def test_many_stops_are_counted(demo: Demo) -> None:
    for _ in range(3):
        demo.call(1.0, fails=KeyboardInterrupt)
    clock = demo.call(1.0, 1.0, 1.0)
    assert clock.seconds()["cohorts"] == 4.0
    assert clock.stops == 3
    assert "stopped 3 times" in clock.note()


def test_a_finished_demo_that_is_called_again_took_no_longer(demo: Demo) -> None:
    told = demo.call(1.0, 20.0, 3.0).seconds()
    again = demo.call(5.0, 5.0, 5.0)
    assert again.seconds() == told
    assert again.stops == 0
    assert "is finished" in str(again.greeting())


def test_the_greeting_names_what_is_finished_and_where_it_goes_on(demo: Demo) -> None:
    demo.call(1.0, fails=KeyboardInterrupt)
    assert demo.clock().greeting() == ("this demo was begun before and goes on at 'cohorts' (no stage is finished yet)")
    demo.call(1.0, 2.0, fails=KeyboardInterrupt)
    assert demo.clock().greeting() == "this demo was begun before and goes on at 'training' (finished: cohorts)"


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"seconds": {"a": -1}}', b'{"other": 1}'])
def test_damaged_times_begin_anew_and_stop_nothing(demo: Demo, content: bytes) -> None:
    (demo.root / TIMES).write_bytes(content)
    assert demo.call(1.0, 1.0, 1.0).seconds()["all"] == 3.0
