"""Trainings side by side: every result once, under its own index; one thread each; the first failure ends it."""

from __future__ import annotations

import os
import threading
import time

import pytest
import torch

from fedphantom.common.parallel import in_order, side_by_side, usable_cores


def test_every_task_answers_under_its_own_index() -> None:
    tasks = [lambda i=i: i * i for i in range(20)]
    assert sorted(side_by_side(tasks, workers=3)) == [(i, i * i) for i in range(20)]


def test_results_come_as_they_end_not_as_they_were_given() -> None:
    first_may_end = threading.Event()

    def slow() -> str:
        first_may_end.wait(10)
        return "slow"

    results = side_by_side([slow, lambda: "quick"], workers=2)
    assert next(results) == (1, "quick")
    first_may_end.set()
    assert list(results) == [(0, "slow")]


def test_results_in_order_wait_for_those_before_them() -> None:
    first_may_end = threading.Event()

    def slow() -> str:
        assert first_may_end.wait(10)
        return "slow"

    def quick() -> str:
        first_may_end.set()
        return "quick"

    assert list(in_order([slow, quick, lambda: "last"], workers=2)) == ["slow", "quick", "last"]


def test_one_worker_runs_tasks_in_order() -> None:
    order: list[int] = []
    assert list(side_by_side([lambda i=i: order.append(i) for i in range(5)], workers=1)) == [
        (i, None) for i in range(5)
    ]
    assert order == list(range(5))


def test_a_tasks_exception_reaches_the_caller_itself() -> None:
    failure = ValueError("the task's own")

    def fail() -> None:
        raise failure

    with pytest.raises(ValueError, match="own") as caught:
        list(side_by_side([lambda: None, fail], workers=1))
    assert caught.value is failure


def test_after_a_failure_nothing_new_is_begun() -> None:
    begun: list[int] = []
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise ValueError("the task's own")

    def waits() -> None:
        begun.append(0)
        failed.wait(10)
        time.sleep(0.2)  # the caller learns of the failure meanwhile

    with pytest.raises(ValueError, match="own"):
        list(side_by_side([waits, fail, *[lambda i=i: begun.append(i) for i in range(1, 5)]], workers=2))
    time.sleep(0.5)
    assert begun == [0]


def test_ctrl_c_in_a_task_is_handed_on_too() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(side_by_side([interrupted]))


def test_each_task_has_one_torch_thread_and_the_caller_keeps_its_own() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert [n for _, n in side_by_side([torch.get_num_threads] * 4, workers=2)] == [1] * 4
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_no_more_run_at_once_than_there_are_workers() -> None:
    lock, running, most = threading.Lock(), 0, 0
    both = threading.Barrier(2, timeout=10)

    def task() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait()
        with lock:
            running -= 1

    list(side_by_side([task] * 6, workers=2))
    assert most == 2


def test_nothing_to_do_is_done_at_once() -> None:
    assert list(side_by_side([])) == []


def test_workers_do_not_keep_the_program_alive() -> None:
    assert [daemon for _, daemon in side_by_side([lambda: threading.current_thread().daemon])] == [True]


def test_usable_cores_are_those_this_process_may_use() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
