"""The Shin protocol: how its segmenters are trained, that it goes on where it stopped, and what it leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from shin_arms import BASE, OPTIONS, REAL, STUDY, SYNTHETIC, TEST
from tiny_cohorts import tiny_scans, write_tiny_cohort
from torch import nn

from fedphantom.cli import run as fedphantom
from fedphantom.client.evaluation import segmenters, shin_run
from fedphantom.client.evaluation.material import Material
from fedphantom.client.evaluation.segmenters import Examination, Pool
from fedphantom.client.evaluation.shin import shin_plan
from fedphantom.client.evaluation.shin_result import ShinResult
from fedphantom.client.evaluation.shin_run import run_shin
from fedphantom.common.cohorts.preparation import PreparedScans, joined
from fedphantom.common.device import choose_device
from fedphantom.common.errors import DataError, PolicyRefused
from fedphantom.common.segmentation import SegmenterPlan
from fedphantom.common.study import PatchTable
from fedphantom.privacy.release.evaluation import evaluation_extract
from fedphantom.privacy.synthetic_digest import synthetic_digest

CPU = choose_device("cpu")


# Training


@dataclass
class Call:
    rows: tuple[int, ...]
    plan: SegmenterPlan
    seed: int
    start: nn.Module | None
    network: nn.Module | None = None


class Watched:
    """Stands where the U-Net's training is called; timed samples, told by their steps, are only counted."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.timed = 0
        self.stop_after: int | None = None
        self._train = segmenters.train_segmenter
        self._lock = threading.Lock()

    def __call__(
        self,
        scans: PreparedScans,
        channels: int,
        classes: int,
        plan: SegmenterPlan,
        seed: int,
        device: object,
        report: object,
        *,
        rows: tuple[int, ...],
        start: nn.Module | None,
        patch: PatchTable | None,
    ) -> nn.Module:
        call = Call(rows, plan, seed, start)
        if plan.steps == segmenters.TIMED_STEPS + 2:
            self.timed += 1
        else:
            with self._lock:
                if len(self.calls) == self.stop_after:
                    raise KeyboardInterrupt
                self.calls.append(call)
        call.network = self._train(
            scans, channels, classes, plan, seed, device, report, rows=rows, start=start, patch=patch
        )  # type: ignore[arg-type]  # handed on as they came
        return call.network


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched()
    monkeypatch.setattr(segmenters, "train_segmenter", watched)
    monkeypatch.setattr(segmenters, "usable_cores", lambda: 1)  # one after the other
    monkeypatch.setattr(shin_run, "shin_plot", lambda result: b"<svg/>")  # takes its time, and has its own tests
    return watched


def material(**changes: PreparedScans) -> Material:
    parts = {"train": REAL.only(range(6)), "test": TEST, "synthetic": SYNTHETIC.only(range(6))} | changes
    return Material(public=None, study=STUDY, synthetic_sha256="a" * 64, **parts)


def shin(folder: Path, said: list[str] | None = None, **changes: Any) -> ShinResult:
    options = replace(OPTIONS, steps=2, seeds=(1,), **changes)
    say = (said if said is not None else []).append
    return run_shin(material(), options, folder, CPU, say, lambda done, total: None)


def test_fine_tuning_starts_from_what_the_synthetic_scans_taught(watched: Watched, tmp_path: Path) -> None:
    shin(tmp_path)
    tuned = [call for call in watched.calls if call.start is not None]
    assert len(tuned) == 2
    for call in tuned:
        first = watched.calls[watched.calls.index(call) - 1]
        assert call.start is first.network
        assert first.start is None
        assert first.rows == tuple(range(6, 12))  # the synthetic scans
        assert set(call.rows) < set(range(6))
        assert call.seed != first.seed  # other draws than the first phase had
        assert first.plan.augmentation == call.plan.augmentation


LEAKS = {
    "in the training cohort": {"train": joined([REAL.only([0]), tiny_scans(1, seed=2, prefix="renamed")])},
    "in the synthetic cohort": {"synthetic": joined([SYNTHETIC.only([0]), tiny_scans(1, seed=2, prefix="renamed")])},
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS.keys())
def test_a_test_patients_scan_anywhere_is_refused_before_anything_is_trained(
    leak: dict[str, PreparedScans], watched: Watched, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="a test patient's scan is among the training scans"):
        run_shin(material(**leak), OPTIONS, tmp_path, CPU, print, lambda done, total: None)
    assert (watched.calls, watched.timed) == ([], 0)


