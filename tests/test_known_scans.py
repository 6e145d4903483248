"""Scans exported a second time are known again; other people's are not, however alike on a coarse grid."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from fedphantom.privacy.attacks.known_scans import known_scans

Volumes = NDArray[np.float32]


def people(number: int, seed: int, shape: tuple[int, int, int] = (17, 20, 18)) -> Volumes:
    """Of one anatomy, with as much again that is each one's own."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(number, 2, *shape)), (0, 0, 2, 2, 2))
    common = ndimage.gaussian_filter(np.random.default_rng(99).normal(size=(2, *shape)), (0, 2, 2, 2))
    return np.asarray(common + smooth, np.float32)


@pytest.mark.parametrize("error", [0.0, 1e-6, 5e-3], ids=["the very voxels", "rounded", "as 8-bit integers round"])
def test_a_scan_exported_twice_is_known_again(error: float) -> None:
    known = people(6, seed=1)
    again = known[[4, 1]] + np.float32(error * known.std()) * np.random.default_rng(2).normal(size=known[:2].shape)
    scans = np.concatenate([people(2, seed=3), again.astype(np.float32)])
    assert known_scans(scans, known).tolist() == [False, False, True, True]


def test_another_scan_that_is_the_same_on_the_coarse_grid_is_another() -> None:
    known = people(1, seed=1, shape=(16, 16, 16))
    fine = np.indices((16, 16, 16)).sum(axis=0) % 2 * 2 - 1  # averages out over cubes of two voxels
    assert not known_scans(known + np.float32(0.3 * known.std()) * fine.astype(np.float32), known).any()


def test_of_nobody_nothing_is_known() -> None:
    known = people(2, seed=1)
    assert known_scans(known[:0], known).tolist() == []
    assert known_scans(known, known[:0]).tolist() == [False, False]
