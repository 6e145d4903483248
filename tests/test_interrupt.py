"""A command that is stopped while networks train ends with 130, and not with an abort of the interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "fakes" / "stopped_training.py"


def test_ctrl_c_while_threads_train_ends_with_130_and_what_was_said_is_out() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stdout == "stopped\n"
    assert done.stderr == ""
