"""A channel's own percentiles become -1 and 1, and air stays air."""

from __future__ import annotations

import numpy as np
import pytest

from fedphantom.common.cohorts.preparation import background_at_zero, normalise
from fedphantom.common.volumes.grid import Grid
from fedphantom.common.volumes.placement import place_volume

# Normalisation


def test_a_channels_own_percentiles_become_minus_one_and_one() -> None:
    volume = np.zeros((10, 10, 20), np.float32)
    volume[:, :, :10] = np.linspace(1, 1001, 1000).reshape(10, 10, 10)
    out = normalise(volume)
    assert out.dtype == np.float32
    assert (out[:, :, 10:] == -1).all()
    assert (out.min(), out.max()) == (-1, 1)
    middle = np.abs(volume - 501).argmin()
    assert out.reshape(-1)[middle] == pytest.approx(0, abs=0.01)
    assert (out[volume > 0] == 1).sum() == pytest.approx(5, abs=1)  # 0.5 % above


def scan_with_air(air: float, tissue: float) -> np.ndarray:
    volume = np.full((12, 12, 12), air, np.float32)
    volume[3:9, 3:9, 3:9] += tissue * np.random.default_rng(0).uniform(0.1, 1, (6, 6, 6)).astype(np.float32)
    return volume


@pytest.mark.parametrize(("air", "tissue"), [(-1.0, 2.0), (-1024.0, 900.0), (7.0, 40.0)])
def test_a_scan_scaled_after_its_skull_was_stripped_is_prepared_as_before(air: float, tissue: float) -> None:
    grid, affine = Grid((16, 16, 16), (1.0, 1.0, 1.0)), np.eye(4)
    scaled, plain = (
        normalise(place_volume(background_at_zero(scan_with_air(level, tissue)), affine, grid)) for level in (air, 0.0)
    )
    np.testing.assert_allclose(scaled, plain, atol=1e-4)
    assert (scaled == -1).mean() > 0.9  # air, also what was laid around it
    assert (scaled == 1).sum() < 5  # percentiles of the tissue alone


@pytest.mark.parametrize("fewer", [0.0, 0.05])
def test_scans_whose_air_is_zero_or_whose_least_value_is_rare_are_left_as_they_are(fewer: float) -> None:
    volume = scan_with_air(0.0, 100.0)
    volume.reshape(-1)[: int(fewer * volume.size)] = -3
    assert background_at_zero(volume) is volume


def test_background_stays_apart_from_foreground_below_zero() -> None:
    volume = np.array([[[0.0, -50.0, -10.0, 30.0]]], np.float32)
    out = normalise(volume)
    assert out[0, 0, 0] == -1
    assert out[0, 0, 1] < out[0, 0, 2] < out[0, 0, 3]


@pytest.mark.parametrize("volume", [np.zeros((2, 2, 2), np.float32), np.full((2, 2, 2), 7, np.float32)])
def test_empty_and_constant_channels_stay_finite(volume: np.ndarray) -> None:
    out = normalise(volume)
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= 1


def test_the_scale_of_a_scan_does_not_matter() -> None:
    volume = np.random.default_rng(0).uniform(1, 100, (4, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(normalise(volume), normalise(volume * 64), atol=1e-5)
