"""Volumes on a coarser grid: means of cubes, whatever the number of volumes that are shrunk together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedphantom.privacy.attacks import grids
from fedphantom.privacy.attacks.grids import cube, mostly, shrunk


def by_hand(volume: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """Of one volume (X, Y, Z): cubes that reach over the edge repeat its last voxels."""
    edge = cube(volume.shape, most)
    padded = np.pad(volume, [(0, -n % edge) for n in volume.shape], mode="edge")
    x, y, z = (n // edge for n in padded.shape)
    return np.array(padded.reshape(x, edge, y, edge, z, edge).mean(axis=(1, 3, 5)))


@given(st.tuples(*[st.integers(1, 7)] * 3), st.integers(1, 7), st.integers(0, 99))
def test_a_voxel_is_the_mean_of_its_cube(shape: tuple[int, int, int], most: int, seed: int) -> None:
    volumes = np.random.default_rng(seed).normal(size=(3, 2, *shape)).astype(np.float32)
    found = shrunk(volumes, most)
    assert max(found.shape[2:]) <= most
    for volume, small in zip(volumes.reshape(-1, *shape), found.reshape(-1, *found.shape[2:]), strict=True):
        np.testing.assert_allclose(small, by_hand(volume, most), rtol=1e-4, atol=1e-5)


def test_how_many_volumes_are_shrunk_together_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = np.random.default_rng(1).normal(size=(5, 2, 9, 8, 7)).astype(np.float32)
    together = shrunk(volumes, 4)
    monkeypatch.setattr(grids, "_AT_ONCE", 1)
    assert shrunk(volumes, 4).tobytes() == together.tobytes()


def test_bytes_become_numbers_before_their_mean_is_taken() -> None:
    assert shrunk(np.full((1, 1, 4, 4, 4), 200, np.uint8), 2).tolist() == np.full((1, 1, 2, 2, 2), 200.0).tolist()


def test_a_cube_lies_in_a_mask_where_more_than_half_of_it_does() -> None:
    mask = np.zeros((2, 2, 2, 2), dtype=bool)
    mask[0, 0] = True
    mask[1].flat[:5] = True
    assert mostly(mask, 1).ravel().tolist() == [False, True]
