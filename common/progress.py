"""Progress bars with the time left, on stderr, and only where a person watches."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Report = Callable[[int, int], None]
"""(done, in all)."""


@contextlib.contextmanager
def progress_bar(description: str) -> Iterator[Report]:
    """Yield a function that takes (done, total). Without a terminal on stderr it does nothing."""
    with _bars(transient=True) as start:
        yield start(description)


@contextlib.contextmanager
def stages() -> Iterator[Callable[[str], Report]]:
    """Yield a function that begins a named stage and returns its :data:`Report`; the stage before it is over then.

    Without a terminal on stderr each stage is named there once, so that a log shows how far it came.
    """
    with _bars(transient=False) as start:

        def begin(name: str) -> Report:
            if not sys.stderr.isatty():
                print(f"{name} ...", file=sys.stderr, flush=True)
            return start(name)

        yield begin


@contextlib.contextmanager
def _bars(*, transient: bool) -> Iterator[Callable[[str], Report]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *times)
    with Progress(*columns, console=console, transient=transient, disable=not console.is_terminal) as progress:

        def start(name: str) -> Report:
            for earlier in progress.tasks:
                progress.update(earlier.id, total=earlier.total or 1, completed=earlier.total or 1)
                progress.stop_task(earlier.id)
            task = progress.add_task(name, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield start
