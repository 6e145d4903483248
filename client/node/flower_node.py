"""``python -I -m fedphantom.client.node.flower_node ARGUMENT...``: Flower's SuperNode, which asks more often.

Flower's own asks its SuperLink for a message every three seconds, and its ClientApp for a reply every half: of a round
of two sites that is more than two seconds of waiting. Nor does it notice that its SuperExec has ended: it would take
messages in for ever and answer none, where ending lets whoever keeps it start both again. The pauses are arguments of
one ``sleep`` that Flower has no option for, and the SuperExec is started by one ``Popen``, so the names ``time`` and
``subprocess`` of that one module are replaced (:mod:`...common.flower_names`). Elsewhere nothing is replaced: rounds
then take longer, and are the same.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from types import SimpleNamespace

from ...common.flower_names import replace_names

_MODULE = "flwr.supernode.start_client_internal"
_ASKING = "time.sleep(3)"
_STARTING = "subprocess.Popen(command)"

ASK_S = 1.0
"""Between two questions for a message; sixty sites ask the SuperLink sixty times a second."""

ASK_AGAIN_S = 0.25
"""The same soon after a reply: a sum's four messages follow one upon the other, and sites wait for the last of them."""

SOON_S = 10.0
"""How long after a reply that is."""

REPLY_S = 0.1
"""Between two looks for a reply, in the node's own memory."""


def adapt() -> bool:
    """Shorten Flower's pauses, and end with its SuperExec; False where this Flower is unknown: nothing is replaced."""
    started: list[subprocess.Popen[bytes]] = []

    def popen(command: Sequence[str]) -> None:
        started.append(subprocess.Popen(command))  # noqa: S603  # Flower's own list of arguments, no shell

    pauses = _Pauses(started)
    public = {name: value for name, value in vars(time).items() if not name.startswith("_")}
    return replace_names(
        _MODULE,
        (_ASKING, _STARTING),
        {
            "time": SimpleNamespace(**{**public, "sleep": pauses.sleep}),
            "subprocess": SimpleNamespace(Popen=popen),
        },
    )


class _Pauses:
    """What stands for ``time.sleep``: Flower sleeps three seconds for a message, and half of one for a reply."""

    def __init__(self, started: Sequence[subprocess.Popen[bytes]]) -> None:
        self._started = started
        self._last_reply = -math.inf

    def sleep(self, seconds: float) -> None:
        for process in self._started:
            if (code := process.poll()) is not None:
                print(f"the SuperExec ended with code {code}: its SuperNode ends with it", file=sys.stderr, flush=True)
                signal.raise_signal(signal.SIGTERM)  # Flower's own way to end, by which its SuperLink is told
        now = time.monotonic()
        if seconds <= 1:
            self._last_reply, longest = now, REPLY_S
        else:
            longest = ASK_AGAIN_S if now - self._last_reply < SOON_S else ASK_S
        time.sleep(min(seconds, longest))


def main(arguments: Sequence[str]) -> None:
    """Be ``flower-supernode``; returns when it does, or exits with its code; ends the process where it fails.

    What fails in Flower's main thread, a TLS handshake that did not come off among it, would leave a process behind
    that waits for a thread of Flower's for ever, and is alive for whoever keeps it.
    """
    from flwr.supernode.cli import flower_supernode

    adapt()
    sys.argv = ["flower-supernode", *arguments]
    try:
        flower_supernode()
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
