"""The U-Net that measures usefulness: its score by hand, what it learns, and that a seed fixes it."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_cohorts import tiny_scans

from fedphantom.common import segmentation
from fedphantom.common.cohorts.preparation import PreparedScans
from fedphantom.common.device import choose_device
from fedphantom.common.errors import TrainingError
from fedphantom.common.parallel import side_by_side
from fedphantom.common.segmentation import SegmenterPlan, dice, dice_per_region, segment, train_segmenter
from fedphantom.common.study import PatchTable

CPU = choose_device("cpu")
SCANS = tiny_scans(4)
PATCH = PatchTable.model_construct(shape=(8, 16, 8), foreground=0.67)  # smaller than a study may have them


def row(*classes: int) -> NDArray[np.uint8]:
    return np.array(classes, np.uint8).reshape(1, -1, 1, 1)


HAND: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[int, ...], float]] = {
    "half of each": (row(1, 1, 0, 0), row(0, 1, 1, 0), (1,), 0.5),
    "all": (row(1, 1, 0), row(1, 1, 0), (1,), 1.0),
    "none": (row(1, 0, 0), row(0, 1, 0), (1,), 0.0),
    "twice the size": (row(1, 1, 1, 1), row(1, 1, 0, 0), (1,), 2 * 2 / 6),
    "union of two classes": (row(1, 2, 0, 0), row(2, 1, 1, 0), (1, 2), 2 * 2 / 5),
    "another class is not this one": (row(2, 2, 1), row(1, 1, 1), (1,), 2 * 1 / 4),
    "both empty": (row(0, 0), row(0, 2), (1,), 1.0),
    "truth empty": (row(1, 0), row(0, 0), (1,), 0.0),
    "prediction empty": (row(0, 0), row(1, 0), (1,), 0.0),
}


@pytest.mark.parametrize(("predicted", "truth", "members", "expected"), HAND.values(), ids=HAND.keys())
def test_dice_by_hand(
    predicted: NDArray[np.uint8], truth: NDArray[np.uint8], members: tuple[int, ...], expected: float
) -> None:
    assert dice(predicted, truth, members).tolist() == pytest.approx([expected])


def test_dice_is_per_scan() -> None:
    predicted, truth = np.concatenate([row(1, 0), row(1, 1)]), np.concatenate([row(1, 0), row(0, 0)])
    assert dice(predicted, truth, (1,)).tolist() == [1, 0]
    regions = {"one": (1,), "all": (1, 2)}
    assert {name: v.tolist() for name, v in dice_per_region(predicted, truth, regions).items()} == {
        "one": [1, 0],
        "all": [1, 0],
    }


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_dice_lies_between_zero_and_one_and_does_not_mind_which_is_which(pairs: list[tuple[int, int]]) -> None:
    one, two = row(*(p for p, _ in pairs)), row(*(t for _, t in pairs))
    value = dice(one, two, (1, 2))[0]
    assert 0 <= value <= 1
    assert value == dice(two, one, (1, 2))[0]
    assert (value == 1) == np.array_equal(one > 0, two > 0)


def test_a_few_steps_suffice_for_a_plain_task() -> None:
    told: list[tuple[int, int]] = []
    plan = SegmenterPlan(steps=16, batch=2)
    network = train_segmenter(SCANS, 2, 3, plan, 1, CPU, lambda done, total: told.append((done, total)))
    assert told == [(step, 16) for step in range(1, 17)]
    assert not network.training
    unseen = tiny_scans(3, seed=1)
    predicted = segment(network, unseen.volumes, CPU)
    assert (predicted.shape, predicted.dtype) == (unseen.classes.shape, np.uint8)
    assert dice(predicted, unseen.classes, (1, 2)).min() > 0.8


def weights(seed: int, steps: int = 2) -> list[bytes]:
    network = train_segmenter(SCANS, 2, 3, SegmenterPlan(steps=steps, batch=2), seed, CPU)
    return [value.contiguous().numpy().tobytes() for value in network.state_dict().values()]


def test_the_seed_alone_decides_whatever_torchs_global_generator_holds() -> None:
    torch.manual_seed(1)
    one = weights(7)
    torch.manual_seed(2)
    assert weights(7) == one
    assert weights(8) != one


def test_training_leaves_torchs_global_generator_as_it_was() -> None:
    before = torch.random.get_rng_state()
    weights(7, steps=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_segmenters_trained_side_by_side_are_those_trained_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [weights(seed) for seed in (1, 2)]
    both, build = threading.Barrier(2), segmentation.UNet

    def late(*args: object, **options: object) -> object:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.5)  # the moment at which one could draw from the other's seed
        return build(*args, **options)

    monkeypatch.setattr(segmentation, "UNet", late)
    beside = dict(side_by_side([lambda seed=seed: weights(seed) for seed in (1, 2)], workers=2))
    assert [beside[0], beside[1]] == alone


def test_a_nan_stops_the_training_and_names_the_step() -> None:
    volumes = SCANS.volumes.copy()
    volumes[:, 0, 5, 5, 5] = np.nan
    with pytest.raises(TrainingError, match="not finite at step 1"):
        train_segmenter(replace(SCANS, volumes=volumes), 2, 3, SegmenterPlan(steps=3, batch=2), 1, CPU)


def cut(scans: PreparedScans) -> PreparedScans:
    """On a grid that cannot be halved three times."""
    return replace(scans, volumes=np.asarray(scans.volumes)[..., :-1], classes=np.asarray(scans.classes)[..., :-1])


def test_scans_on_any_grid_can_be_learnt_and_segmented() -> None:
    network = train_segmenter(cut(SCANS), 2, 3, SegmenterPlan(steps=16, batch=2), 1, CPU)
    unseen = cut(tiny_scans(3, seed=1))
    predicted = segment(network, unseen.volumes, CPU)
    assert predicted.shape == unseen.classes.shape == (3, 16, 16, 15)
    assert dice(predicted, unseen.classes, (1, 2)).min() > 0.8


def test_patches_are_learnt_and_whole_scans_segmented_by_windows_of_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    network = train_segmenter(SCANS, 2, 3, SegmenterPlan(steps=60, batch=4), 1, CPU, patch=PATCH)
    unseen, seen = cut(tiny_scans(3, seed=1)), set()
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda x: seen.add(tuple(x.shape[2:])) or forward(x))
    predicted = segment(network, unseen.volumes, CPU, PATCH)
    assert seen == {(8, 16, 8)}
    assert predicted.shape == unseen.classes.shape
    assert dice(predicted, unseen.classes, (1, 2)).min() > 0.7


def test_the_seed_decides_the_patches_too() -> None:
    def trained(seed: int) -> bytes:
        network = train_segmenter(SCANS, 2, 3, SegmenterPlan(steps=2, batch=2), seed, CPU, patch=PATCH)
        return b"".join(value.contiguous().numpy().tobytes() for value in network.state_dict().values())

    assert trained(7) == trained(7) != trained(8)
