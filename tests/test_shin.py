"""The Shin protocol: what its segmenters see, that it goes on where it stopped, and what its figures mean."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_cohorts import tiny_scans, tiny_study, write_tiny_cohort
from torch import nn

from fedphantom.cli import run as fedphantom
from fedphantom.client.evaluation import segmenters, shin_run
from fedphantom.client.evaluation.material import Material
from fedphantom.client.evaluation.scores import Scores, region_members
from fedphantom.client.evaluation.segmenters import Examination, Pool, Segmenter
from fedphantom.client.evaluation.shin import ShinOptions, ShinPlan, shin_plan
from fedphantom.client.evaluation.shin_plot import shin_plot
from fedphantom.client.evaluation.shin_result import ShinResult, shin_result
from fedphantom.client.evaluation.shin_run import run_shin
from fedphantom.client.evaluation.shin_table import COLUMNS, WIDTH, explanation, markdown, print_table, table_rows
from fedphantom.common.cohorts.preparation import PreparedScans, joined
from fedphantom.common.device import choose_device
from fedphantom.common.errors import DataError, PolicyRefused
from fedphantom.common.segmentation import SegmenterPlan
from fedphantom.common.study import PatchTable
from fedphantom.privacy.release.evaluation import evaluation_extract
from fedphantom.privacy.synthetic_digest import synthetic_digest

CPU = choose_device("cpu")
STUDY = tiny_study()
REAL, SYNTHETIC, TEST = tiny_scans(20), tiny_scans(50, seed=1, prefix="s"), tiny_scans(5, seed=2, prefix="t")
OPTIONS = ShinOptions(steps=10, seeds=(7, 8, 9))
BASE = {"real", "real+synthetic", "synthetic", "synthetic, then 10 % real"}


def seen(segmenter: Segmenter) -> list[list[str]]:
    """Patients of each phase's scans."""
    return [[phase.pool.scans.patients[row] for row in phase.rows] for phase in segmenter.phases]


def of_training(plan: ShinPlan, training: str) -> list[Segmenter]:
    return [segmenter for arm in plan.arms if arm.training == training for segmenter in arm.segmenters]


# The plan


def test_four_trainings_with_and_without_augmentation_over_three_seeds_are_24_segmenters() -> None:
    plan = shin_plan(REAL, SYNTHETIC, OPTIONS)
    assert {(arm.training, arm.augmentation) for arm in plan.arms} == {(t, a) for t in BASE for a in (True, False)}
    assert [len(arm.segmenters) for arm in plan.arms] == [3] * 8
    assert [segmenter.seed for segmenter in plan.segmenters] == [7, 8, 9] * 8
    for arm in plan.arms:
        phases = [phase for segmenter in arm.segmenters for phase in segmenter.phases]
        assert {phase.plan.augmentation for phase in phases} == {arm.augmentation}


def test_every_segmenter_takes_the_same_number_of_steps() -> None:
    plan = shin_plan(REAL, SYNTHETIC, replace(OPTIONS, real_patients=4, sweep=True))
    assert {segmenter.steps for segmenter in plan.segmenters} == {10}
    assert {s.steps for s in shin_plan(REAL, SYNTHETIC, replace(OPTIONS, steps=2)).segmenters} == {2}


def test_each_training_sees_what_its_name_says() -> None:
    plan = shin_plan(REAL, SYNTHETIC, OPTIONS)
    real, made = list(REAL.patients), list(SYNTHETIC.patients)
    for segmenter in of_training(plan, "real"):
        assert seen(segmenter) == [real]
    for segmenter in of_training(plan, "real+synthetic"):
        assert seen(segmenter) == [real + made]
    for segmenter in of_training(plan, "synthetic"):
        assert seen(segmenter) == [made]
    for segmenter in of_training(plan, "synthetic, then 10 % real"):
        first, last = seen(segmenter)
        assert first == made
        assert len(last) == 2
        assert set(last) < set(real)
        before, tuning = (phase.plan for phase in segmenter.phases)
        assert (before.steps, tuning.steps) == (8, 2)
        assert tuning.learning_rate < before.learning_rate


