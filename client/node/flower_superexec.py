"""``python -I -m fedphantom.client.node.flower_superexec SITE ARGUMENT...``: Flower's SuperExec, tasks start at once.

For every round Flower starts a process that loads Flower and torch: three seconds of a core before it has read the
round's message. Here a process that has loaded them waits beside the SuperExec and divides itself (fork). Each task is
still a process of its own, which begins as loading left it and ends with its round. SITE is the site's folder, and the
task is then the site's own launcher; where it is empty, as in a simulation, the task is Flower's ``flwr-clientapp``.

One name in Flower is replaced (:mod:`...common.flower_names`). Where that one is not known, where the waiting process
has ended, and where the installed package has changed since it was loaded, Flower starts ``flwr-clientapp`` by its PATH
as ever: rounds then take longer, and are the same.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NoReturn

import numpy as np

from ...common.flower_names import replace_names
from ...common.flower_programs import CLIENTAPP
from ...common.installed_code import installed_code_digest

_MODULE = "flwr.supercore.superexec.executor.subprocess_executor"
_LAUNCHING = "subprocess.Popen("
_LOADED = (
    "httpcore",
    "flwr.supernode.cli",
    "flwr.supernode.runtime.run_clientapp",
    "fedphantom.client.app",
    "fedphantom.client.local_training",
    "fedphantom.client.node.launcher",
    "fedphantom.client.node.permission",
)
"""What every round needs; none may start a thread of Python's or touch a GPU by being loaded."""

_BEGUN = b"."
_LONGEST_REQUEST = 1 << 16

DIVIDED_S = 120.0
"""How long a task may take to begin, the loading before the first included, before who waits for it counts as lost."""


class WaitingProcess:
    """A process that has loaded what a task needs; it ends when the channel to it closes."""

    def __init__(self, channel: socket.socket, pid: int) -> None:
        self._channel, self._pid = channel, pid
        channel.settimeout(DIVIDED_S)

    def start(self, arguments: Sequence[str]) -> bool:
        """Let it divide itself into a task with these arguments; False where it has ended, or does not answer."""
        try:
            self._channel.sendall(json.dumps(arguments).encode() + b"\n")
            if self._channel.recv(1) == _BEGUN:
                return True
        except OSError:
            pass
        self._forget()
        return False

    def _forget(self) -> None:
        """End it, if it has not ended: from here on tasks are loaded one by one."""
        self._channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
            print(
                "the process that waits for tasks is lost; each task is loaded by itself", file=sys.stderr, flush=True
            )

    @classmethod
    def beside(cls, run: Callable[[Sequence[str]], object], code: str) -> WaitingProcess:
        """Begin one, from a process that has no thread yet. In a task's process this does not return.

        Args:
            run: What a task does with its arguments.
            code: The installed package's digest before anything of it was loaded for a task.
        """
        ours, theirs = socket.socketpair()
        if pid := os.fork():
            theirs.close()
            return cls(ours, pid)
        ours.close()
        # Ctrl-C at a terminal is the SuperExec's to answer: the channel's end tells of it here.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system forgets tasks that have ended
        for name in _LOADED:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # what is loaded stays: a task that looked through it for garbage would copy every page of it
        with theirs, theirs.makefile("rb") as requests:
            arguments = _divided(requests, theirs)
        if arguments is None:
            os._exit(0)
        if installed_code_digest() != code:
            # What was approved is what lies on disk now, not what was loaded.
            os.execvp(CLIENTAPP, [CLIENTAPP, *arguments])  # noqa: S606  # no shell; the site's launcher stands first on PATH
        _end(_code_of(run, arguments))


def _code_of(run: Callable[[Sequence[str]], object], arguments: Sequence[str]) -> int:
    """What a task's process ends with, as Python would have it."""
    try:
        run(arguments)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """End a task's process without taking apart what was loaded, which would copy every page of it: a core's second."""
    threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does: pools of threads end, others are joined
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _divided(requests: IO[bytes], answers: socket.socket) -> list[str] | None:
    """In the waiting process, None once the channel is closed; in every task's, its arguments."""
    while (line := requests.readline(_LONGEST_REQUEST)).endswith(b"\n"):
        if os.fork():
            answers.sendall(_BEGUN)
            continue
        # Python's own generator draws anew after a fork; NumPy's would give every task the same.
        np.random.seed()  # noqa: NPY002  # the global one, whoever uses it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # Linux alone; for those who look at what runs
            Path("/proc/self/comm").write_text(CLIENTAPP, encoding="ascii")
        return list(map(str, json.loads(line)))
    return None


def task_of(site: str) -> Callable[[Sequence[str]], object]:
    """What a task does with what Flower gives ``flwr-clientapp``."""

    def guarded(arguments: Sequence[str]) -> None:
        from .launcher import main as launch

        sys.exit(launch([site, *arguments]))

    def flowers_own(arguments: Sequence[str]) -> None:
        from flwr.supernode.cli import flwr_clientapp

        sys.argv = [CLIENTAPP, *arguments]
        flwr_clientapp()

    return guarded if site else flowers_own


def start_at_once(waiting: WaitingProcess) -> bool:
    """Let Flower start its tasks so; False where this Flower is not known, and nothing is replaced."""

    def popen(command: Sequence[str], **options: Any) -> object:
        if command[0] == CLIENTAPP and not options and waiting.start(command[1:]):
            return None
        return subprocess.Popen(command, **options)  # noqa: S603  # Flower's own list of arguments, no shell

    stand_in = SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL)
    return replace_names(_MODULE, (_LAUNCHING,), {"subprocess": stand_in})


def main(arguments: Sequence[str]) -> None:
    """Be ``flower-superexec``; returns when it does, or exits with its code."""
    site, *given = arguments
    waiting = WaitingProcess.beside(task_of(site), installed_code_digest())
    from flwr.supercore.cli import flower_superexec

    start_at_once(waiting)
    sys.argv = ["flower-superexec", *given]
    flower_superexec()


if __name__ == "__main__":
    main(sys.argv[1:])
