"""The command line: every exit code, what a failure says and does not say, and help that answers at once."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fedphantom import __version__
from fedphantom.cli import run
from fedphantom.common import errors
from fedphantom.common.failure_report import report_failure
from fedphantom.common.journal import Journal
from fedphantom.common.study import parse_study

PATIENT = "sub-0042_Doe"


def start(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fedphantom", *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let every 'study check' end in this error."""

    def read_study(path: Path) -> NoReturn:
        raise error

    monkeypatch.setattr("fedphantom.common.study.read_study", read_study)


def every_error_of_ours() -> list[type[errors.FedPhantomError]]:
    return [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.FedPhantomError)]


# Exit codes (DESIGN §5).


def test_done_is_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "new", str(tmp_path / "study.toml")]) == 0
    assert run(["study", "show", "--json", str(tmp_path / "study.toml")]) == 0
    capsys.readouterr()
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"fedphantom {__version__}\n"


def test_an_unexpected_failure_is_1_and_tells_its_type_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, KeyError(PATIENT))
    assert run(["study", "check", "s.toml"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("unexpected failure: KeyError")
    assert said.err.count("\n") == 1
    assert PATIENT not in said.err


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_1_and_is_named_wherever_it_is_noticed(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, OSError(code, os.strerror(code), f"/data/{PATIENT}.nii.gz"))
    assert run(["study", "check", "s.toml"]) == 1
    said = capsys.readouterr().err
    assert "disk" in said
    assert "what to do: " in said
    assert PATIENT not in said


@pytest.mark.parametrize(
    "line",
    [
        ["study", "unheard-of"],
        ["study", "check"],
        ["study", "check", "a", "b"],
        ["--unheard-of"],
        ["generate", "generator", "out"],
        ["generate", "generator", "out", "--sample", "1", "--labels", "maps"],
        ["generate", "generator", "out", "--sample", "0"],
        ["simulate", "s.toml", "--site", "a=b", "--out", "o", "--engine", "steam"],
        ["study", "new", "s.toml", "--template", "unheard-of"],
    ],
    ids=" ".join,
)
def test_usage_is_2(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_bad_input_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights").write_bytes(b"no safetensors")
    study = tmp_path / "study.toml"
    run(["study", "new", str(study)])
    study.write_text(study.read_text().replace("rounds = 8", "rounds = 0"))
    lines = [
        ["study", "check", str(study)],
        ["study", "check", str(tmp_path / "absent.toml")],
        ["cohort", "check", str(tmp_path / "empty")],
        ["generate", str(tmp_path / "weights"), str(tmp_path / "out"), "--sample", "1"],
        ["simulate", str(study), "--site", "a=b", "--out", str(tmp_path / "out")],
    ]
    capsys.readouterr()
    for line in lines:
        assert run(line) == 3, line
        said = capsys.readouterr().err
        assert [part.split(":")[0].strip() for part in said.splitlines()] == ["error", "expected", "what to do"]
    assert not (tmp_path / "out").exists()


def test_the_key_that_is_wrong_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "study.toml"
    run(["study", "new", str(study)])
    study.write_text(study.read_text().replace("rounds = 8", "rounds = 0"))
    assert run(["study", "check", str(study)]) == 3
    assert "training.rounds" in capsys.readouterr().err


def test_refused_by_policy_is_4(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, errors.PolicyRefused("no audit", expected="one", remedy="Run one."))
    assert run(["study", "check", "s.toml"]) == 4


def test_a_broken_chain_is_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("round-done", round=1)
    journal.append("round-done", round=2)
    assert run(["journal", "verify", str(journal.path)]) == 0
    journal.path.write_bytes(journal.path.read_bytes().replace(b'"round":1', b'"round":3'))
    capsys.readouterr()
    assert run(["journal", "verify", str(journal.path)]) == 5
    assert "what to do: " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_journal_at_a_mistyped_path_is_3_and_one_that_was_removed_is_5(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert run(["journal", command, str(journal.path)]) == 3
    assert "JOURNAL: no journal 'journal.jsonl' at the path given" in capsys.readouterr().err
    journal.append("round-done", round=1)
    journal.path.unlink()
    assert run(["journal", command, str(journal.path)]) == 5


@pytest.mark.parametrize("head", ["", "abc", "g" * 64, "A" * 64, "0" * 65])
def test_a_head_that_is_no_hash_is_2(head: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("round-done", round=1)
    assert run(["journal", "verify", str(journal.path), "--head", head]) == 2


def test_interrupted_is_130_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert run(["study", "check", "s.toml"]) == 130
    said = capsys.readouterr().err
    assert "same command" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("kind", every_error_of_ours(), ids=lambda kind: kind.__name__)
def test_every_error_says_what_was_found_expected_and_to_do_and_ends_in_its_code(
    kind: type[errors.FedPhantomError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, kind("a found thing", expected="an expected thing", remedy="Do this."))
    assert run(["study", "check", "s.toml"]) == kind.exit_code
    said = capsys.readouterr().err
    assert all(part in said for part in ("a found thing", "an expected thing", "Do this."))
    assert "Traceback" not in said


def test_exit_codes_are_those_of_the_contract() -> None:
    codes = {kind.__name__: kind.exit_code for kind in every_error_of_ours()}
    assert {name for name, code in codes.items() if code == 3} == {
        "ConfigError",
        "DataError",
        "GeometryError",
        "OutputTaken",
    }
    assert {name for name, code in codes.items() if code == 4} == {"PolicyRefused", "BudgetSpent", "RoundOver"}
    assert {name for name, code in codes.items() if code == 5} == {"VerificationFailed", "SignatureInvalid"}
    assert set(codes.values()) == {1, 3, 4, 5}


def test_an_error_that_only_looks_like_a_disk_failure_stays_unexpected() -> None:
    report = report_failure(FileNotFoundError(errno.ENOENT, "No such file", PATIENT))
    assert (report.exit_code, report.text.split(" (")[0]) == (1, "unexpected failure: FileNotFoundError")


# --verbose.


@pytest.mark.parametrize(
    "line",
    [
        ["--verbose", "study", "check", "absent.toml"],
        ["study", "--verbose", "check", "absent.toml"],
        ["study", "check", "absent.toml", "--verbose"],
    ],
    ids=" ".join,
)
def test_verbose_gives_a_traceback_wherever_it_stands(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line) == 3
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "in read_study" in said
    assert "what to do: " in said


# Real processes.


def test_a_process_ends_with_the_code_and_keeps_stdout_clean(tmp_path: Path) -> None:
    process = start("study", "check", "absent.toml", "--json", cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert out == ""
    assert err.startswith("error: no readable study file 'absent.toml': there is none")
    assert "Traceback" not in err


def test_json_is_one_object_on_stdout(tmp_path: Path) -> None:
    start("study", "new", "study.toml", cwd=tmp_path).communicate(timeout=60)
    process = start("study", "show", "study.toml", "--json", cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    assert json.loads(out)["digest"] == parse_study((tmp_path / "study.toml").read_text()).digest()
    assert err == ""


def test_ctrl_c_ends_a_process_with_130_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    process = start("cohort", "phantom", "cohort", "--patients", "5000", cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob(".tmp-*/sub-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert not (tmp_path / "cohort").exists()
    assert not any(tmp_path.glob(".tmp-*"))


# Help.

_WALK = """
import contextlib, io, json, sys
import click, typer
from fedphantom.cli import app

def walk(command, path):
    yield path
    for name, sub in getattr(command, "commands", {}).items():
        yield from walk(sub, [*path, name])

texts = {}
for path in walk(typer.main.get_command(app), []):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        app([*path, "--help"], prog_name="fedphantom")
    texts[" ".join(path)] = said.getvalue()
print(json.dumps({"help": texts, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""
HEAVY = {
    "torch",
    "nibabel",
    "flwr",
    "monai",
    "scipy",
    "sklearn",
    "nilearn",
    "matplotlib",
    "opacus",
    "dp_accounting",
    "numpy",
    "pydantic",
}


@pytest.fixture(scope="module")
def helped() -> dict[str, Any]:
    """Every command's help, rendered in one fresh process, and the modules it took."""
    done = subprocess.run([sys.executable, "-c", _WALK], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_help_of_every_command_loads_nothing_heavy(helped: dict[str, Any]) -> None:
    assert HEAVY.isdisjoint(helped["modules"])


def test_every_command_has_help_that_says_what_it_does(helped: dict[str, Any]) -> None:
    assert {"", "study new", "simulate", "demo", "generate", "evaluate", "audit run"} <= helped["help"].keys()
    for path, text in helped["help"].items():
        sentence = [line.strip() for line in text.splitlines() if line.strip()][1]
        assert len(sentence.split()) >= 4, path


# The study commands.


def test_show_says_loudly_that_there_is_no_differential_privacy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["study", "new", str(tmp_path / "study.toml")])
    capsys.readouterr()
    assert run(["study", "show", str(tmp_path / "study.toml")]) == 0
    said = capsys.readouterr().out
    assert "dp: none" in said
    assert "NO differential-privacy promise" in said
    assert "56 × 64 × 56" in said


@pytest.mark.parametrize("template", ["phantom", "hippocampus", "tiny", "promised", "anatomy", "anatomy-freesurfer"])
def test_every_template_holds(template: str, tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    assert run(["study", "new", str(study), "--template", template]) == 0
    assert run(["study", "check", str(study)]) == 0
    assert parse_study(study.read_text()).name == template


@pytest.mark.parametrize(
    ("template", "spacing_mm"), [("phantom", 3.0), ("tiny", 12.0), ("promised", 6.0), ("anatomy", 3.0)]
)
def test_the_phantom_templates_fit_the_cohorts_they_name(template: str, spacing_mm: float) -> None:
    from importlib.resources import files

    from fedphantom.common.phantom.patients import PHANTOM_CHANNELS, PHANTOM_LABELS, phantom_grid

    study = parse_study((files("fedphantom.server") / "study_templates" / f"{template}.toml").read_text())
    assert (study.channels, study.labels) == (PHANTOM_CHANNELS, PHANTOM_LABELS)
    assert study.volume_grid() == phantom_grid(spacing_mm)
    assert study.roles.reference > 0  # else an audit would need --public


def test_an_anatomy_study_is_said_to_infer_private_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "study.toml"
    run(["study", "new", str(study), "--template", "anatomy"])
    for trained_on, said in (
        ("private", "trained on private scans"),
        ("public", "trained on scans marked public alone"),
    ):
        study.write_text(study.read_text().replace('trained_on = "private"', f'trained_on = "{trained_on}"'))
        capsys.readouterr()
        assert run(["study", "show", str(study)]) == 0
        out = capsys.readouterr().out
        assert "to anatomy (csf, grey, white)" in out
        assert "private to their site; the hospital's oedema, enhancing, necrosis on top" in out
        assert said in out


def test_new_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text("mine")
    assert run(["study", "new", str(tmp_path / "study.toml")]) == 3
    assert (tmp_path / "study.toml").read_text() == "mine"


def test_a_signing_key_is_made_once_and_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "keys"
    assert run(["release", "key", str(keys)]) == 0
    private = (keys / "key.pem").read_bytes()
    assert private.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert (keys / "key.pub.pem").read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----")
    assert b"PRIVATE" not in capsys.readouterr().out.encode()
    assert run(["release", "key", str(keys)]) == 3
    assert (keys / "key.pem").read_bytes() == private
