"""Processes of a run end with it, and with them all that they started: whatever ends the run, whatever they ignore."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from flower_processes import lives, wait_for

from fedphantom.common.process_keeper import GRACE_S
from fedphantom.common.processes import ProcessSet

pytestmark = pytest.mark.network  # starts real processes

STUBBORN = {
    "its group": "trap '' TERM; sleep 300 & echo $!; wait; sleep 300",
    "a session of its own": "trap '' TERM; setsid sleep 300 & echo $!; wait; sleep 300",
    "orphaned in a session of its own": "trap '' TERM; (setsid sleep 300 & echo $!); sleep 300",
    "orphaned, its parent ended when asked": "(setsid sleep 300 & echo $!); exec sleep 300",
}


def started(processes: ProcessSet, script: str, log: Path) -> int:
    """Number of the process that the script started."""
    processes.start("stubborn", ["bash", "-c", script], log=log, environment=os.environ)
    wait_for(lambda: log.read_text().endswith("\n"))
    return int(log.read_text())


@pytest.mark.parametrize("script", STUBBORN.values(), ids=STUBBORN.keys())
def test_what_a_process_started_ends_with_the_set(tmp_path: Path, script: str) -> None:
    def interrupted() -> None:
        with ProcessSet.running() as processes:
            pids.append(started(processes, script, tmp_path / "log"))
            assert lives(pids[0])
            raise KeyboardInterrupt  # as Ctrl-C does

    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not lives(pids[0])


@pytest.mark.parametrize("script", STUBBORN.values(), ids=STUBBORN.keys())
def test_what_a_process_started_ends_when_the_run_is_killed(tmp_path: Path, script: str) -> None:
    program = (
        "import sys, time, os; from pathlib import Path; from fedphantom.common.processes import ProcessSet\n"
        "with ProcessSet.running() as processes:\n"
        "    processes.start('x', ['bash', '-c', sys.argv[1]], log=Path(sys.argv[2]), environment=os.environ)\n"
        "    time.sleep(300)\n"
    )
    log = tmp_path / "log"
    with subprocess.Popen([sys.executable, "-c", program, script, str(log)]) as run:
        wait_for(lambda: log.exists() and log.read_text().endswith("\n"))
        pid = int(log.read_text())
        assert lives(pid)
        run.send_signal(signal.SIGKILL)
    wait_for(lambda: not lives(pid), GRACE_S + 20)


def test_a_process_that_ended_by_itself_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with ProcessSet.running() as processes:
        pid = started(processes, "(setsid sleep 300 & echo $!); exit 7", tmp_path / "log")
        wait_for(lambda: processes.first_ended() == ("stubborn", 7))
        assert not lives(pid)


def test_a_process_that_a_signal_ended_has_the_code_that_a_shell_gives(tmp_path: Path) -> None:
    with ProcessSet.running() as processes:
        started(processes, "echo 1; kill -KILL $$", tmp_path / "log")
        wait_for(lambda: processes.first_ended() == ("stubborn", 128 + signal.SIGKILL))
