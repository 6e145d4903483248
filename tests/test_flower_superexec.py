"""Flower's SuperExec with tasks that start at once: a process that has loaded what they need divides itself.

Everything happens in processes of their own: a test's own has threads, and must not divide itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import flwr.supercore.superexec.executor.subprocess_executor as flower
import pytest
from flwr.supercore.superexec.executor import ExecutionSpec, SubprocessExecutor

from fedphantom.client.node import flower_superexec
from fedphantom.client.node.flower_superexec import WaitingProcess, start_at_once
from fedphantom.client.node.supernode import SuperNode

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sites' nodes run on Linux")

_TELLING = """
import json, os, random, signal, socket, sys, threading, time
from pathlib import Path
from fedphantom.client.node import flower_superexec
from fedphantom.client.node.flower_superexec import WaitingProcess
from fedphantom.common.installed_code import installed_code_digest

def told(arguments):
    import numpy, torch
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    key = X25519PrivateKey.generate()
    facts = {
        "arguments": arguments,
        "pid": os.getpid(),
        "began": time.monotonic(),
        "threads_before": len(os.listdir(f"/proc/{os.getppid()}/task")),
        "gpu_before": torch.cuda._is_in_bad_fork(),
        "comm": Path("/proc/self/comm").read_text().strip(),
        "interrupts": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "children": signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL,
        "chance": [random.random(), numpy.random.random(), numpy.random.default_rng().random()],
        "key": key.private_bytes_raw().hex(),
    }
    path = Path(arguments[0])
    path.with_suffix(".part").write_text(json.dumps(facts))
    path.with_suffix(".part").rename(path)
    sys.exit(3)
"""


def said_by(code: str, *arguments: str | Path, environment: dict[str, str] | None = None) -> str:
    """What a Python process that tells of its tasks prints."""
    command = [sys.executable, "-c", _TELLING + textwrap.dedent(code), *map(str, arguments)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=surroundings).stdout


def told(path: Path) -> dict[str, Any]:
    """What a task wrote, once it has."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"no task wrote {path.name}"
        time.sleep(0.02)
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def test_every_task_is_a_process_of_its_own_that_begins_as_loading_left_it(tmp_path: Path) -> None:
    said = json.loads(
        said_by(
            """
            waiting = WaitingProcess.beside(told, installed_code_digest())
            first, second = sys.argv[1:]
            assert waiting.start([first, "--token", "a b"])
            while not Path(first).exists():
                time.sleep(0.01)
            asked = time.monotonic()
            assert waiting.start([second])
            while not Path(second).exists():
                time.sleep(0.01)
            print(json.dumps({"pid": os.getpid(), "asked": asked}))
            """,
            tmp_path / "first",
            tmp_path / "second",
        )
    )
    first, second = told(tmp_path / "first"), told(tmp_path / "second")
    assert first["arguments"] == [str(tmp_path / "first"), "--token", "a b"]
    assert second["arguments"] == [str(tmp_path / "second")]
    assert len({said["pid"], first["pid"], second["pid"]}) == 3
    # Loading torch and Flower takes seconds; a process that has loaded them divides itself within a moment.
    assert second["began"] - said["asked"] < 1.0
    for task in (first, second):
        # But for pools of libraries, which their own handlers end and begin anew, and which are switched off here.
        assert task["threads_before"] == 1
        assert not task["gpu_before"]
        assert task["comm"] == "flwr-clientapp"
        assert task["interrupts"]
        assert task["children"]
    assert not set(first["chance"]) & set(second["chance"])
    assert first["key"] != second["key"]


