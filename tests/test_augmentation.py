"""Deformation on the fly: chance apart from deed, image and label map moved as one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_cohorts import SHAPE, tiny_scans

from fedphantom.common.gan.augmentation import SpatialAugmentation, warp
from fedphantom.common.randomness import torch_generator

SCANS = tiny_scans(2)
VOLUMES, CLASSES = torch.from_numpy(SCANS.volumes), torch.from_numpy(SCANS.classes)
STILL = SpatialAugmentation(rotation_deg=0, scale=0, displacement=0)


def test_zero_ranges_change_nothing() -> None:
    image, classes = warp(VOLUMES, CLASSES, 3, STILL.draw(2, SHAPE, torch_generator(0)))
    torch.testing.assert_close(image, VOLUMES, atol=1e-4, rtol=0)
    assert torch.equal(classes, CLASSES.long())


def test_zero_ranges_change_nothing_on_a_grid_with_three_different_axes() -> None:
    volume = torch.rand((1, 1, 8, 16, 24), generator=torch_generator(1))
    classes = (volume[:, 0] > 0.5).to(torch.uint8)
    image, labels = warp(volume, classes, 2, STILL.draw(1, (8, 16, 24), torch_generator(0)))
    torch.testing.assert_close(image, volume, atol=1e-4, rtol=0)
    assert torch.equal(labels, classes.long())


def test_the_same_generator_state_gives_the_same_deformation() -> None:
    one, two, other = (SpatialAugmentation().draw(2, SHAPE, torch_generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])  # each scan of a batch is moved in its own way
    assert torch.equal(warp(VOLUMES, CLASSES, 3, one)[0], warp(VOLUMES, CLASSES, 3, two)[0])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_image_and_label_map_stay_aligned(seed: int) -> None:
    # The image shows the tumour itself: wherever it is surely one after the warp, the label map must say so.
    shown = (CLASSES == 2).float().unsqueeze(1)
    grid = SpatialAugmentation(rotation_deg=30, scale=0.2, displacement=2.0).draw(2, SHAPE, torch_generator(seed))
    image, classes = warp(shown, CLASSES, 3, grid)
    assert torch.equal(classes[image[:, 0] > 0.51], torch.full_like(classes[image[:, 0] > 0.51], 2))
    assert not (classes[image[:, 0] < 0.3] == 2).any()
    assert set(classes.unique().tolist()) <= {0, 1, 2}


def test_rotation_is_a_rotation() -> None:
    turning = SpatialAugmentation(rotation_deg=25, scale=0, displacement=0)
    grid = turning.draw(4, SHAPE, torch_generator(2))
    points = grid.flip(-1) * torch.tensor([(n - 1) / 2 for n in SHAPE])  # voxels from the centre, (B, X, Y, Z, 3)
    still = STILL.draw(4, SHAPE, torch_generator(2)).flip(-1) * torch.tensor([(n - 1) / 2 for n in SHAPE])
    torch.testing.assert_close(points.norm(dim=-1), still.norm(dim=-1), atol=1e-3, rtol=1e-4)
    axes = torch.stack([points[:, 9, 8, 8] - points[:, 8, 8, 8], points[:, 8, 9, 8] - points[:, 8, 8, 8]], dim=1)
    third = points[:, 8, 8, 9] - points[:, 8, 8, 8]
    frames = torch.cat([axes, third[:, None]], dim=1)
    torch.testing.assert_close(frames @ frames.mT, torch.eye(3).expand(4, 3, 3), atol=1e-3, rtol=0)
    assert torch.linalg.det(frames).min() > 0.99  # no mirroring: left stays left
    assert not torch.allclose(points, still, atol=0.5)


def test_a_quarter_turn_about_z_swaps_x_and_y(monkeypatch: pytest.MonkeyPatch) -> None:
    quarter = torch.tensor([[0.5, 0.5, 1.0]])  # uniform draws: no turn about X and Y, the full range about Z
    draws = iter([quarter, torch.full((1, 3), 0.5)])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: next(draws))
    grid = SpatialAugmentation(rotation_deg=90, scale=0, displacement=0).draw(1, SHAPE, torch_generator(0))
    image, _ = warp(VOLUMES[:1], CLASSES[:1], 3, grid)
    turned = np.rot90(VOLUMES[:1].numpy(), 1, axes=(2, 3))
    back = np.rot90(VOLUMES[:1].numpy(), -1, axes=(2, 3))
    assert min(np.abs(image.numpy() - turned).max(), np.abs(image.numpy() - back).max()) < 1e-3


def test_ranges_bound_turn_and_scale() -> None:
    grid = SpatialAugmentation(rotation_deg=0, scale=0.1, displacement=0).draw(64, SHAPE, torch_generator(0))
    edge = grid[:, -1, 0, 0, 2]  # the far end of X, 1 where nothing moved
    assert 0.9 - 1e-5 <= edge.min() < 0.92
    assert 1.08 < edge.max() <= 1.1 + 1e-5


def test_displacement_has_the_stated_spread_and_is_smooth() -> None:
    moved = SpatialAugmentation(rotation_deg=0, scale=0, displacement=1.5).draw(64, SHAPE, torch_generator(0))
    offset = (moved - STILL.draw(64, SHAPE, torch_generator(0))).flip(-1) * 7.5
    assert offset[:, 0, 0, 0].std().item() == pytest.approx(1.5, rel=0.15)  # at a control point
    assert (offset[:, 1:] - offset[:, :-1]).abs().max() < 1.5 * math.sqrt(2) * 5 / 7
