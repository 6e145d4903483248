"""The U-Net that measures usefulness: its score by hand, what it learns, and that a seed fixes it."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from tiny_cohorts import tiny_scans
from torch import Tensor, nn

from fedphantom.common import segmentation
from fedphantom.common.cohorts.preparation import PreparedScans
from fedphantom.common.device import choose_device
from fedphantom.common.errors import TrainingError
from fedphantom.common.parallel import side_by_side
from fedphantom.common.segmentation import (
    SegmenterPlan,
    diagonal_mm,
    dice,
    encoder_features,
    hausdorff95,
    one_is_empty,
    segment,
    train_segmenter,
)
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


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_dice_lies_between_zero_and_one_and_does_not_mind_which_is_which(pairs: list[tuple[int, int]]) -> None:
    one, two = row(*(p for p, _ in pairs)), row(*(t for _, t in pairs))
    value = dice(one, two, (1, 2))[0]
    assert 0 <= value <= 1
    assert value == dice(two, one, (1, 2))[0]
    assert (value == 1) == np.array_equal(one > 0, two > 0)


# HD95


def blob(*voxels: tuple[int, int, int] | tuple[slice | int, ...], value: int = 1) -> NDArray[np.uint8]:
    """One scan, (1, 12, 10, 10), with these voxels or slices of them set."""
    scan = np.zeros((1, 12, 10, 10), np.uint8)
    for place in voxels:
        scan[(0, *place)] = value
    return scan


ALL = slice(None)
MM = (2.0, 3.0, 4.0)
FURTHEST = ((11 * 2) ** 2 + (9 * 3) ** 2 + (9 * 4) ** 2) ** 0.5
APART: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[int, ...], float]] = {
    "the same": (blob((2, 3, 4)), blob((2, 3, 4)), (1,), 0.0),
    "three voxels of 2 mm": (blob((2, ALL, ALL)), blob((5, ALL, ALL)), (1,), 6.0),
    "two voxels of 4 mm": (blob((2, 3, 1)), blob((2, 3, 3)), (1,), 8.0),
    "across all axes": (blob((0, 0, 0)), blob((1, 1, 1)), (1,), 29**0.5),
    "one far voxel of a hundred and one": (blob((2, ALL, ALL), (9, 5, 5)), blob((2, ALL, ALL)), (1,), 0.0),
    "a tenth of the truth is missed": (blob((2, 0, 0)), blob((2, 0, 0), (2, 1, 0)), (1,), 0.95 * 3),
    "a union of two classes": (blob((2, 3, 4), value=2), blob((2, 3, 4)), (1, 2), 0.0),
    "another class is not there": (blob((2, 3, 4), value=2), blob((2, 3, 4)), (1,), FURTHEST),
    "both empty": (blob(), blob(), (1,), 0.0),
    "prediction empty": (blob(), blob((2, 3, 4)), (1,), FURTHEST),
    "truth empty": (blob((2, 3, 4)), blob(), (1,), FURTHEST),
}


@pytest.mark.parametrize(("predicted", "truth", "members", "expected"), APART.values(), ids=APART.keys())
def test_hd95_by_hand(
    predicted: NDArray[np.uint8], truth: NDArray[np.uint8], members: tuple[int, ...], expected: float
) -> None:
    assert hausdorff95(predicted, truth, members, MM).tolist() == pytest.approx([expected])


def test_no_distance_on_the_grid_is_larger_than_what_a_missed_structure_scores() -> None:
    corners = blob((0, 0, 0)), blob((11, 9, 9))
    assert hausdorff95(*corners, (1,), MM)[0] == pytest.approx(FURTHEST)
    assert diagonal_mm((12, 10, 10), MM) == pytest.approx(FURTHEST)


def test_hd95_and_empty_structures_are_per_scan() -> None:
    predicted = np.concatenate([blob((2, 3, 1)), blob(), blob(), blob((2, 3, 1))])
    truth = np.concatenate([blob((2, 3, 3)), blob(), blob((2, 3, 1)), blob()])
    assert hausdorff95(predicted, truth, (1,), MM).tolist() == pytest.approx([8, 0, FURTHEST, FURTHEST])
    assert one_is_empty(predicted, truth, (1,)).tolist() == [False, False, True, True]


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.6))
@settings(max_examples=25, deadline=None)
def test_hd95_is_what_all_distances_between_the_surfaces_give(seed: int, filled: float) -> None:
    random = np.random.default_rng(seed)
    one, other = ((random.random((1, 6, 5, 4)) < filled).astype(np.uint8) for _ in range(2))
    one[0, 2, 2, 2] = other[0, 1, 3, 0] = 1
    surfaces = []
    for scan in (one, other):
        inner = ndimage.binary_erosion(np.pad(scan[0], 1))[1:-1, 1:-1, 1:-1]
        surfaces.append(np.argwhere((scan[0] == 1) & ~inner) * np.array(MM))
    apart = np.linalg.norm(surfaces[0][:, None] - surfaces[1][None], axis=-1)
    expected = max(np.percentile(apart.min(axis=1), 95), np.percentile(apart.min(axis=0), 95))
    assert hausdorff95(one, other, (1,), MM)[0] == pytest.approx(expected, rel=1e-5)


# Training


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


def bytes_of(network: nn.Module) -> list[bytes]:
    return [value.contiguous().numpy().tobytes() for value in network.state_dict().values()]


def weights(seed: int, steps: int = 2) -> list[bytes]:
    return bytes_of(train_segmenter(SCANS, 2, 3, SegmenterPlan(steps=steps, batch=2), seed, CPU))


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


def test_without_augmentation_a_network_sees_the_scans_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    loss = segmentation.DiceCELoss.forward

    def look(self: object, found: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        seen.append(truth[:, 0])
        return loss(self, found, truth)

    monkeypatch.setattr(segmentation.DiceCELoss, "forward", look)
    for augmentation in (False, True):
        train_segmenter(SCANS, 2, 3, SegmenterPlan(steps=1, batch=4, augmentation=augmentation), 1, CPU)
    scans = {scan.tobytes() for scan in SCANS.classes}
    assert {scan.numpy().astype(np.uint8).tobytes() for scan in seen[0]} == scans
    assert {scan.numpy().astype(np.uint8).tobytes() for scan in seen[1]}.isdisjoint(scans)


def test_training_on_some_rows_is_training_on_those_scans_alone() -> None:
    plan = SegmenterPlan(steps=2, batch=2)
    some = train_segmenter(SCANS, 2, 3, plan, 1, CPU, rows=[3, 1])
    assert bytes_of(some) == bytes_of(train_segmenter(SCANS.only([3, 1]), 2, 3, plan, 1, CPU))
    assert bytes_of(some) != bytes_of(train_segmenter(SCANS, 2, 3, plan, 1, CPU))


def test_fine_tuning_starts_from_the_given_weights_and_leaves_them_as_they_are() -> None:
    first = train_segmenter(SCANS, 2, 3, SegmenterPlan(steps=16, batch=2), 1, CPU)
    before, unseen = bytes_of(first), tiny_scans(3, seed=1)
    gently = SegmenterPlan(steps=2, batch=2, learning_rate=1e-5)
    tuned = train_segmenter(SCANS, 2, 3, gently, 2, CPU, start=first)
    assert bytes_of(first) == before != bytes_of(tuned)
    assert dice(segment(tuned, unseen.volumes, CPU), unseen.classes, (1, 2)).min() > 0.8
    from_scratch = train_segmenter(SCANS, 2, 3, gently, 2, CPU)
    assert dice(segment(from_scratch, unseen.volumes, CPU), unseen.classes, (1, 2)).max() < 0.8


def test_encoder_features_are_one_row_a_scan_and_leave_no_hook_behind() -> None:
    network = train_segmenter(SCANS, 2, 3, SegmenterPlan(steps=1, batch=1), 1, CPU)
    features = encoder_features(network, SCANS.volumes, CPU)
    assert features.shape == (4, 96)
    np.testing.assert_array_equal(encoder_features(network, SCANS.volumes[2:3], CPU)[0], features[2])
    assert np.ptp(features, axis=0).max() > 0
    windows = PatchTable(shape=(16, 16, 16))
    by_window = encoder_features(network, np.repeat(SCANS.volumes, 2, axis=2), CPU, windows)
    assert by_window.shape == (4, 96)
    assert not np.allclose(by_window, encoder_features(network, np.repeat(SCANS.volumes, 2, axis=2), CPU))
    assert not any(module._forward_hooks for module in network.modules())


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


def test_patches_are_centred_on_labels_as_often_as_asked_for() -> None:
    volumes, classes = np.full((1, 2, 16, 16, 16), np.nan, np.float32), np.zeros((1, 16, 16, 16), np.uint8)
    volumes[:, :, :8, :, :8], classes[0, 4, 8, 4] = 0, 1  # what a patch around the one labelled voxel shows is finite
    scan = replace(SCANS.only([0]), volumes=volumes, classes=classes)

    def train(foreground: float) -> None:
        patch = PatchTable.model_construct(shape=PATCH.shape, foreground=foreground)
        train_segmenter(scan, 2, 3, SegmenterPlan(steps=3, batch=2), 1, CPU, patch=patch)

    train(1.0)
    with pytest.raises(TrainingError, match="not finite"):
        train(0.0)


class SureOfItsEdges(nn.Module):
    """Says, and says it loudest, that a window's outer quarters along X are class 1; its inner half is class 0."""

    def forward(self, volume: Tensor) -> Tensor:
        logits = torch.zeros((len(volume), 2, *volume.shape[2:]))
        logits[:, 0, 2:6] = 1.0
        logits[:, 1, :2] = logits[:, 1, 6:] = 1.5
        return logits


def test_windows_overlap_by_half_and_where_two_disagree_the_one_whose_middle_is_nearer_counts_more() -> None:
    predicted = segment(SureOfItsEdges(), np.zeros((1, 2, 16, 16, 16), np.float32), CPU, PATCH)
    along_x = predicted[0, :, 8, 2:14]  # off Y's and Z's ends, where every window's weight is at its floor
    assert along_x[[0, 1, 14, 15]].all()  # here there is but one window
    assert not along_x[2:14].any()


def test_the_seed_decides_the_patches_too() -> None:
    def trained(seed: int) -> bytes:
        network = train_segmenter(SCANS, 2, 3, SegmenterPlan(steps=2, batch=2), seed, CPU, patch=PATCH)
        return b"".join(value.contiguous().numpy().tobytes() for value in network.state_dict().values())

    assert trained(7) == trained(7) != trained(8)
