"""``python -I -m fedphantom.client.node.flower_node ARGUMENT...``: Flower's SuperNode, which asks more often.

Flower's own asks its SuperLink for a message every three seconds, and its ClientApp for a reply every half: of a round
of two sites that is more than two seconds of waiting. Both pauses are arguments of one ``sleep`` that Flower has no
option for, so the name ``time`` of that one module is replaced, where it is what it is in flwr 1.41. Elsewhere nothing
is replaced: rounds then take longer, and are the same.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import time
from collections.abc import Sequence
from types import SimpleNamespace

_MODULE = "flwr.supernode.start_client_internal"
_ASKING = "time.sleep(3)"

ASK_S = 1.0
"""Between two questions for a message; sixty sites ask the SuperLink sixty times a second."""

REPLY_S = 0.1
"""Between two looks for a reply, in the node's own memory."""


def ask_more_often() -> bool:
    """Replace Flower's pauses; False where this Flower is not known, and nothing is replaced."""
    try:
        module = importlib.import_module(_MODULE)
        known = getattr(module, "time", None) is time and _ASKING in inspect.getsource(module)
    except (ImportError, OSError):
        return False
    if known:
        names = {name: value for name, value in vars(time).items() if not name.startswith("_")}
        vars(module)["time"] = SimpleNamespace(**{**names, "sleep": _sleep})
    return known


def _sleep(seconds: float) -> None:
    time.sleep(min(seconds, ASK_S if seconds > 1 else REPLY_S))


def main(arguments: Sequence[str]) -> None:
    """Be ``flower-supernode``; returns when it does, or exits with its code."""
    from flwr.supernode.cli import flower_supernode

    ask_more_often()
    sys.argv = ["flower-supernode", *arguments]
    flower_supernode()


if __name__ == "__main__":
    main(sys.argv[1:])
