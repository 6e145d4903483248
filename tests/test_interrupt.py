"""A command that is stopped while networks train ends with 130, and not with an abort of the interpreter."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from carried_rounds import Carried

from fedphantom import cli
from fedphantom.common import study
from fedphantom.server.coordinator import running, serving

SCRIPT = Path(__file__).parent / "fakes" / "stopped_training.py"


def test_ctrl_c_while_threads_train_ends_with_130_and_what_was_said_is_out() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stdout == "stopped\n"
    assert done.stderr == ""


_STARTED = """
import sys
from fedphantom.__main__ import end_at_once, main
end_at_once()
print("started", flush=True)
main()
"""


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.12, 0.25, 0.6, 1.2])
@pytest.mark.parametrize("line", [["generate", "absent", "out", "--sample", "1"], ["--help"]], ids=" ".join)
def test_ctrl_c_at_any_early_moment_is_130_or_done_and_never_a_traceback(
    line: list[str], delay: float, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _STARTED, *line], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    done = 0 if line == ["--help"] else 3  # the path is wrong
    assert process.returncode in (130, done), err
    assert "Traceback" not in err
    if process.returncode == 130:
        assert err.startswith("interrupted: ")
        assert err.count("\n") == 1
        assert "'audit run' (as the same audit, which counts once) go on" in err


def test_an_error_that_an_interrupt_became_is_told_as_the_interrupt() -> None:
    done = subprocess.run([sys.executable, "-c", _DISGUISED], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("interrupted: ")


@pytest.mark.parametrize(
    ("command", "module", "works", "words"),
    [
        ("start", serving, "serve", ("no site reaches this coordinator", "'fedphantom server start {}'")),
        ("run", running, "run_study", ("this command alone", "goes on", "'fedphantom server stop {}' ends it")),
        ("resume", running, "run_study", ("this command alone", "goes on", "'fedphantom server stop {}' ends it")),
    ],
)
def test_what_the_coordinator_stops_says_what_goes_on_and_what_does_not(
    command: str,
    module: ModuleType,
    works: str,
    words: tuple[str, ...],
    carried: Carried,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, works, interrupted)
    assert cli.run(["server", command, str(carried.lead)]) == 130
    *before, said = capsys.readouterr().err.splitlines()
    assert said.startswith("stopped: ")
    assert before in ([], ["rounds ..."])
    assert all(word.format(carried.lead) in said for word in (*words, "'fedphantom server resume {}'"))
    monkeypatch.setattr(study, "read_study", interrupted)
    assert cli.run(["study", "check", "absent.toml"]) == 130
    assert capsys.readouterr().err.startswith("interrupted: ")  # of the next command nothing of it is said


_DISGUISED = """
import os, signal, sys
from fedphantom import cli
from fedphantom.common import study

def read_study(path):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise RecursionError from None

study.read_study = read_study
sys.argv = ["fedphantom", "study", "check", "study.toml"]
cli.main()
"""
