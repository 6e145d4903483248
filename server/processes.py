"""Child processes that never outlive their parent, however it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..common.storage import storage_errors

GRACE_S = 3.0
"""From a request to end (SIGTERM) to an order (SIGKILL)."""

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: nothing may be imported between fork and exec.
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class ProcessSet:
    """Named processes, each leading its own process group, so that what they start ends with them."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[ProcessSet]:
        """A set that is empty again when the block ends; neither an error nor Ctrl-C leaves a process behind.

        Should this process be killed outright, Linux ends the leaders, and Flower's helpers watch those.
        """
        processes = cls()
        try:
            yield processes
        finally:
            processes._end_all()

    def start(self, name: str, command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> None:
        """Start a program, its output appended to ``log``.

        Raises:
            StorageError: the log cannot be written.
        """
        with storage_errors(), log.open("ab") as output:
            self._processes[name] = subprocess.Popen(  # noqa: S603 - our own list of arguments, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env=dict(environment),
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def first_ended(self) -> tuple[str, int] | None:
        """Name and return code of a process that has ended by itself; None while all run."""
        for name, process in self._processes.items():
            if (code := process.poll()) is not None:
                return name, code
        return None

    def _end_all(self) -> None:
        # A second Ctrl-C must not interrupt the tidying up.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            leaders = [process.pid for process in self._processes.values()]
            # Looked for while their parents live: a SuperLink's executor leads a session of its own.
            below = _descendants(leaders)
            for number, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 1.0)):
                for leader in leaders:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(leader, number)
                for pid in below if number == signal.SIGKILL else ():
                    if _lives(pid, below[pid]):
                        with contextlib.suppress(ProcessLookupError, PermissionError):
                            os.kill(pid, number)
                deadline = time.monotonic() + patience
                while time.monotonic() < deadline and (
                    any(map(_group_lives, leaders)) or any(_lives(pid, started) for pid, started in below.items())
                ):
                    for process in self._processes.values():
                        process.poll()  # reaps, so that an ended leader no longer counts as living
                    time.sleep(0.02)
            for process in self._processes.values():
                process.wait()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _descendants(leaders: Sequence[int]) -> dict[int, str]:
    """Every living process below these: its number, and its start time that tells it from a later one of that number.

    Linux only; elsewhere none is found, and the groups have to do.
    """
    table = {pid: fields for path in Path("/proc").glob("[0-9]*") if (fields := _stat(pid := int(path.name)))}
    found: dict[int, str] = {}
    above = set(leaders)
    while above:
        above = {pid for pid, (_, parent, _) in table.items() if int(parent) in above}
        found |= {pid: table[pid][2] for pid in above}
    return found


def _stat(pid: int) -> tuple[str, str, str] | None:
    """State, parent and start time (proc(5)); None where there is no such process any more."""
    try:
        # What stands before is the program's name, which may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], fields[1], fields[19]


def _lives(pid: int, started: str) -> bool:
    fields = _stat(pid)
    return fields is not None and fields[2] == started and fields[0] not in "ZX"


def _group_lives(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _end_with_parent() -> None:
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)
