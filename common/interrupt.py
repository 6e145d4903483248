"""Ctrl-C and SIGTERM: one line and exit code 130 from the program's first moment to its last.

SIGTERM ends a command as Ctrl-C does, so that what it started ends with it; a shell that starts a command in the
background has it ignore Ctrl-C, which would leave no way to stop it in order. Nothing heavy is imported here: it
comes before everything else.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

INTERRUPTED = 130
"""Exit code of Ctrl-C, as shells have it: 128 + SIGINT."""
SAID = (
    "interrupted: give the same command again. 'simulate', 'demo', 'evaluate --out' and 'audit run' (as the same audit,"
    " which counts once) go on from what is done; every other begins again"
)
"""True of every command that works until it is done."""

_line: list[str | Callable[[], str]] = [SAID]
"""What is said of an interrupt now, or finds it out then."""
_asked: list[int] = []
"""Signals that interrupted a command."""


def end_at_once() -> None:
    """Before there is a command: a signal says its line and ends the process, whatever is being imported."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.stderr.write(f"{SAID}\n")
        sys.stderr.flush()
        os._exit(INTERRUPTED)

    _on_signals(end)


def interrupt_the_command() -> None:
    """While a command runs: a signal raises KeyboardInterrupt, so that the command tidies up, and is remembered."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        _asked.append(number)
        raise KeyboardInterrupt

    _on_signals(interrupt)
    # Registered first, so called last: the interpreter's own end takes handlers away, and a signal would kill it.
    atexit.register(_on_signals, signal.SIG_IGN)


def say_when_interrupted(line: str | Callable[[], str]) -> None:
    """For a command that stays until it is stopped: what its interrupt says from now on instead of :data:`SAID`.

    Not told by an exception: a library that is interrupted, and typer too, may raise another in its place.

    Args:
        line: What ended with it, what goes on, and how it is started again; or what finds that out once it is asked.
    """
    _line[:] = [line]


def said_of_interrupt() -> str:
    """What the command that was interrupted is to say; :data:`SAID` where it cannot be found out, or not in time."""
    try:
        return _line[0] if isinstance(_line[0], str) else _line[0]()
    except (Exception, KeyboardInterrupt):
        return SAID


def was_interrupted() -> bool:
    """Whether a signal interrupted the command.

    A library that is interrupted while it is imported may fail with an error of its own, and not with the interrupt.
    """
    return bool(_asked)


def end_with(code: int) -> None:
    """After the command: a signal ends the process with the command's own exit code, and nothing more is said."""
    _on_signals(lambda number, frame: os._exit(code))


def _on_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