def test_too_few_test_patients_for_an_aggregate_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="4 test patients; expected 5 or more"):
        run_shin(material(test=TEST.only(range(4))), OPTIONS, tmp_path, CPU, print, lambda done, total: None)


def test_the_time_it_will_take_is_said_before_it_starts(watched: Watched, tmp_path: Path) -> None:
    said: list[str] = []
    trained_when_said: list[int] = []

    def say(line: str) -> None:
        said.append(line)
        trained_when_said.append(len(watched.calls))

    options = replace(OPTIONS, steps=2, seeds=(1,))
    run_shin(material(), options, tmp_path, CPU, say, lambda done, total: None)
    assert said[0] == "8 segmenters of 2 steps, 0 kept from before; less than a minute to go"
    assert trained_when_said[0] == 0
    assert said[1:] == [
        f"{i} of 8: {s.name}"
        for i, s in enumerate(shin_plan(REAL.only(range(6)), SYNTHETIC.only(range(6)), options).segmenters, start=1)
    ]


def test_the_estimate_grows_with_the_steps_to_go() -> None:
    few, many = (
        shin_plan(REAL, SYNTHETIC, replace(OPTIONS, steps=steps, seeds=(1,))).segmenters for steps in (20, 20_000)
    )
    examination = Examination(Pool(TEST), STUDY, CPU)
    assert 50 < segmenters.seconds_to_go(many, examination) / segmenters.seconds_to_go(few, examination) < 2000


# As a command


@pytest.fixture
def cohorts(tmp_path: Path) -> Path:
    write_tiny_cohort(tmp_path / "train", 6)
    write_tiny_cohort(tmp_path / "test", 5, seed=2, prefix="t")
    write_tiny_cohort(tmp_path / "made", 6, seed=1, prefix="synthetic")
    return tmp_path


def command(cohorts: Path, *more: str) -> int:
    paths = ["--real-train", "train", "--real-test", "test", "--synthetic", "made"]
    named = [str(cohorts / word) if not word.startswith("--") else word for word in paths]
    return fedphantom(
        ["evaluate", *named, "--protocol", "shin", "--out", str(cohorts / "out"), "--device", "cpu", *more]
    )


