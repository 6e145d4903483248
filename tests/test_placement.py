"""Any orientation and spacing ends on the study's grid, volume and label map alike."""

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff
from scipy.ndimage import gaussian_filter

from fedphantom.common.errors import GeometryError
from fedphantom.common.volumes.grid import Grid
from fedphantom.common.volumes.placement import (
    covering_grid,
    labels_on_volume,
    place_labels,
    place_volume,
    to_canonical,
)


def _volume(shape=(8, 10, 12)):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _turned(voxels, affine, codes):
    """The same volume as a scanner with other axes would store it."""
    orientation = axcodes2ornt(codes, (("L", "R"), ("P", "A"), ("I", "S")))
    back = np.array([[int(np.flatnonzero(orientation[:, 0] == i)[0]), 0] for i in range(3)], dtype=float)
    back[:, 1] = orientation[back[:, 0].astype(int), 1]
    stored = apply_orientation(voxels, back)
    return stored, affine @ inv_ornt_aff(back, voxels.shape)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL", "ASR"])
def test_the_storage_order_of_the_axes_does_not_matter(codes):
    voxels, affine = _volume(), np.diag([1.0, 2.0, 3.0, 1.0])
    stored, stored_affine = _turned(voxels, affine, codes)
    canonical, spacing = to_canonical(stored, stored_affine)
    assert np.array_equal(canonical, voxels)
    assert spacing == pytest.approx((1, 2, 3))


def test_a_volume_on_the_grid_already_comes_back_unchanged():
    voxels = _volume((8, 16, 8))
    assert np.array_equal(place_volume(voxels, np.diag([1.004, 1, 1, 1.0]), Grid((8, 16, 8), (1, 1, 1))), voxels)


def test_the_middle_is_cropped_and_padded_with_zeros():
    voxels = np.arange(1, 7, dtype=np.float32)[:, None, None] * np.ones((6, 2, 2), np.float32)
    placed = place_volume(voxels, np.eye(4), Grid((4, 4, 2), (1, 1, 1)))
    assert placed[:, 1, 0].tolist() == [2, 3, 4, 5]
    assert not placed[:, [0, 3], :].any()


def test_volume_and_label_map_stay_aligned_when_resampled():
    labels = np.zeros((20, 24, 16), np.uint8)
    labels[5:13, 6:17, 4:11] = 3
    grid = Grid((16, 16, 16), (1.5, 1.5, 1.5))
    placed = place_labels(labels, np.eye(4), grid)
    shares = place_volume((labels == 3).astype(np.float32), np.eye(4), grid)
    assert set(np.unique(placed)) == {0, 3}
    assert (
        np.array_equal(placed == 3, shares > 0.5)
        or (np.abs(shares[(placed == 3) != (shares > 0.5)] - 0.5) < 1e-3).all()
    )
    assert (placed == 3).sum() * 1.5**3 == pytest.approx((labels == 3).sum(), rel=0.25)


def test_a_structure_keeps_its_place_in_the_world_when_the_spacing_changes():
    labels = np.zeros((32, 32, 32), np.uint8)
    labels[4:12, 10:22, 16:28] = 1
    fine = place_labels(labels, np.diag([2.0, 2, 2, 1]), Grid((64, 64, 64), (1, 1, 1)))
    centre = (np.argwhere(fine).mean(axis=0) - 31.5) * 1
    assert centre == pytest.approx((np.argwhere(labels).mean(axis=0) - 15.5) * 2, abs=0.1)


def test_a_coarser_grid_averages_instead_of_skipping_voxels():
    stripes = np.zeros((32, 8, 8), np.float32)
    stripes[::2] = 1
    placed = place_volume(stripes, np.eye(4), Grid((8, 8, 8), (4, 1, 1)))
    assert placed[2:6] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    "affine",
    {
        "zero spacing": np.diag([1.0, 0, 1, 1]),
        "two equal axes": np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        "not finite": np.diag([1.0, np.nan, 1, 1]),
        "wrong shape": np.eye(3),
    }.values(),
    ids=["zero spacing", "two equal axes", "not finite", "wrong shape"],
)
def test_a_singular_affine_is_refused(affine):
    with pytest.raises(GeometryError):
        place_volume(_volume(), affine, Grid((8, 8, 8), (1, 1, 1)))


def test_a_4d_volume_is_refused():
    with pytest.raises(GeometryError, match="4 axes"):
        place_volume(np.zeros((4, 4, 4, 2), np.float32), np.eye(4), Grid((8, 8, 8), (1, 1, 1)))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL", "ASR", "IRP"])
def test_labels_come_back_from_the_covering_grid_to_where_the_volume_lies(codes):
    blobs = gaussian_filter(_volume((30, 36, 24)), 3)
    labels = np.digitize(blobs, [-0.02, 0.03]).astype(np.uint8) * 3
    stored, affine = _turned(labels, np.diag([1.0, 1.2, 2.0, 1.0]), codes)
    grid = covering_grid(stored.shape, affine, (1.5, 1.5, 1.5))
    assert grid.shape == (20, 29, 32)
    placed = place_labels(stored, affine, grid)
    shares = np.stack([(placed == value).astype(np.float32) for value in (0, 3, 6)])
    back = labels_on_volume(shares, (0, 3, 6), stored.shape, affine, grid.spacing_mm)
    assert back.shape == stored.shape
    assert (back != stored).mean() < 0.05
    mirrored = labels_on_volume(shares[:, ::-1], (0, 3, 6), stored.shape, affine, grid.spacing_mm)
    assert (mirrored != stored).mean() > 0.3


def test_a_volume_at_the_grids_spacing_comes_back_voxel_by_voxel():
    labels = np.random.default_rng(1).integers(0, 3, (9, 8, 7)).astype(np.uint8)
    stored, affine = _turned(labels, np.eye(4), "PIR")
    placed = place_labels(stored, affine, covering_grid(stored.shape, affine, (1, 1, 1)))
    shares = np.stack([(placed == value).astype(np.float32) for value in range(3)])
    assert np.array_equal(labels_on_volume(shares, (0, 1, 2), stored.shape, affine, (1, 1, 1)), stored)
