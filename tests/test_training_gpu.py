"""Training, painting and segmenting on a GPU, resumed as federated rounds resume them; the same on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_cohorts import tiny_scans, tiny_study
from trained_run import trained_run

from fedphantom.common.device import Device, choose_device
from fedphantom.common.gan.generation import load_generator, paint
from fedphantom.common.gan.training import StepLosses, train
from fedphantom.common.gan.training_state import TrainingState, load_state, new_state, save_state
from fedphantom.common.phantom.patients import phantom_grid, write_phantom_cohort
from fedphantom.common.phantom.study import phantom_study
from fedphantom.common.segmentation import SegmenterPlan, dice, segment, train_segmenter
from fedphantom.common.study import FederationTable, TrainingTable
from fedphantom.common.study_template import to_toml

STUDY, TOTAL = tiny_study(), 8
SCANS = tiny_scans(4)
NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def device(request: pytest.FixtureRequest) -> Device:
    return choose_device(request.param)


def run(state: TrainingState, until: int) -> list[StepLosses]:
    return list(train(state, SCANS, STUDY, until_step=until, total_steps=TOTAL, seed=1))


def test_a_second_round_goes_on_from_what_the_first_left_on_disk(device: Device, tmp_path: Path) -> None:
    unbroken, first, second = (new_state(STUDY, seed, device) for seed in (1, 1, 2))
    expected = run(unbroken, TOTAL)
    run(first, TOTAL // 2)
    save_state(tmp_path / "state", first, {})
    load_state(tmp_path / "state", second)
    losses = run(second, TOTAL)
    assert [one.step for one in losses] == [one.step for one in expected[TOTAL // 2 :]]
    for one, other in zip(losses, expected[TOTAL // 2 :], strict=True):
        # A GPU sums in an order that it does not promise.
        tolerance = 0.05 if device.cuda else 1e-6
        assert one.reconstruction == pytest.approx(other.reconstruction, rel=tolerance)


def test_what_was_trained_paints_scans_in_range(device: Device) -> None:
    state = new_state(STUDY, 1, device)
    run(state, 2)
    volumes = paint(state.generator.eval(), np.array(SCANS.classes), STUDY, 1, device)
    assert volumes.shape == SCANS.volumes.shape
    assert np.isfinite(volumes).all()
    assert np.abs(volumes).max() <= 1


@pytest.mark.parametrize("augmentation", [False, True])
def test_a_segmenter_learns_the_scans_it_sees(device: Device, augmentation: bool) -> None:
    classes = len(STUDY.labels)
    plan = SegmenterPlan(steps=60, batch=2, augmentation=augmentation)
    network = train_segmenter(SCANS, len(STUDY.channels), classes, plan, 1, device)
    found = segment(network, SCANS.volumes, device)
    truth = np.array(SCANS.classes)
    assert dice(found, truth, tuple(range(1, classes))).mean() > 0.6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_federation_trains_all_its_rounds_on_the_gpu_that_its_sites_find(tmp_path: Path) -> None:
    assert choose_device().cuda
    training = TrainingTable(rounds=3, local_steps=4)
    study = phantom_study("on-a-gpu", 1, phantom_grid(12.0), training).model_copy(
        update={"federation": FederationTable(quorum=2)}
    )
    write_phantom_cohort(tmp_path / "cohort", 24, 2, 12.0, 1)
    result = trained_run(to_toml(study), {"A": tmp_path / "cohort", "B": tmp_path / "cohort"}, tmp_path / "run")
    assert [record.round for record in result.rounds] == [1, 2, 3]
    assert result.generator is not None
    weights = load_generator(result.generator, choose_device()).network.state_dict()
    assert all(torch.isfinite(value).all() for value in weights.values())
