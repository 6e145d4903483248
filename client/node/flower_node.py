"""``python -I -m fedphantom.client.node.flower_node SECONDS ARGUMENT...``: Flower's SuperNode, which asks more often.

Flower's own asks its SuperLink for a message every three seconds, and its ClientApp for a reply every half: of a round
of two sites that is more than two seconds of waiting. Nor does it notice that its SuperExec has ended: it would take
messages in for ever and answer none, where ending lets whoever keeps it start both again. The pauses are arguments of
one ``sleep`` that Flower has no option for, and the SuperExec is started by one ``Popen``, so the names ``time`` and
``subprocess`` of that one module are replaced, where it is what it is in flwr 1.41. Elsewhere nothing is replaced:
rounds then take longer, and are the same.
"""

from __future__ import annotations

import importlib
import inspect
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace

_MODULE = "flwr.supernode.start_client_internal"
_ASKING = "time.sleep(3)"
_STARTING = "subprocess.Popen(command)"

REPLY_S = 0.1
"""Between two looks for a reply, in the node's own memory."""


def adapt(ask_s: float) -> bool:
    """Shorten Flower's pauses, that between two questions to ``ask_s``, and end with its SuperExec.

    False where this Flower is not known, and nothing is replaced.
    """
    try:
        module = importlib.import_module(_MODULE)
        source = inspect.getsource(module)
    except (ImportError, OSError):
        return False
    names = vars(module)
    known = names.get("time") is time and names.get("subprocess") is subprocess
    if known := known and _ASKING in source and _STARTING in source:
        started: list[subprocess.Popen[bytes]] = []

        def popen(command: Sequence[str]) -> None:
            started.append(subprocess.Popen(command))  # noqa: S603  # Flower's own list of arguments, no shell

        names["subprocess"] = SimpleNamespace(Popen=popen)
        public = {name: value for name, value in vars(time).items() if not name.startswith("_")}
        names["time"] = SimpleNamespace(**{**public, "sleep": partial(_sleep, started, ask_s)})
    return known


def _sleep(started: Sequence[subprocess.Popen[bytes]], ask_s: float, seconds: float) -> None:
    for process in started:
        if (code := process.poll()) is not None:
            print(f"the SuperExec ended with code {code}: its SuperNode ends with it", file=sys.stderr, flush=True)
            signal.raise_signal(signal.SIGTERM)  # Flower's own way to end, by which its SuperLink is told
    time.sleep(min(seconds, ask_s if seconds > 1 else REPLY_S))


def main(arguments: Sequence[str]) -> None:
    """Be ``flower-supernode``; returns when it does, or exits with its code."""
    from flwr.supernode.cli import flower_supernode

    ask_s, *given = arguments
    adapt(float(ask_s))
    sys.argv = ["flower-supernode", *given]
    flower_supernode()


if __name__ == "__main__":
    main(sys.argv[1:])