def test_a_tenth_is_drawn_by_patient_and_by_seed_with_all_of_a_patients_scans() -> None:
    twice = replace(joined([REAL, tiny_scans(20, seed=5)]), patients=REAL.patients * 2)
    plan = shin_plan(twice, SYNTHETIC, replace(OPTIONS, seeds=tuple(range(8))))
    drawn = [seen(segmenter)[1] for segmenter in of_training(plan, "synthetic, then 10 % real")[:8]]
    for patients in drawn:
        assert sorted(patients) == sorted(2 * list(set(patients)))
        assert len(set(patients)) == 2
    assert len({frozenset(patients) for patients in drawn}) > 4
    one = shin_plan(tiny_scans(3), SYNTHETIC, OPTIONS)
    assert len(seen(of_training(one, "synthetic, then 10 % real")[0])[1]) == 1  # never none


def test_arms_with_few_patients_hold_the_tenth_and_differ_in_the_synthetic_scans_alone() -> None:
    plan = shin_plan(REAL, SYNTHETIC, replace(OPTIONS, real_patients=6))
    trainings = ("6 patients", "6 patients+synthetic", "synthetic, then 6 patients", "synthetic, then 10 % real")
    for alone, mixed, tuned, tenth in zip(*(of_training(plan, training) for training in trainings), strict=True):
        few = seen(alone)[0]
        assert len(set(few)) == 6
        assert seen(mixed) == [few + list(SYNTHETIC.patients)]
        assert seen(tuned) == [list(SYNTHETIC.patients), few]
        assert set(seen(tenth)[1]) < set(few)
    references = {arm.name: arm.reference for arm in plan.arms}
    assert references["6 patients"] is None
    assert references["6 patients+synthetic"] == references["synthetic, then 6 patients"] == "6 patients"
    assert references["6 patients+synthetic, no augmentation"] == "6 patients, no augmentation"


def test_public_scans_make_an_arm_of_their_own_that_synthetic_ones_are_held_against() -> None:
    public = tiny_scans(3, seed=9, prefix="open")
    plan = shin_plan(REAL, SYNTHETIC, OPTIONS, public)
    assert [seen(segmenter) for segmenter in of_training(plan, "public")] == [[list(public.patients)]] * 6
    assert {arm.reference for arm in plan.arms if arm.training == "public"} == {"real", "real, no augmentation"}
    means = {"public": 0.5, "public, no augmentation": 0.4, "synthetic": 0.6, "synthetic, no augmentation": 0.3}
    dice = {arm: [[mean] * 10] * 3 for arm, mean in means.items()}
    found = shin_result(plan, constructed(plan, dice), STUDY, "a" * 64)
    above = {arm: regions["whole"].mean for arm, regions in found.above_public.items()}
    assert above == pytest.approx({"synthetic": 0.1, "synthetic, no augmentation": -0.1})
    told = [line for line in explanation(found) if "public patients" in line]
    assert len(told) == 1
    assert "synthetic +10.0 [" in told[0]
    without = shin_plan(REAL, SYNTHETIC, OPTIONS)
    assert not shin_result(without, constructed(without, {}), STUDY, "a" * 64).above_public


@pytest.mark.parametrize("few", [20, 21])
def test_few_patients_must_be_fewer_than_all(few: int) -> None:
    with pytest.raises(DataError, match=r"20 training patients.*--real-patients"):
        shin_plan(REAL, SYNTHETIC, replace(OPTIONS, real_patients=few))


@pytest.mark.parametrize(
    ("real", "synthetic", "shares"),
    [
        (20, 50, [0, 0.5, 1, 2, 2.5]),
        (20, 40, [0, 0.5, 1, 2]),
        (20, 8, [0, 0.4]),
        (1, 3, [0, 1, 2, 3]),
        (10, 50, [0, 0.5, 1, 2, 4, 5]),
    ],
)
def test_the_sweep_doubles_the_synthetic_scans_up_to_all_there_are(
    real: int, synthetic: int, shares: list[float]
) -> None:
    made = SYNTHETIC.only(range(synthetic))
    plan = shin_plan(REAL.only(range(real)), made, replace(OPTIONS, sweep=True))
    assert [share for share, _ in plan.sweep] == pytest.approx(shares)
    arms = {arm.name: arm for arm in plan.arms}
    assert (plan.sweep[0][1], plan.sweep[-1][1]) == ("real", "real+synthetic")
    assert len(plan.arms) == 8 + len(shares) - 2
    for number in range(3):  # seeds
        before: set[str] = set()
        for share, name in plan.sweep:
            [patients] = seen(arms[name].segmenters[number])
            now = set(patients) - set(REAL.patients)
            assert len(now) == round(share * real) == arms[name].synthetic
            assert set(REAL.patients[:real]) < set(patients) or share == 0
            assert before <= now
            before = now


