"""Independent trainings side by side on the CPU's cores, each on one torch thread.

One thread a training makes the result independent of how many cores there are (sums of several threads differ in
the last bits), and two trainings beside each other are faster than one after the other on two threads each.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class _Outcome(Generic[T]):
    def __init__(self, index: int, value: T | None, error: BaseException | None) -> None:
        self.index, self.value, self.error = index, value, error


def side_by_side(tasks: Sequence[Callable[[], T]], workers: int | None = None) -> Iterator[tuple[int, T]]:
    """Run tasks on worker threads; yield (index, result) as each ends, in any order.

    The first task that raises ends the iteration with its exception; tasks not begun then never begin. Workers are
    daemons: a Ctrl-C in the caller ends the program at once, and what trains must survive a kill at any moment anyway.

    Args:
        tasks: Callables without arguments. torch releases the interpreter's lock while it computes.
        workers: Threads at once; one a core by default.
    """
    todo: queue.SimpleQueue[tuple[int, Callable[[], T]]] = queue.SimpleQueue()
    ended: queue.SimpleQueue[_Outcome[T]] = queue.SimpleQueue()
    for item in enumerate(tasks):
        todo.put(item)

    over = threading.Event()

    def work() -> None:
        torch.set_num_threads(1)  # OpenMP's setting is per thread
        while not over.is_set():
            try:
                index, task = todo.get_nowait()
            except queue.Empty:
                return
            try:
                ended.put(_Outcome(index, task(), None))
            except BaseException as error:  # handed to the caller, whatever it is
                ended.put(_Outcome(index, None, error))
                return

    for _ in range(min(len(tasks), workers or usable_cores())):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in tasks:
            outcome = ended.get()
            if outcome.error is not None:
                raise outcome.error
            yield outcome.index, outcome.value  # type: ignore[misc]  # a task without error has a value, None included
    finally:
        over.set()  # what has not begun shall not begin


def in_order(tasks: Sequence[Callable[[], T]], workers: int | None = None) -> Iterator[T]:
    """As :func:`side_by_side`, but the results alone, in the order of the tasks; those that came early wait."""
    early: dict[int, T] = {}
    due = 0
    for index, value in side_by_side(tasks, workers):
        early[index] = value
        while due in early:
            yield early.pop(due)
            due += 1


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
