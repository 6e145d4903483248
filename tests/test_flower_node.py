"""Flower's SuperNode, asking more often: its pauses are shorter where this Flower is known, and its own elsewhere."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import time

import flwr.supernode.start_client_internal as flower
import pytest

from fedphantom.client.node import flower_node


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds asked for of the real clock; nobody waits."""
    seconds: list[float] = []
    monkeypatch.setattr(flower, "time", time)  # put back afterwards
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def test_a_message_is_asked_for_every_second_and_a_reply_looked_for_every_tenth(slept: list[float]) -> None:
    assert flower_node.ask_more_often()
    flower.time.sleep(3)
    flower.time.sleep(0.5)
    assert slept == [1.0, 0.1]


def test_no_pause_grows(slept: list[float]) -> None:
    assert flower_node.ask_more_often()
    flower.time.sleep(0.01)
    assert slept == [0.01]


def test_flower_pauses_nowhere_else_in_that_module(slept: list[float]) -> None:
    source = inspect.getsource(flower)
    assert set(re.findall(r"\btime\.(\w+)", source)) == {"sleep"}
    assert source.count("time.sleep(") == source.count("time.sleep(3)") + source.count("time.sleep(0.5)") == 3


def test_a_flower_with_another_pause_is_left_as_it_is(slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower_node, "_ASKING", "time.sleep(4)")
    assert not flower_node.ask_more_often()
    assert flower.time is time


def test_a_flower_without_that_module_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower_node, "_MODULE", "flwr.nowhere")
    assert not flower_node.ask_more_often()


def test_the_program_is_flowers_own_with_its_own_arguments() -> None:
    command = [sys.executable, "-I", "-m", "fedphantom.client.node.flower_node", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert told.startswith("usage: flower-supernode ")
    assert "--auth-supernode-private-key" in told
