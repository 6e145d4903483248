"""Warps are drawn apart from being applied, in millimetres, and never fold."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedphantom.common.errors import DataError
from fedphantom.common.labels import deformation
from fedphantom.common.labels.deformation import (
    AffineParameters,
    DiffeomorphismParameters,
    displacement_field,
    draw_affine,
    draw_diffeomorphism,
    is_fold_free,
    smooth_noise,
    warp_labels,
)

SHAPE, SPACING = (32, 40, 24), (1.0, 1.0, 1.5)
STILL = AffineParameters(rotation_deg=(0, 0, 0), scale=(1, 1, 1), shift_mm=(0, 0, 0))
RIGID = DiffeomorphismParameters(seed=0, displacement_mm=0, smoothness_mm=10)


def _warp(seed, displacement=1.0, smoothness=12.0):
    return DiffeomorphismParameters(seed=seed, displacement_mm=displacement, smoothness_mm=smoothness)


def _ball(shape=SHAPE, spacing=SPACING, radius=9.0, centre=(0, 0, 0)):
    axes = [(np.arange(n) - (n - 1) / 2) * mm - c for n, mm, c in zip(shape, spacing, centre, strict=True)]
    distance = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    return ((distance < radius) * 2 + (distance < radius / 2)).astype(np.uint8)


def _smallest_corner(displacement, spacing):
    """Smallest determinant of the three edges that meet at any corner of any cell, by linear algebra."""
    axes = np.meshgrid(
        *(np.arange(n) * mm for n, mm in zip(displacement.shape[1:], spacing, strict=True)), indexing="ij"
    )
    places = np.moveaxis(np.stack(axes) + displacement, 0, -1)
    least = np.inf
    for corner in itertools.product((0, 1), repeat=3):
        edges = []
        for axis in range(3):
            edge = np.diff(places, axis=axis) / spacing[axis]
            for other in {0, 1, 2} - {axis}:
                edge = np.delete(edge, -1 if corner[other] == 0 else 0, axis=other)
            edges.append(edge)
        least = min(least, np.linalg.det(np.stack(edges, axis=-1)).min())
    return least


def _centre_mm(mask):
    return (np.argwhere(mask).mean(axis=0) - (np.array(SHAPE) - 1) / 2) * SPACING


@pytest.mark.parametrize(("displacement", "smoothness"), [(1, 12), (3.5, 14), (6, 12), (4, 8), (2, 4)])
def test_the_smooth_map_does_not_fold(displacement, smoothness):
    for seed in range(4):
        field = displacement_field(SHAPE, SPACING, _warp(seed, displacement, smoothness))
        assert _smallest_corner(field, SPACING) > 0


def test_a_folding_map_would_be_seen():
    field = np.zeros((3, *SHAPE), np.float32)
    field[0] = -2 * np.arange(SHAPE[0])[:, None, None]
    assert not is_fold_free(field, SPACING)


def test_neighbours_that_change_places_are_a_fold_though_every_other_voxel_keeps_its_order():
    field = np.zeros((3, *SHAPE), np.float32)
    field[1, :, 20] = 1.5  # past the next voxel, which stays
    assert _smallest_corner(field, SPACING) == pytest.approx(-0.5)
    assert not is_fold_free(field, SPACING)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("squeezed", "expected"), [(0.99, True), (1.0, False), (1.01, False), (1.2, False)])
def test_a_map_squeezed_flat_or_barely_past_it_is_a_fold(axis, squeezed, expected):
    field = np.zeros((3, *SHAPE), np.float32)
    field[axis] = -squeezed * SPACING[axis] * np.indices(SHAPE)[axis]
    assert _smallest_corner(field, SPACING) == pytest.approx(1 - squeezed, abs=1e-5)
    assert is_fold_free(field, SPACING) is expected


# Central differences over two voxels see none of these folds.
@pytest.mark.parametrize(
    ("displacement", "smoothness", "spacing"),
    [(1.5, 2, (1, 1, 1)), (0.6, 0.6, (1, 1, 1)), (2, 3, (3, 3, 3))],
)
def test_what_is_refused_as_folded_is_what_folds_by_linear_algebra(displacement, smoothness, spacing, monkeypatch):
    monkeypatch.setattr(deformation, "is_fold_free", lambda *_: True)
    fields = [displacement_field((16, 16, 16), spacing, _warp(seed, displacement, smoothness)) for seed in range(12)]
    folds = [_smallest_corner(field, spacing) <= 0 for field in fields]
    assert any(folds)
    assert folds == [not is_fold_free(field, spacing) for field in fields]


@pytest.mark.parametrize(("displacement", "smoothness"), [(20, 12), (6, 4), (20, 5)])
def test_a_warp_too_strong_for_its_lattice_is_refused_and_not_folded(displacement, smoothness):
    with pytest.raises(DataError, match="folds the map") as refused:
        displacement_field(SHAPE, SPACING, _warp(1, displacement, smoothness))
    assert refused.value.exit_code == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**63 - 1), st.floats(0.5, 20), st.floats(3, 30))
def test_whatever_the_strength_a_warp_is_fold_free_or_refused(seed, displacement, smoothness):
    shape, spacing = (16, 20, 16), (2.5, 2.0, 3.0)
    try:
        field = displacement_field(shape, spacing, _warp(seed, displacement, smoothness))
    except DataError:
        return
    assert _smallest_corner(field, spacing) > 0


def test_a_gentle_displacement_has_the_strength_asked_for():
    fields = [displacement_field(SHAPE, SPACING, _warp(seed)) for seed in range(40)]
    assert np.std(fields) == pytest.approx(1.0, rel=0.2)


def test_a_displacement_is_the_same_at_another_resolution():
    coarse = displacement_field((17, 17, 17), (2, 2, 2), _warp(3, smoothness=16))
    fine = displacement_field((33, 33, 33), (1, 1, 1), _warp(3, smoothness=16))
    assert np.abs(fine[:, ::2, ::2, ::2] - coarse).max() < 0.05


def test_noise_has_unit_variance_and_no_step_at_the_border():
    noise = np.stack([smooth_noise(np.random.default_rng(i), SHAPE, SPACING, 6.0) for i in range(60)])
    assert noise.std() == pytest.approx(1, abs=0.1)
    assert noise[:, 0].std() == pytest.approx(1, abs=0.2)


def test_parameters_of_nothing_change_nothing():
    labels = _ball()
    assert np.array_equal(warp_labels(labels, SPACING, STILL, RIGID), labels)


def test_the_anatomy_moves_by_the_shift_in_millimetres():
    shifted = AffineParameters(rotation_deg=(0, 0, 0), scale=(1, 1, 1), shift_mm=(2.0, -3.0, 1.5))
    warped = warp_labels(_ball(), SPACING, shifted, RIGID)
    assert _centre_mm(warped > 0) == pytest.approx([2.0, -3.0, 1.5], abs=0.1)


def test_the_anatomy_grows_with_a_scale_above_one():
    labels = _ball(radius=7)
    grown = AffineParameters(rotation_deg=(0, 0, 0), scale=(1.2, 1.2, 1.2), shift_mm=(0, 0, 0))
    assert (warp_labels(labels, SPACING, grown, RIGID) > 0).sum() / (labels > 0).sum() == pytest.approx(1.2**3, rel=0.1)


def test_a_turn_about_z_takes_right_to_front():
    labels = _ball(radius=4, centre=(8, 0, 0))
    turned = AffineParameters(rotation_deg=(0, 0, 90), scale=(1, 1, 1), shift_mm=(0, 0, 0))
    assert _centre_mm(warp_labels(labels, SPACING, turned, RIGID) > 0) == pytest.approx([0, 8, 0], abs=0.3)


def test_a_warp_brings_no_new_label_and_keeps_a_structure_whole():
    from scipy.ndimage import label

    warped = warp_labels(_ball(), SPACING, STILL, _warp(5, 3.0))
    assert set(np.unique(warped)) == {0, 2, 3}
    assert label(warped > 0)[1] == 1


def test_surfaces_stay_smoother_than_by_nearest_neighbour():
    from scipy.ndimage import map_coordinates

    from fedphantom.common.labels.deformation import sampling_points

    labels, rng = _ball(), np.random.default_rng(0)
    ours, nearest = 0, 0
    for seed in range(5):
        affine = draw_affine(rng, 6, 0.08, 2)
        points = sampling_points(SHAPE, SPACING, affine, _warp(seed))
        ours += _surface(warp_labels(labels, SPACING, affine, _warp(seed)) > 0)
        nearest += _surface(map_coordinates(labels, points, order=0, mode="nearest") > 0)
    assert ours < nearest


def _surface(mask):
    """Isolated corners: voxels whose six neighbours mostly disagree with them."""
    padded = np.pad(mask, 1).astype(int)
    same = sum((np.roll(padded, step, axis) == padded).astype(int) for axis in range(3) for step in (-1, 1))
    return int((same <= 3).sum())


def test_draws_stay_in_their_ranges_and_repeat_by_seed():
    drawn = [draw_affine(np.random.default_rng(i), 6, 0.08, 2) for i in range(200)]
    values = (
        np.array([d.rotation_deg for d in drawn]),
        np.array([d.scale for d in drawn]),
        np.array([d.shift_mm for d in drawn]),
    )
    assert 5 < np.abs(values[0]).max() <= 6
    assert 0.07 < np.abs(values[1] - 1).max() <= 0.08
    assert 1.8 < np.abs(values[2]).max() <= 2
    assert drawn[7] == draw_affine(np.random.default_rng(7), 6, 0.08, 2) != drawn[8]
    assert draw_diffeomorphism(np.random.default_rng(7), 1, 12) == draw_diffeomorphism(np.random.default_rng(7), 1, 12)
