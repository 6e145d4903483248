"""How a status is shown: once, or drawn again and again until Ctrl-C ends it with its code, 130."""

from __future__ import annotations

import time
from collections.abc import Callable

import typer

from .interrupt import say_when_interrupted

AGAIN_S = 3.0
"""Seconds between two looks."""
STOPPED = "stopped: the watching alone; what was watched goes on as it was"


def show_status(look: Callable[[], str], *, watch: bool) -> None:
    """Print what is found; with ``watch`` in the place of what was printed before, where there is a terminal."""
    if watch:
        say_when_interrupted(STOPPED)
    while True:
        found = look()
        if watch:
            typer.clear()
        typer.echo(found)
        if not watch:
            return
        time.sleep(AGAIN_S)
