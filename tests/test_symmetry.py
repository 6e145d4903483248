"""The plane between the hemispheres is found from the outline, however the head is turned."""

from __future__ import annotations

import numpy as np
import pytest
from little_brain import SHAPE, SPACING, distance_mm, healthy_brain, with_tumour

from fedphantom.common.edits.symmetry import MirrorPlane, fit_mirror_plane
from fedphantom.common.labels.atlas import load_atlas
from fedphantom.common.labels.brain import BrainLabels
from fedphantom.common.labels.deformation import AffineParameters, DiffeomorphismParameters, warp_labels
from fedphantom.common.phantom.patients import phantom_grid

STILL = DiffeomorphismParameters(seed=0, displacement_mm=0, smoothness_mm=10)


def egg() -> np.ndarray:
    """Longer than wide and high, so that a turn shows."""
    y = ((np.arange(SHAPE[1]) - (SHAPE[1] - 1) / 2) * SPACING[1])[None, :, None]
    return np.asarray((distance_mm((0, 0, 0)) ** 2 - 0.3 * y**2 < 40**2), dtype=np.bool_)


def test_an_upright_head_is_reflected_voxel_onto_voxel() -> None:
    assert fit_mirror_plane(egg(), SPACING) == MirrorPlane(0.0, 0.0, 0.0)
    assert fit_mirror_plane(np.roll(egg(), 3, axis=0), SPACING) == MirrorPlane(0.0, 0.0, 6.0)


def test_a_tumour_inside_the_head_changes_nothing() -> None:
    assert fit_mirror_plane(with_tumour(healthy_brain()) != 0, SPACING) == fit_mirror_plane(
        healthy_brain() != 0, SPACING
    )


@pytest.mark.parametrize(("yaw", "roll"), [(8.0, 0.0), (0.0, -7.0), (-6.0, 9.0)])
def test_a_turned_brain_is_found_to_be_turned(yaw: float, roll: float) -> None:
    grid = phantom_grid(4.0)
    turned = AffineParameters(rotation_deg=(3.0, -roll, yaw), scale=(1, 1, 1), shift_mm=(4, 0, 0))
    head = warp_labels(load_atlas(grid, BrainLabels()), grid.spacing_mm, turned, STILL) != 0
    plane = fit_mirror_plane(head, grid.spacing_mm)
    assert plane.yaw_deg == pytest.approx(yaw, abs=2)
    assert plane.roll_deg == pytest.approx(roll, abs=2)
    there = plane.reflect((np.argwhere(head) - (np.array(grid.shape) - 1) / 2) * grid.spacing_mm)
    places = np.round(there / grid.spacing_mm + (np.array(grid.shape) - 1) / 2).astype(int)
    inside = ((places >= 0) & (places < grid.shape)).all(axis=1)
    assert head[tuple(places[inside].T)].mean() > 0.93


def test_a_reflection_is_its_own_inverse() -> None:
    plane = MirrorPlane(7.0, -4.0, 5.0)
    points = np.random.default_rng(0).normal(0, 40, (20, 3))
    assert plane.reflect(plane.reflect(points)) == pytest.approx(points)
    assert plane.matrix() @ plane.matrix() == pytest.approx(np.eye(3))
    offset = 2 * plane.offset_mm * plane.normal()
    assert points @ plane.matrix().T + offset == pytest.approx(plane.reflect(points))
