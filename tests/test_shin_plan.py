"""What the Shin protocol trains: which segmenters, on which scans, for how many steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from shin_arms import BASE, OPTIONS, REAL, STUDY, SYNTHETIC, TEST, of_training, seen
from tiny_cohorts import tiny_scans

from fedphantom.client.evaluation.segmenters import Examination, Pool
from fedphantom.client.evaluation.shin import shin_plan
from fedphantom.common.cohorts.preparation import joined
from fedphantom.common.device import choose_device
from fedphantom.common.errors import DataError

CPU = choose_device("cpu")


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
            assert len(now) == int(share * real) == arms[name].synthetic
            assert set(REAL.patients[:real]) < set(patients) or share == 0
            assert before <= now
            before = now


@pytest.mark.parametrize(
    ("real", "synthetic", "shares"),
    [
        (13, 50, [0, 0.5, 1, 2, 3.8]),  # 3.846…
        (19, 50, [0, 0.5, 1, 2, 2.6]),  # 9 of 19 are half as many
        (19, 39, [0, 0.5, 1, 2, 2.1]),
        (19, 10, [0, 0.5, 0.53]),
        (20, 41, [0, 0.5, 1, 2]),  # all are twice as many, to two digits
    ],
)
def test_a_sweeps_shares_have_two_digits_and_tell_no_count(real: int, synthetic: int, shares: list[float]) -> None:
    plan = shin_plan(REAL.only(range(real)), SYNTHETIC.only(range(synthetic)), replace(OPTIONS, sweep=True))
    assert [share for share, _ in plan.sweep] == shares
    assert len({name for _, name in plan.sweep}) == len(shares)


def test_an_arm_fine_tuned_on_as_few_patients_as_a_tenth_is_not_trained_twice() -> None:
    plan = shin_plan(REAL, SYNTHETIC, replace(OPTIONS, real_patients=2))
    assert {arm.training for arm in plan.arms} - BASE == {"2 patients", "2 patients+synthetic"}


def test_no_two_segmenters_share_a_file() -> None:
    plan = shin_plan(REAL, SYNTHETIC, replace(OPTIONS, real_patients=10, sweep=True))
    examination = Examination(Pool(TEST), STUDY, CPU, Path("kept"))
    assert len({examination.file(segmenter) for segmenter in plan.segmenters}) == len(plan.segmenters) == 51