def test_no_two_segmenters_share_a_file() -> None:
    plan = shin_plan(REAL, SYNTHETIC, replace(OPTIONS, real_patients=10, sweep=True))
    examination = Examination(Pool(TEST), STUDY, CPU, Path("kept"))
    assert len({examination.file(segmenter) for segmenter in plan.segmenters}) == len(plan.segmenters) == 51


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
    assert command(cohorts, *arguments) == 0
    assert "8 segmenters of 2 steps, 3 kept from before" in capsys.readouterr().err
    assert len(watched.calls) == 3 + 2 * 2  # five segmenters, two of them in two phases
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    resumed = (cohorts / "out" / "shin.json").read_bytes()
    kept[0].unlink()
    watched.calls.clear()
    assert command(cohorts, *arguments) == 0
    assert len(watched.calls) == 1
    assert (cohorts / "out" / "shin.json").read_bytes() == resumed


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
    assert told.endswith("the same command goes on from there, or begins again\n")
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
    assert len(names) == len(set(names)) == 14 + 1  # the sweep adds 'real+3 synthetic'; 6 of 6 are all
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


# Figures


def constructed(
    plan: ShinPlan, dice: dict[str, Sequence[Sequence[float]]], hd95: float = 4.0, empty: float = 0.0
) -> dict[str, Scores]:
    """Scores by segmenter: of arms named, one row of patients a seed; of others, 0.5 for ten patients."""
    scores = {}
    for arm in plan.arms:
        for number, segmenter in enumerate(arm.segmenters):
            values = np.asarray(dice[arm.name][number] if arm.name in dice else [0.5] * 10, dtype=np.float64)
            regions = region_members(STUDY)
            scores[segmenter.name] = Scores(
                dict.fromkeys(regions, values),
                dict.fromkeys(regions, np.full(len(values), hd95)),
                dict.fromkeys(regions, np.where(np.arange(len(values)) < 2, empty, 0.0)),
            )
    return scores


def test_seeds_are_averaged_by_patient_before_patients_are_resampled() -> None:
    plan = shin_plan(REAL, SYNTHETIC, OPTIONS)
    rising = np.linspace(0.4, 0.6, 10)
    # Seeds that err in opposite ways on the same patients: each patient's mean is .5, whichever patients are drawn.
    found = shin_result(plan, constructed(plan, {"synthetic": [rising, rising[::-1], [0.5] * 10]}), STUDY, "a" * 64)
    whole = next(a for a in found.arms if a.arm.name == "synthetic").regions["whole"]
    assert whole.dice.mean == pytest.approx(0.5)
    assert whole.dice_by_seed == pytest.approx((0.5, 0.5, 0.5))
    assert whole.dice.high - whole.dice.low == pytest.approx(1 - 0.05**0.1, abs=1e-3)  # equals: what n rules out
    apart = constructed(plan, {"synthetic": [[0.4] * 10, [0.5] * 10, [0.6] * 10]})
    whole = next(a for a in shin_result(plan, apart, STUDY, "a" * 64).arms if a.arm.name == "synthetic").regions[
        "whole"
    ]
    assert whole.dice_by_seed == pytest.approx((0.4, 0.5, 0.6))
    assert whole.to_json()["dice_seeds"]["sd"] == pytest.approx(0.1)


def test_differences_are_paired_with_the_arm_of_the_same_augmentation() -> None:
    plan = shin_plan(REAL, SYNTHETIC, OPTIONS)
    real = np.linspace(0.2, 0.8, 10)
    dice = {
        "real": [real] * 3,
        "real, no augmentation": [real - 0.1] * 3,
        "synthetic": [real + 0.04] * 3,
        "synthetic, no augmentation": [real + 0.04] * 3,
    }
    found = {r.arm.name: r.regions["whole"] for r in shin_result(plan, constructed(plan, dice), STUDY, "a" * 64).arms}
    for name, difference in (("synthetic", 0.04), ("synthetic, no augmentation", 0.14)):
        figure = found[name].dice_difference
        assert figure is not None
        assert figure.mean == pytest.approx(difference)
    ratio = found["synthetic"].dice_ratio
    assert ratio is not None
    assert ratio.mean == pytest.approx(0.54 / 0.5)
    assert found["real"].dice_difference is None


