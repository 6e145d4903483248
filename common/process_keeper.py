"""``python process_keeper.py LOG PROGRAM ARGUMENT...``: runs a program, and ends all that it started when it is to end.

Flower's programs start others, some in sessions of their own, and a site that trains does not always heed a request to
end. The keeper adopts whatever loses its parent below it (Linux), so that nothing escapes; it lives outside the process
that asked, so that even that one's sudden death (SIGKILL, out of memory) leaves nothing behind. It ends the program on
SIGTERM and when its standard input closes, which is when the process that holds the other end is gone.

What the program says passes through a pipe into a log that is rotated (:mod:`.rotated_log`): whoever held the file
itself open would write into it for ever. Where the log cannot be written to, lines are lost and the program goes on.

The standard library alone is imported: it starts in the time of a bare Python, and holds no more memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from .rotated_log import RotatedLog

GRACE_S = 3.0
"""From a request to end (SIGTERM) to an order (SIGKILL)."""

_POLL_S = 0.1
_PR_SET_CHILD_SUBREAPER = 36


def keep(log: RotatedLog, command: Sequence[str]) -> int:
    """Run a program to its end, or until it is to end; its return code, as a shell gives it, or 143 where it was ended.

    Nothing that the program started lives when this returns, and all that was said stands in the log.
    """
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    program = subprocess.Popen(  # noqa: S603 - a list of arguments from the process that started this one, no shell
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    said = threading.Thread(target=_carry, args=(program.stdout, log), daemon=True)
    said.start()
    while not asked and program.poll() is None:
        if select.select([sys.stdin.fileno()], [], [], _POLL_S)[0] and not os.read(sys.stdin.fileno(), 1):
            break
    ended = program.poll()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGTERM)
    deadline = time.monotonic() + (GRACE_S if ended is None else 0.0)
    while (program.poll() is None or _below(os.getpid())) and time.monotonic() < deadline:
        time.sleep(0.02)
    # Anew until none is left: a process may start another while it is being ended.
    while below := {*_below(os.getpid()), *([program.pid] if program.poll() is None else [])}:
        for pid in below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    # All that could write to the pipe is gone; but on Linux alone is that sure.
    said.join(GRACE_S)
    if ended is None:
        return 128 + signal.SIGTERM
    return ended if ended >= 0 else 128 - ended


def _carry(pipe: IO[bytes], log: RotatedLog) -> None:
    while content := os.read(pipe.fileno(), 1 << 16):
        with contextlib.suppress(OSError):
            log.write(content)


def _log(path: Path) -> RotatedLog:
    # Started by its path, outside the package: the file beside this one is read by its path, too.
    made: RotatedLog = runpy.run_path(str(Path(__file__).with_name("rotated_log.py")))["RotatedLog"](path)
    return made


def _below(above: int) -> set[int]:
    """Every living process below this one; none but on Linux, and then only the program itself is ended."""
    table: dict[int, tuple[str, int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # What stands before is the program's name, which may hold anything (proc(5)).
            state, parent, *_ = path.read_text().rpartition(")")[2].split()
            table[int(path.parent.name)] = state, int(parent)
    found: set[int] = set()
    parents = {above}
    while parents:
        parents = {pid for pid, (_, parent) in table.items() if parent in parents}
        found |= parents
    return {pid for pid in found if table[pid][0] not in "ZX"}


if __name__ == "__main__":
    sys.exit(keep(_log(Path(sys.argv[1])), sys.argv[2:]))