@pytest.mark.parametrize(
    ("ends", "code", "says"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(4)", 4, ""),
        ("sys.exit('no way')", 1, "no way\n"),
        ("raise ValueError('odd')", 1, "ValueError: odd\n"),
    ],
)
def test_a_task_ends_as_python_would_end_it_after_its_threads_and_its_last_words(
    tmp_path: Path, ends: str, code: int, says: str
) -> None:
    script = f"""
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from fedphantom.client.node.flower_superexec import _code_of, _end

def late():
    time.sleep(0.3)
    Path({str(tmp_path / "late")!r}).touch()

def run(arguments):
    threading.Thread(target=late).start()
    ThreadPoolExecutor(1).submit(time.sleep, 0.1)
    print("said", end="")
    {ends}

_end(_code_of(run, []))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (code, "said")
    assert done.stderr.endswith(says)
    assert (tmp_path / "late").exists()


def test_it_ends_with_the_process_that_asks_and_is_not_asked_once_it_has_ended(tmp_path: Path) -> None:
    said_by(
        """
        waiting = WaitingProcess.beside(told, installed_code_digest())
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        Path(sys.argv[1]).write_text(children[0])
        """,
        tmp_path / "pid",
    )
    left = Path("/proc") / (tmp_path / "pid").read_text()
    deadline = time.monotonic() + 60
    while left.exists() and b"State:\tZ" not in (left / "status").read_bytes():
        assert time.monotonic() < deadline, "the waiting process outlives its SuperExec"
        time.sleep(0.05)

    said = said_by(
        """
        waiting = WaitingProcess.beside(told, installed_code_digest())
        (pid,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        os.kill(int(pid), signal.SIGKILL)
        print(waiting.start(["never"]), waiting.start(["never"]))
        """
    )
    assert said == "False False\n"


def test_one_that_hangs_is_ended_and_not_asked_again() -> None:
    said = said_by(
        """
        flower_superexec.DIVIDED_S = 0.5
        waiting = WaitingProcess.beside(told, installed_code_digest())
        (pid,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        os.kill(int(pid), signal.SIGSTOP)
        print(waiting.start(["never"]), Path(f"/proc/{pid}").exists(), waiting.start(["never"]))
        """
    )
    assert said == "False False False\n"


def test_one_that_ends_with_a_request_in_its_hands_leaves_the_task_to_be_started_otherwise() -> None:
    said = said_by(
        """
        flower_superexec._LOADED = ("json", "fedphantom_nowhere")
        waiting = WaitingProcess.beside(told, installed_code_digest())
        print(waiting.start(["never"]))
        """
    )
    assert said == "False\n"


def test_a_package_that_was_changed_since_is_started_anew(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "flwr-clientapp"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/anew.part; mv {tmp_path}/anew.part {tmp_path}/anew\n')
    program.chmod(0o755)
    said_by(
        """
        waiting = WaitingProcess.beside(told, "another digest")
        assert waiting.start(["--token", "t"])
        while not Path(sys.argv[1]).exists():
            time.sleep(0.01)
        """,
        tmp_path / "anew",
        environment={"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert (tmp_path / "anew").read_text() == "--token t\n"


class Recorded(WaitingProcess):
    """Told of tasks, and starts none."""

    def __init__(self, ended: bool = False) -> None:
        self.asked: list[list[str]] = []
        self._ended = ended

    def start(self, arguments: Any) -> bool:
        self.asked.append(list(arguments))
        return not self._ended


def task(kind: str) -> ExecutionSpec:
    return ExecutionSpec(
        task_type=flower.TaskType(kind),
        runtime_api_address="127.0.0.1:9",
        token="t",  # noqa: S106  # nobody's
        insecure=True,
        root_certificates_path=None,
        runtime_dependency_install=False,
        parent_pid=7,
        suppress_output=False,
        task_id=1,
    )


@pytest.fixture
def by_path(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Programs that Flower's executor started by its PATH."""
    started: list[str] = []
    monkeypatch.setattr(flower, "subprocess", subprocess)  # put back afterwards
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: started.append(command[0]))
    return started


def test_flower_asks_for_a_clients_task_and_starts_every_other_by_its_path(by_path: list[str]) -> None:
    waiting = Recorded()
    assert start_at_once(waiting)
    assert SubprocessExecutor().launch(task("flwr-clientapp")).status == "accepted"
    arguments = ["--runtime-api-address", "127.0.0.1:9", "--token", "t", "--insecure", "--parent-pid", "7"]
    assert (waiting.asked, by_path) == ([arguments], [])
    SubprocessExecutor().launch(task("flwr-serverapp"))
    assert (len(waiting.asked), by_path) == (1, ["flwr-serverapp"])


def test_once_nobody_waits_flower_starts_its_program_by_its_path(by_path: list[str]) -> None:
    assert start_at_once(Recorded(ended=True))
    SubprocessExecutor().launch(task("flwr-clientapp"))
    assert by_path == ["flwr-clientapp"]


@pytest.mark.parametrize(("name", "value"), [("_MODULE", "flwr.nowhere"), ("_LAUNCHING", "os.spawnv(")])
def test_an_unknown_flower_is_left_as_it_is(
    by_path: list[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setattr(flower_superexec, name, value)
    assert not start_at_once(Recorded())
    assert flower.subprocess is subprocess


def test_a_sites_node_finds_it_first_and_it_is_flowers_own_with_its_own_arguments(tmp_path: Path) -> None:
    place = tmp_path / "it's a node"
    node = SuperNode(place, tmp_path / "site", "127.0.0.1:9", authority=tmp_path, key=tmp_path, port=9)
    node.prepare()
    found = subprocess.run(
        ["flower-superexec", "--help"], capture_output=True, text=True, timeout=60, env=node.environment(), check=True
    )
    assert found.stdout.startswith("usage: flower-superexec ")
    assert "-I -m fedphantom.client.node.flower_superexec" in (node.programs / "flower-superexec").read_text()
    refused = subprocess.run(["flwr-agentapp", "--x"], capture_output=True, text=True, env=node.environment())
    assert (refused.returncode, refused.stderr) == (1, "this site starts no flwr-agentapp\n")
