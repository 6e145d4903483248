"""The whole way of the data, in one process, on a handful of small procedural patients."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from demo_run import HOSPITAL, small_demo

from fedphantom.cli import run
from fedphantom.common.errors import ConfigError, DataError
from fedphantom.common.folder_lock import hold_folder
from fedphantom.common.journal import Journal
from fedphantom.privacy.audit.history import AUDITED
from fedphantom.server.demo_clock import TIMES
from fedphantom.server.demo_material import DEMO_FILE

pytestmark = pytest.mark.slow

STAGES = ("cohorts", "federated training", "synthetic cohort", "evaluation", "audit", "release", "report")
RUN = Path(__file__).parent / "fakes" / "demo_run.py"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    small_demo(out)
    return out


def results_of(out: Path) -> dict[str, Any]:
    """What a demo's chance does not touch: all but audit number, random names, keys and times."""
    summary = json.loads((out / "summary.json").read_text())
    return {
        "generator": (out / "run" / "generator.safetensors").read_bytes(),
        "roles": {p.parent.name: json.loads(p.read_text())["roles"] for p in out.glob("run/sites/*/coins.json")},
        "volumes": {p.name: p.read_bytes() for p in (out / "synthetic").rglob("*.nii.gz")},
        "evaluation": summary["evaluation"],
        "facts": {key: summary[key] for key in ("patients", "procedural_patients", "sites", "training_patients")},
    }


def test_it_leaves_what_the_contract_names(finished: Path) -> None:
    for name in ("cohorts", "run", "synthetic", "evaluation.json", "audit", "report.html", "summary.json"):
        assert (finished / name).exists(), name
    assert (finished / "release").is_dir() != (finished / "release-refused.json").is_file()
    for name in ("generator.safetensors", "summary.json", "checkpoints", "sites"):
        assert (finished / "run" / name).exists(), name


