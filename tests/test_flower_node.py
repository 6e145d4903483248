"""Flower's SuperNode, asking more often: its pauses are shorter where this Flower is known, and its own elsewhere.

It ends where its SuperExec has ended.
"""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import flwr.supernode.start_client_internal as flower
import pytest

from fedphantom.client.node import flower_node
from fedphantom.common.flower_programs import free_ports


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds asked for of the real clock; nobody waits."""
    seconds: list[float] = []
    monkeypatch.setattr(flower, "time", time)  # put back afterwards
    monkeypatch.setattr(flower, "subprocess", subprocess)
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def test_a_message_is_asked_for_every_second_and_a_reply_looked_for_every_tenth(slept: list[float]) -> None:
    assert flower_node.adapt()
    flower.time.sleep(3)
    flower.time.sleep(0.5)
    assert slept == [1.0, 0.1]


def test_the_next_message_is_asked_for_four_times_a_second_for_ten_seconds_after_a_reply(
    slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = [1000.0, 1000.0, 1009.9, 1010.0]
    monkeypatch.setattr(time, "monotonic", lambda: moments.pop(0))
    assert flower_node.adapt()
    flower.time.sleep(0.5)
    for _ in range(3):
        flower.time.sleep(3)
    assert slept == [0.1, 0.25, 0.25, 1.0]


def test_no_pause_grows(slept: list[float]) -> None:
    assert flower_node.adapt()
    flower.time.sleep(0.01)
    assert slept == [0.01]


def test_flower_pauses_nowhere_else_in_that_module(slept: list[float]) -> None:
    source = inspect.getsource(flower)
    assert set(re.findall(r"\btime\.(\w+)", source)) == {"sleep"}
    assert source.count("time.sleep(") == source.count("time.sleep(3)") + source.count("time.sleep(0.5)") == 3


def test_a_flower_with_another_pause_is_left_as_it_is(slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower_node, "_ASKING", "time.sleep(4)")
    assert not flower_node.adapt()
    assert flower.time is time


def test_a_flower_that_starts_its_superexec_otherwise_is_left_as_it_is(
    slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower_node, "_STARTING", "os.spawnv(command)")
    assert not flower_node.adapt()
    assert flower.subprocess is subprocess


def test_flower_starts_nothing_else_in_that_module(slept: list[float]) -> None:
    source = inspect.getsource(flower)
    assert re.findall(r"\bsubprocess\.(\w+)\(", source) == ["Popen"]


def test_a_node_whose_superexec_has_ended_ends_itself(
    slept: list[float], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    signals: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", signals.append)
    assert flower_node.adapt()
    gate = os.pipe()
    waits = "import os, sys; os.read(int(sys.argv[1]), 1); sys.exit(7)"
    os.set_inheritable(gate[0], True)
    monkeypatch.setattr(subprocess, "Popen", partial(subprocess.Popen, pass_fds=[gate[0]]))
    flower.subprocess.Popen([sys.executable, "-c", waits, str(gate[0])])
    flower.time.sleep(3)
    assert not signals
    os.write(gate[1], b"x")
    deadline = time.monotonic() + 60
    while not signals and time.monotonic() < deadline:
        flower.time.sleep(3)
    assert set(signals) == {signal.SIGTERM}
    assert "the SuperExec ended with code 7: its SuperNode ends with it" in capfd.readouterr().err


def test_a_flower_without_that_module_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower_node, "_MODULE", "flwr.nowhere")
    assert not flower_node.adapt()


def test_the_program_is_flowers_own_with_its_own_arguments() -> None:
    command = [sys.executable, "-I", "-m", "fedphantom.client.node.flower_node", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert told.startswith("usage: flower-supernode ")
    assert "--auth-supernode-private-key" in told


def test_a_node_that_fails_in_flower_ends_instead_of_waiting_for_ever(tmp_path: Path) -> None:
    """No SuperExec on its PATH: Flower's main thread raises while another of its threads goes on."""
    command = [sys.executable, "-I", "-m", "fedphantom.client.node.flower_node"]
    arguments = ["--insecure", "--superlink", "127.0.0.1:9", "--host", "127.0.0.1", "--port", str(free_ports(1)[0])]
    environment = {"PATH": str(tmp_path), "FLWR_HOME": str(tmp_path), "FLWR_TELEMETRY_ENABLED": "0"}
    ended = subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "FileNotFoundError" in ended.stderr
