"""How long ``--help`` takes, in real processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import click
import typer
from measure import Row

from fedphantom.cli import app

REPEATS = 3


def help_rows() -> list[Row]:
    """``help_seconds``: the slowest command's best time of three, and which Python alone takes."""
    best = {path: min(_seconds([*path, "--help"]) for _ in range(REPEATS)) for path in _commands()}
    python = min(_elapsed([sys.executable, "-c", "pass"]) for _ in range(REPEATS))
    return [Row("help_seconds", max(best.values()), "s", python, 1.0)]


def _commands() -> Iterator[tuple[str, ...]]:
    def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        if isinstance(command, click.Group):
            for name, sub in command.commands.items():
                yield from walk(sub, (*path, name))

    return walk(typer.main.get_command(app), ())


def _seconds(arguments: list[str]) -> float:
    return _elapsed([sys.executable, "-m", "fedphantom", *arguments])


def _elapsed(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started
