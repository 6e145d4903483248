"""Logs: rotated by whole lines, by the keeper of each process; followed across files; events as JSON lines."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from flower_processes import wait_for
from hypothesis import given, settings
from hypothesis import strategies as st

from fedphantom.client.site_round import note_failure
from fedphantom.common.errors import ConfigError
from fedphantom.common.event_log import EventLog
from fedphantom.common.followed_log import FollowedLog
from fedphantom.common.processes import ProcessSet
from fedphantom.common.rotated_log import KEPT, LARGEST, RotatedLog
from fedphantom.common.site_folder import SiteFolder


def files(path: Path) -> list[Path]:
    """The oldest first."""
    found = [path.with_name(f"{path.name}.{number}") for number in range(20, 0, -1)]
    return [one for one in [*found, path] if one.exists()]


def content(path: Path) -> bytes:
    return b"".join(one.read_bytes() for one in files(path))


# Rotation.


def test_a_log_never_holds_more_than_its_files_and_the_newest_lines_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    log = RotatedLog(path, largest=100, kept=3)
    for number in range(100):
        log.write(f"line {number:03d}\n".encode())
    assert [one.name for one in files(path)] == ["x.log.2", "x.log.1", "x.log"]
    assert all(one.stat().st_size <= 100 for one in files(path))
    lines = content(path).split()[1::2]
    assert lines == [f"{number:03d}".encode() for number in range(100 - len(lines), 100)]
    assert len(lines) > 20


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=60).map(lambda b: b.replace(b"\n", b".")), max_size=40), st.data())
def test_lines_stay_whole_and_in_order_however_they_are_cut_into_writes(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("log") / "x.log"
    whole, log = b"".join(line + b"\n" for line in lines), RotatedLog(path, largest=80, kept=1000)
    rest = whole
    while rest:
        size = data.draw(st.integers(1, 120))
        log.write(rest[:size])
        rest = rest[size:]
    found = sorted(path.parent.glob("x.log.*"), key=lambda one: -int(one.suffix[1:])) + [path] * path.exists()
    assert b"".join(one.read_bytes() for one in found) == whole
    assert all(one.read_bytes().endswith(b"\n") for one in found)
    assert all(one.stat().st_size <= 80 + 61 for one in found)


def test_a_line_without_an_end_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    log = RotatedLog(path, largest=100, kept=3)
    for _ in range(100):
        log.write(b"progress\r")
    assert all(one.stat().st_size < 250 for one in files(path))
    assert len(files(path)) == 3


def test_a_log_that_is_full_already_is_rotated_at_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"old\n" * 50)
    RotatedLog(path, largest=100).write(b"new\n")
    assert path.read_bytes() == b"new\n"
    assert (tmp_path / "x.log.1").read_bytes() == b"old\n" * 50


def test_another_process_that_rotates_at_the_same_moment_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    logs = [RotatedLog(path, largest=100, kept=1000) for _ in range(2)]
    for number in range(100):
        logs[number % 2].write(f"{number}\n".encode())
    assert sorted(map(int, content(path).split()[-50:])) == list(range(50, 100))


def test_a_sites_errors_log_keeps_the_newest_failures_and_does_not_grow_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RotatedLog.__init__, "__defaults__", (300, 3))
    folder = SiteFolder(tmp_path, "site-a", tmp_path, tmp_path, tmp_path)
    for number in range(40):
        note_failure(folder, ConfigError(f"failure {number:02d}", expected="none", remedy="Mend it."))
    found = files(folder.errors)
    assert [one.name for one in found] == ["errors.log.2", "errors.log.1", "errors.log"]
    assert all(one.stat().st_size <= 300 for one in found)
    lines = content(folder.errors).decode().splitlines()
    assert [line.split("failure ")[1][:2] for line in lines] == [f"{n:02d}" for n in range(40 - len(lines), 40)]
    assert len(lines) > 6


def test_a_failure_whose_text_is_no_unicode_is_noted_and_hides_no_other(tmp_path: Path) -> None:
    folder = SiteFolder(tmp_path, "site-a", tmp_path, tmp_path, tmp_path)
    note_failure(folder, ValueError("a name \udcff that a disk gave"))
    note_failure(SiteFolder(tmp_path / "none", "site-a", tmp_path, tmp_path, tmp_path), ValueError("nowhere"))
    assert "ValueError: a name \\udcff that a disk gave" in folder.errors.read_text()
    assert not (tmp_path / "none").exists()


# The keeper.


@pytest.mark.network  # starts real processes
def test_what_a_process_says_is_rotated_while_it_runs_and_not_a_line_is_lost(tmp_path: Path) -> None:
    path, lines = tmp_path / "x.log", 5 * LARGEST // 2 // 100
    script = f"for n in range({lines}): print(f'{{n:099d}}')"
    with ProcessSet.running() as processes:
        processes.start("x", ["python3", "-c", script], log=path, environment=os.environ)
        wait_for(lambda: processes.first_ended() == ("x", 0))
    assert [one.stat().st_size <= LARGEST for one in files(path)] == [True] * 3
    assert [int(line) for line in content(path).split()] == list(range(lines))
    assert KEPT > 3


@pytest.mark.network
def test_what_is_said_last_and_on_stderr_stands_in_the_log_also_where_the_process_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    script = "trap 'echo goodbye >&2; exit' TERM; echo hello; while :; do sleep 0.02; done"
    with ProcessSet.running() as processes:
        processes.start("x", ["bash", "-c", script], log=path, environment=os.environ)
        wait_for(lambda: path.exists() and b"hello" in path.read_bytes())
    assert path.read_text().split("\n")[0] == "hello"
    assert path.read_text().endswith("goodbye\n")


@pytest.mark.network
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_disk_that_is_full_does_not_stop_a_process(tmp_path: Path) -> None:
    path, done = tmp_path / "x.log", tmp_path / "done"
    path.symlink_to("/dev/full")
    script = f"for i in $(seq 20000); do echo a long line that fills the pipe; done; touch {done}"
    with ProcessSet.running() as processes:
        processes.start("x", ["bash", "-c", script], log=path, environment=os.environ)
        wait_for(lambda: processes.first_ended() == ("x", 0))
    assert done.exists()


# Following.


def test_what_is_added_is_seen_once_whole_and_past_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"before\n")
    followed, log = FollowedLog(path), RotatedLog(path, largest=20)
    assert followed.lines() == []
    log.write(b"one\nhal")
    assert followed.lines() == [b"one"]
    log.write(b"f\n")
    for number in range(3):
        log.write(f"many more {number}\n".encode())
        assert followed.lines() == ([b"half"] if number == 0 else []) + [f"many more {number}".encode()]
    assert len(files(path)) > 2


def test_a_log_that_is_not_there_yet_is_followed_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    followed = FollowedLog(path)
    assert followed.lines() == []
    path.write_bytes(b"first\n")
    assert followed.lines() == [b"first"]
    path.unlink()
    assert followed.lines() == []
    path.write_bytes(b"anew\n")
    assert followed.lines() == [b"anew"]


# Events.


def test_an_event_is_one_json_line_of_time_level_event_and_facts(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log.jsonl")
    log.write("info", "ready")
    log.write("warning", "node-ended", code=3)
    first, second = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert set(first) == {"time", "level", "event", "facts"}
    assert (second["level"], second["event"], second["facts"]) == ("warning", "node-ended", {"code": 3})


def test_events_that_cannot_be_written_stop_nobody(tmp_path: Path) -> None:
    EventLog(tmp_path / "none" / "log.jsonl").write("info", "ready")
    assert not (tmp_path / "none").exists()
