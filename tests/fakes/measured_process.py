"""Python in a process of its own, and how much memory it ever held: a peak is that of all a process ever did."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_TELL_PEAK = """
import atexit, sys
from pathlib import Path

def tell():
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")), file=sys.stderr)

atexit.register(tell)
"""


def measured(code: str, *arguments: str | Path) -> tuple[str, float]:
    """Run a program; what it printed, and its largest resident set in MB."""
    command = [sys.executable, "-c", _TELL_PEAK + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, int(done.stderr.splitlines()[-1]) * 1024 / 1e6


def fedphantom(*arguments: str | Path) -> tuple[str, float]:
    """Run a command likewise."""
    return measured("from fedphantom.cli import run\nsys.exit(run(sys.argv[1:]))", *arguments)
