"""Child processes that never outlive their parent, however it ends."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .storage import storage_errors

KEEPER = Path(__file__).with_name("process_keeper.py")


class ProcessSet:
    """Named processes, each run by a keeper that ends it and all that it started."""

    def __init__(self) -> None:
        self._keepers: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[ProcessSet]:
        """A set that is empty again when the block ends; neither an error nor Ctrl-C leaves a process behind.

        Should this process be killed outright, the keepers see it and end their programs all the same.
        """
        processes = cls()
        try:
            yield processes
        finally:
            processes._end_all()

    def start(self, name: str, command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> None:
        """Start a program, its output appended to ``log``, which its keeper rotates.

        Raises:
            StorageError: the log cannot be written.
        """
        with storage_errors(), log.open("ab") as output:
            self._keepers[name] = subprocess.Popen(  # noqa: S603 - our own list of arguments, no shell
                [sys.executable, "-I", "-S", str(KEEPER), str(log.absolute()), *command],
                stdin=subprocess.PIPE,  # never written to: its end tells the keeper of ours
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env=dict(environment),
                start_new_session=True,
            )

    def first_ended(self) -> tuple[str, int] | None:
        """Name and return code of a process that has ended by itself; None while all run."""
        for name, keeper in self._keepers.items():
            if (code := keeper.poll()) is not None:
                return name, code
        return None

    def ended(self, name: str) -> bool:
        """Whether this one has ended by itself."""
        return self._keepers[name].poll() is not None

    def end(self, name: str) -> None:
        """End one and all that it started; another may then be started under its name."""
        self._end([self._keepers.pop(name)])

    def _end_all(self) -> None:
        self._end(list(self._keepers.values()))

    @staticmethod
    def _end(keepers: Sequence[subprocess.Popen[bytes]]) -> None:
        # A second Ctrl-C must not interrupt the tidying up.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            for keeper in keepers:
                keeper.terminate()
            for keeper in keepers:
                keeper.wait()
                if keeper.stdin:
                    keeper.stdin.close()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
