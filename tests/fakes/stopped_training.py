"""``python stopped_training.py``: trainings side by side that a signal stops, as Ctrl-C stops a command."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence

import torch

from fedphantom import cli
from fedphantom.common.parallel import side_by_side


def train() -> None:
    network, scans = torch.nn.Conv3d(4, 4, 3, padding=1), torch.randn(1, 4, 12, 12, 12)
    while True:
        network(scans).sum().backward()


def stop() -> None:
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGINT)


def run(_: Sequence[str]) -> int:
    threading.Thread(target=stop, daemon=True).start()
    try:
        list(side_by_side([train] * 4, workers=4))
    except KeyboardInterrupt:
        print("stopped", flush=False)
    return 130


if __name__ == "__main__":
    cli.run = run
    cli.main()