def test_missed_structures_are_counted_over_patients_and_seeds() -> None:
    plan = shin_plan(REAL, SYNTHETIC, OPTIONS)
    found = shin_result(plan, constructed(plan, {}, empty=0.5), STUDY, "a" * 64)
    assert {r.regions["whole"].one_empty for r in found.arms} == {2 * 3}


def swept(means: Sequence[float]) -> ShinResult:
    plan = shin_plan(REAL, SYNTHETIC, replace(OPTIONS, sweep=True))
    patients = np.linspace(-0.1, 0.1, 10)
    wobble = np.random.default_rng(0).normal(0, 0.004, (len(means), 10))  # a difference is known to within ± .0035
    wobble -= wobble.mean(axis=1, keepdims=True)
    dice = {name: [patients + mean + own] * 3 for (_, name), mean, own in zip(plan.sweep, means, wobble, strict=True)}
    return shin_result(plan, constructed(plan, dice), STUDY, "a" * 64)


def test_the_sweep_says_from_which_share_more_synthetic_scans_hurt() -> None:
    # Shares 0, .5, 1, 2, 2.5.
    assert swept([0.7, 0.75, 0.78, 0.76, 0.74]).hurts_from("whole") == 2
    assert swept([0.7, 0.68, 0.78, 0.78, 0.78]).hurts_from("whole") == 0.5
    assert swept([0.7, 0.75, 0.78, 0.78, 0.781]).hurts_from("whole") is None
    assert swept([0.7, 0.75, 0.78, 0.779, 0.779]).hurts_from("whole") is None  # within what patients vary
    # A slow decline is held against the best share, not against the one before.
    assert swept([0.7, 0.78, 0.779, 0.7785, 0.7755]).hurts_from("whole") == pytest.approx(2.5)


# Table and plot


def shown() -> ShinResult:
    plan = shin_plan(REAL, SYNTHETIC, replace(OPTIONS, sweep=True, real_patients=16))
    random = np.random.default_rng(0)
    dice = {arm.name: random.uniform(0.6, 0.9, (3, 10)).tolist() for arm in plan.arms}
    return shin_result(plan, constructed(plan, dice, hd95=12.3, empty=1), STUDY, "a" * 64)


def test_the_table_fits_a_hundred_columns_and_shows_each_structure_once(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(shown())
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= WIDTH
    assert [
        line.strip() for line in said.splitlines() if line.strip() in ("whole", "brain", "tumour", "foreground")
    ] == [
        "whole",
        "brain",
        "tumour",
    ]  # here all foreground is the whole
    assert "…" not in said
    for arm in ("synthetic → 10 % real", "16 patients+synthetic", "synthetic → 16 patients", "sweep: 2.5 × real"):
        assert said.count(f"\n{arm} ") >= 3


def test_a_row_holds_the_figures() -> None:
    result = shown()
    rows = table_rows(result, "tumour")
    assert len(rows) == 8 + 6 + 5
    found = result.arms[2].regions["tumour"]
    cells = dict(zip(COLUMNS, rows[2], strict=False))
    assert rows[2][:2] == ("real+synthetic", "yes")
    assert cells["Dice [95 %]"].startswith(f"{found.dice.mean:.3f}"[1:] + " [.")
    assert cells["HD95 mm [95 %]"].startswith("12.3 [")
    assert rows[2][-1] == str(found.one_empty) == "6"
    assert f"{100 * found.dice_difference.mean:+.1f}".replace("-", "−") in cells["points gained"]  # type: ignore[union-attr]  # it has a reference


def test_the_markdown_table_has_the_same_rows_and_says_how_they_were_made() -> None:
    result = shown()
    text = markdown(result)
    for region in result.shown_regions:
        for row in table_rows(result, region):
            assert "| " + " | ".join(row) + " |" in text
    for line in explanation(result):
        assert line in text
    assert "each 10 steps of 4 scans" in text


def test_the_plot_is_svg_the_same_for_the_same_result_and_without_a_date() -> None:
    one = shin_plot(swept([0.7, 0.75, 0.78, 0.76, 0.74]))
    assert ElementTree.fromstring(one).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314  # our own
    assert one == shin_plot(swept([0.7, 0.75, 0.78, 0.76, 0.74]))
    assert b"<dc:date>" not in one
