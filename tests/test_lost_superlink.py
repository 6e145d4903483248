"""A SuperLink that ends: ``server start`` starts it again, and whoever follows its run waits, but not for ever."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from enrolment import Study

from fedphantom.common.errors import PeerError
from fedphantom.common.service import Service
from fedphantom.server import following
from fedphantom.server.coordinator import serving
from fedphantom.server.coordinator.folder import CoordinatorFolder
from fedphantom.server.coordinator.superlink import SuperLink
from fedphantom.server.flower_control import UNKNOWN
from fedphantom.server.following import follow
from fedphantom.server.run_folder import RunFolder

WAITS = "import time; time.sleep(60)"


@contextmanager
def starting(
    study: Study, monkeypatch: pytest.MonkeyPatch, fails: int
) -> Iterator[tuple[Callable[[], None], list[str], Path]]:
    """What starts a SuperLink again; real processes, of which so many end at once and the next one answers."""
    folder = CoordinatorFolder(study.folder)
    marks = study.folder / "superlink"
    marks.mkdir(exist_ok=True)
    script = f"""
import pathlib, sys, time
marks = pathlib.Path({str(marks)!r})
n = len(list(marks.glob("started-*")))
(marks / f"started-{{n}}").touch()
if n < {fails}:
    sys.exit(9)
(marks / "answers").touch()
time.sleep(60)
"""
    monkeypatch.setattr(SuperLink, "command", lambda _: (sys.executable, "-c", script))
    monkeypatch.setattr(SuperLink, "answers", lambda _: (marks / "answers").exists())
    monkeypatch.setattr(serving, "RESTART_S", 0.0)
    said: list[str] = []
    with Service.running(folder.root, marks, said.append) as service:
        made = serving._Serving(folder, service)
        yield lambda: made._start_again("superlink", 137), said, marks
        assert not service.processes.ended("superlink")


def test_one_that_ends_while_it_comes_up_is_started_again(enrolling: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    with starting(enrolling, monkeypatch, fails=2) as (again, said, marks):
        again()
        assert len(list(marks.glob("started-*"))) == 3
    assert [line.split(";")[0] for line in said] == [
        "superlink ended with code 137",
        "the SuperLink did not come up",
        "the SuperLink did not come up",
    ]


def test_one_that_never_comes_up_ends_the_coordinator_by_name(
    enrolling: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "STARTS", 3)
    with (
        pytest.raises(PeerError, match="the SuperLink did not come up"),
        starting(enrolling, monkeypatch, fails=99) as (again, _, marks),
    ):
        again()
    assert len(list(marks.glob("started-*"))) == 3


class Told:
    """A SuperLink's answers, one after the other, the last one for ever."""

    def __init__(self, *answers: str | Exception) -> None:
        self._answers: list[str | Exception] = list(answers)
        self.asked = 0

    def status(self, run: str) -> str:
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, control: Any, unheard_s: float) -> None:
    monkeypatch.setattr(following, "_POLL_S", 0.01)
    monkeypatch.setattr(following, "_STATUS_POLL_S", 0.01)
    monkeypatch.setattr(following, "UNHEARD_S", unheard_s)
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    follow(folder, control, "7", lambda _: None, tmp_path / "superlink.log", lambda: None)


SILENCE: Sequence[str | Exception] = (
    UNKNOWN,
    PeerError("'flwr ls' failed", expected="an answer", remedy="Ask again."),
)


@pytest.mark.parametrize("silence", SILENCE, ids=["knows no run", "answers nothing"])
def test_a_run_that_nothing_is_heard_of_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silence: str | Exception
) -> None:
    control = Told("running", silence)
    with pytest.raises(PeerError, match="has said nothing of the run for 0 s"):
        followed(tmp_path, monkeypatch, control, unheard_s=0.2)
    assert control.asked > 3


@pytest.mark.parametrize("silence", SILENCE, ids=["knows no run", "answers nothing"])
def test_a_silence_that_ends_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silence: str | Exception) -> None:
    control = Told(silence, silence, "running", silence, "finished:failed")
    with pytest.raises(PeerError, match="the ServerApp ended without a result"):
        followed(tmp_path, monkeypatch, control, unheard_s=60.0)


def test_a_run_whose_rounds_go_on_is_heard_of_whatever_the_superlink_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds are told by checkpoints on the disk; ``flwr ls`` fails all the while."""
    rounds = iter(range(1, 10_000))

    monkeypatch.setattr(following, "_report", lambda folder, done, progress: next(rounds) // 10)
    control = Told(SILENCE[1])

    def end_after_a_second() -> None:
        if control.asked > 40:
            raise KeyboardInterrupt

    monkeypatch.setattr(following, "_POLL_S", 0.01)
    monkeypatch.setattr(following, "_STATUS_POLL_S", 0.01)
    monkeypatch.setattr(following, "UNHEARD_S", 0.3)
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    with pytest.raises(KeyboardInterrupt):
        follow(folder, control, "7", lambda _: None, tmp_path / "superlink.log", end_after_a_second)  # type: ignore[arg-type]  # asked for the status alone


@pytest.mark.parametrize(("code", "found"), [("", "nginx ended as soon as it was started"), (WAITS, "does not pass")])
def test_nobody_is_told_that_sites_can_come_while_the_door_is_shut(
    enrolling: Study, monkeypatch: pytest.MonkeyPatch, code: str, found: str
) -> None:
    """Another program on its port, a certificate that expired: nginx ends, or answers nothing."""
    folder = CoordinatorFolder(enrolling.folder)
    monkeypatch.setattr(serving, "DOOR_S", 0.5 if code else 30.0)
    (folder.root / "superlink").mkdir()
    folder.nginx.mkdir()
    said: list[str] = []
    with Service.running(folder.root, folder.root / "superlink", said.append) as service:
        made = serving._Serving(folder, service)
        with pytest.raises(PeerError, match=found) as refused:
            made._open_door((sys.executable, "-c", code))
    assert "nginx.log" in refused.value.remedy
    assert not said