def test_interrupted_it_goes_on_with_the_segmenters_that_are_not_finished(
    cohorts: Path, watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--steps", "2", "--seeds", "1")
    watched.stop_after = 3
    assert command(cohorts, *arguments) == 130
    assert not (cohorts / "out" / "shin.json").exists()
    kept = sorted((cohorts / "out" / "segmenters").iterdir())
    assert [path.name for path in kept] == [
        "arm-real-no-augmentation-seed-0.json",
        "arm-real-seed-0.json",
        "arm-real-synthetic-seed-0.json",
    ]
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    before = {path: path.stat().st_mtime_ns for path in kept}
    watched.calls.clear()
    watched.stop_after = None
    capsys.readouterr()
    assert command(cohorts, *arguments) == 0
    said = capsys.readouterr().err
    assert "8 segmenters of 2 steps, 3 kept from before" in said
    told = [line for line in said.splitlines() if " of 8: " in line]
    assert len(told) == 8
    assert sum(line.endswith(", kept from before") for line in told) == 3
    assert len(watched.calls) == 3 + 2 * 2  # five segmenters, two of them in two phases
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    resumed = (cohorts / "out" / "shin.json").read_bytes()
    kept[0].unlink()
    watched.calls.clear()
    assert command(cohorts, *arguments) == 0
    assert len(watched.calls) == 1
    assert (cohorts / "out" / "shin.json").read_bytes() == resumed


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_settings_and_scans_other_than_those_that_are_there_are_refused_and_overwrite_nothing(
    cohorts: Path, watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ("--steps", "2", "--seeds", "1", "--real-patients", "3", "--sweep")
    assert command(cohorts, *first) == 0
    before = contents(cohorts / "out")
    watched.calls.clear()
    watched.timed = 0
    write_tiny_cohort(cohorts / "others", 6, seed=9, prefix="synthetic")
    for line, found in (
        ((*first, "--steps", "3"), "--out holds segmenters of 2 steps"),
        ((*first, "--seed", "1"), "--out holds what seed 0 gave"),
        ((*first, "--real-patients", "4"), "the arm '3 patients', which this call leaves out"),
        (first[:-1], "the arm 'real+0.5x synthetic', which this call leaves out"),
        ((*first, "--synthetic", str(cohorts / "others")), "--out holds segmenters of other scans"),
    ):
        assert command(cohorts, *line) == 3
        said = capsys.readouterr().err
        assert found in said
        assert "another folder, or give the same settings" in said
    assert (watched.calls, watched.timed) == ([], 0)
    assert {path: path.read_bytes() for path in before} == before


def test_segmenters_of_a_call_that_was_broken_off_are_not_overwritten_by_other_steps_and_more_seeds_go_on(
    cohorts: Path, watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    watched.stop_after = 3
    assert command(cohorts, "--steps", "2", "--seeds", "1") == 130
    before = contents(cohorts / "out")
    capsys.readouterr()
    assert command(cohorts, "--steps", "5", "--seeds", "1") == 3
    assert "segmenters of 2 steps" in capsys.readouterr().err
    watched.calls.clear()
    watched.stop_after = 0
    assert command(cohorts, "--steps", "2", "--seeds", "2") == 130  # it would go on
    assert "16 segmenters of 2 steps, 3 kept from before" in capsys.readouterr().err
    assert contents(cohorts / "out") == before


@pytest.mark.slow
def test_ctrl_c_while_segmenters_train_ends_the_process_with_130(cohorts: Path) -> None:
    words = "--real-train train --real-test test --synthetic made --protocol shin --out out --device cpu"
    command = [sys.executable, "-m", "fedphantom", "evaluate", *words.split()]
    process = subprocess.Popen(command, cwd=cohorts, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "to go" in process.stderr.readline()
    time.sleep(2)  # in the midst of a step, on every core
    process.send_signal(signal.SIGINT)
    told = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert "give the same command again" in told.splitlines()[-1]
    assert "Traceback" not in told


def test_one_command_leaves_a_table_a_plot_and_json_for_their_owner_alone(
    cohorts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--steps", "2", "--seeds", "1", "--seed", "4", "--sweep", "--real-patients", "3", "--json")
    assert command(cohorts, *more) == 0
    told = json.loads(capsys.readouterr().out)
    out = cohorts / "out"
    assert json.loads((out / "shin.json").read_text()) == told
    with pytest.raises(PolicyRefused, match="fewer than 20 test patients"):  # and nothing else in it is amiss
        evaluation_extract([(out / "shin.json").read_bytes()], synthetic_digest(cohorts / "made"))
    assert {(out / name).stat().st_mode & 0o777 for name in ("shin.json", "shin.md", "shin.svg")} == {0o600}
    assert "leave the site only inside the signed report" in told["notice"]
    assert told["notice"] in (out / "shin.md").read_text()
    names = [arm["name"] for arm in told["arms"]]
    assert len(names) == len(set(names)) == 14 + 1  # the sweep adds 'real+0.5x synthetic'; 6 of 6 are all
    assert set(names) >= BASE | {f"{name}, no augmentation" for name in BASE}
    for arm in told["arms"]:  # the keys of DESIGN §5
        assert arm["dice"] == arm["per_label"]["whole"]
        assert arm["dice"].keys() == {"mean", "ci", "ci_kind", "n_test"}
        assert arm["per_label"].keys() == arm["regions"].keys() == {"brain", "tumour", "whole", "foreground"}
        for found in arm["regions"].values():
            assert len(found["dice_seeds"]["means"]) == len(found["hd95_mm_seeds"]["means"]) == 1
            assert (found["dice_difference"] is None) == (arm["compared_with"] is None)
    assert told["region"] == "whole"
    assert told["ratio_to_real"].keys() >= BASE - {"real"}
    assert [point["share"] for point in told["sweep"]] == [0, 0.5, 1]
    assert told["segmenter"]["seeds"] == [4]
    assert (told["segmenters"], told["test_patients"]) == (15, 5)
    text = (out / "shin.json").read_text() + (out / "shin.md").read_text()
    assert not any(patient in text for patient in (*TEST.patients, *REAL.patients))