def test_its_figures_are_the_evaluation_and_the_audit(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert [arm["name"] for arm in summary["evaluation"]["arms"]] == ["real", "synthetic", "real+synthetic"]
    assert summary["audit"]["verdict"] != "PASS"  # one negative control is not enough
    assert summary["dp"] == "none"


def test_its_page_calls_the_procedural_patients_so(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert "PROCEDURAL PATIENT: the scan most like it" in page
    assert "REAL PATIENT" not in page
    assert json.loads((finished / "summary.json").read_text())["procedural_patients"] == 30


def test_without_a_stop_every_stage_has_its_time_and_nothing_is_said(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert tuple(summary["seconds"]) == (*STAGES, "all")
    assert summary["interruptions"] == 0
    assert "was stopped" not in (finished / "report.html").read_text()


def test_called_again_it_trains_nothing_and_audits_nothing_anew(finished: Path) -> None:
    generator = (finished / "run" / "generator.safetensors").read_bytes()
    seconds = json.loads((finished / "summary.json").read_text())["seconds"]
    said: list[str] = []
    again = small_demo(finished, say=said.append)
    journal = Journal(finished / "run" / "sites" / "A" / "journal.jsonl")
    assert journal.count(AUDITED) == 1
    assert (finished / "run" / "generator.safetensors").read_bytes() == generator
    assert again["audit"] == json.loads((finished / "audit" / "audit.json").read_text())
    # Reading it again takes a moment, too, and is no stage's.
    whole, before = (each.pop("all") for each in (again["seconds"], seconds))
    assert again["seconds"] == seconds
    assert 0 <= whole - before < 5
    assert said == ["this demo is finished: it is read again, nothing is trained or audited anew"]


def test_another_demo_is_not_mixed_into_the_folder(finished: Path) -> None:
    with pytest.raises(ConfigError, match="another cohort"):
        small_demo(finished, sites=2)


def test_no_patient_is_named_in_what_may_leave(finished: Path) -> None:
    coins = [json.loads(path.read_text()) for path in finished.glob("run/sites/*/coins.json")]
    patients = {patient for record in coins for patient in record["roles"]}
    assert len(patients) == 30
    leaving = [finished / "report-shareable.html", finished / "run" / "summary.json", finished / "audit" / "audit.json"]
    leaving += [path for path in (finished / "release").rglob("*") if path.is_file()]
    for path in leaving:
        content = path.read_bytes()
        assert not [patient for patient in patients if patient.encode() in content], path.name


def test_the_release_verifies_and_one_changed_byte_does_not(finished: Path, tmp_path: Path) -> None:
    if not (finished / "release").is_dir():
        pytest.skip("the gate refused this demo's release")
    key = str(finished / "keys" / "key.pub.pem")
    assert run(["release", "verify", str(finished / "release"), "--key", key]) == 0
    readme = finished / "release" / "README.md"
    content = readme.read_bytes()
    readme.write_bytes(content[:-1] + b"x")
    try:
        assert run(["release", "verify", str(finished / "release"), "--key", key]) == 5
    finally:
        readme.write_bytes(content)


# --- stopped and gone on with


def stopping_at(wanted: str) -> Callable[[str], Callable[[int, int], None]]:
    """Ctrl-C while a stage is at work; at its beginning where it reports nothing."""

    def stage(name: str) -> Callable[[int, int], None]:
        if name == wanted == "report":
            raise KeyboardInterrupt

        def report(done: int, total: int) -> None:
            if name == wanted:
                raise KeyboardInterrupt

        return report

    return stage


def test_stopped_in_every_stage_in_turn_it_comes_to_the_same_result(finished: Path, tmp_path: Path) -> None:
    said: list[str] = []
    for stage in STAGES:
        with pytest.raises(KeyboardInterrupt):
            small_demo(tmp_path / "out", stopping_at(stage), said.append)
        assert said[-1] == f"stopped in the demo's stage '{stage}'"
    summary = small_demo(tmp_path / "out", say=said.append)
    assert results_of(tmp_path / "out") == results_of(finished)
    assert summary["interruptions"] == len(STAGES)
    assert "stopped 7 times before its end" in (tmp_path / "out" / "report.html").read_text()
    greeted = [text for text in said if "goes on at" in text]
    assert [re.findall("at '(.*?)'", text)[0] for text in greeted] == list(STAGES)
    assert "(finished: cohorts, federated training, synthetic cohort)" in greeted[3]


def failing(*_: object, **__: object) -> NoReturn:
    raise DataError("no disk", expected="one", remedy="Insert it.")


def crashing(*_: object, **__: object) -> NoReturn:
    raise ZeroDivisionError


def test_a_failure_names_its_stage_and_keeps_its_kind(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^in the demo's stage 'federated training': no disk") as caught:
        small_demo(tmp_path / "out", hospital=replace(HOSPITAL, prepare_site=failing))
    assert (caught.value.expected, caught.value.remedy) == ("one", "Insert it.")
    said: list[str] = []
    with pytest.raises(ZeroDivisionError):
        small_demo(tmp_path / "out", say=said.append, hospital=replace(HOSPITAL, prepare_site=crashing))
    assert said[-1] == "stopped in the demo's stage 'federated training'"


def test_a_refused_call_leaves_the_folder_free(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="99 sites"):
        small_demo(tmp_path / "out", sites=99)
    assert not (tmp_path / "out").exists()


def test_two_demos_at_once_do_not_share_a_folder(finished: Path) -> None:
    with hold_folder(finished), pytest.raises(ConfigError, match="another process"):
        small_demo(finished)


def begun(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(RUN), str(out)], stdout=-1, stderr=-1, text=True)


@pytest.mark.network
@pytest.mark.long
def test_ctrl_c_in_any_stage_ends_with_130_and_the_same_command_goes_on(finished: Path, tmp_path: Path) -> None:
    """A real process and a real signal for every stage, one after the other in one folder."""
    out, interrupted = tmp_path / "out", []
    for stage in STAGES:
        process = begun(out)
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith(f"{stage} ..."):
                process.send_signal(signal.SIGINT)
                break
        stdout, rest = process.communicate(timeout=120)
        told = "".join(lines) + rest
        assert process.returncode == 130, f"{stage}: {told}"
        assert f"stopped in the demo's stage '{stage}'" in told, told
        assert "give the same command again" in rest
        assert "Traceback" not in told
        assert stdout == ""
        interrupted.append(stage)
    process = begun(out)
    stdout, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert "goes on at 'report'" in told
    assert json.loads(stdout)["interruptions"] == len(STAGES)
    assert results_of(out) == results_of(finished)
    assert (out / TIMES).exists()
    assert (out / DEMO_FILE).exists()
