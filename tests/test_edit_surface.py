"""A part's surface moves by millimetres along every axis, whatever the voxels' shape, or by voxels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from little_brain import HEAD, terms_of

from fedphantom.common.edits.layered import layered
from fedphantom.common.edits.operations import Resizing, Target, apply_operation
from fedphantom.common.edits.surface import distance_to_surface
from fedphantom.common.volumes.grid import Spacing

RADIUS = 15.0
SPACINGS: list[Spacing] = [(1, 1, 1), (1, 1, 3), (1, 1, 5), (5, 1, 1), (2, 2, 4)]


def ball(spacing: Spacing, radius: float = RADIUS, off_centre: float = 0.37) -> np.ndarray:
    shape = [int(70 / mm) | 1 for mm in spacing]
    axes = [(np.arange(n) - (n - 1) / 2 + off_centre) * mm for n, mm in zip(shape, spacing, strict=True)]
    return sum(a**2 for a in np.meshgrid(*axes, indexing="ij", sparse=True)) < radius**2


def millilitres(mask: np.ndarray, spacing: Spacing) -> float:
    return float(mask.sum() * np.prod(spacing) / 1000)


def of_radius(radius: float) -> float:
    return 4 / 3 * np.pi * radius**3 / 1000


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("mm", [3.0, 4.0, 6.0])
def test_a_grown_ball_has_the_volume_of_the_larger_one(spacing: Spacing, mm: float) -> None:
    grown = distance_to_surface(ball(spacing), spacing, mm) < mm
    assert millilitres(grown, spacing) == pytest.approx(of_radius(RADIUS + mm), rel=0.05)


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("mm", [3.0, 4.0])
def test_a_shrunk_ball_has_the_volume_of_the_smaller_one(spacing: Spacing, mm: float) -> None:
    shrunk = distance_to_surface(ball(spacing), spacing, 0) < -mm
    assert millilitres(shrunk, spacing) == pytest.approx(of_radius(RADIUS - mm), rel=0.08)


def test_a_body_at_the_grid_s_edge_has_its_surface_there() -> None:
    slab = np.zeros((20, 20, 20), bool)
    slab[:6] = True
    inside = distance_to_surface(slab, (2, 1, 1), 0)
    assert (inside[:6, 8:12, 8:12] < 0).all()
    assert inside[0, 10, 10] == pytest.approx(-1, abs=0.3)  # its voxels are 2 mm long: the edge is half one away
    assert np.isinf(inside[15:]).all()


def test_nothing_is_infinitely_far() -> None:
    assert np.isinf(distance_to_surface(np.zeros((8, 8, 8), bool), (1, 1, 1), 3)).all()


@pytest.mark.parametrize(("unit", "reach"), [("mm", 3), ("voxels", 9)])
def test_a_length_in_voxels_is_longer_where_voxels_are(unit: str, reach: int) -> None:
    """Three voxels of 3 mm reach three times as far as 3 mm do."""
    terms = replace(
        terms_of(head=HEAD + '[labels]\nhost = ["background"]\nforbidden = []\nhemispheres = false\n'),
        spacing_mm=(3.0, 3.0, 3.0),
    )
    labels = np.zeros((31, 31, 31), np.uint8)
    labels[12:19, 12:19, 12:19] = terms.parts[0]
    resizing = Resizing(target=Target(lesion=0), part=0, distance=3, unit=unit)  # type: ignore[arg-type]  # one of its choices
    grown = apply_operation(layered(labels, terms), resizing, terms).labels
    extent = np.flatnonzero((grown == terms.parts[0]).any(axis=(1, 2)))
    assert (len(extent) - 7) * 3 / 2 == pytest.approx(reach, abs=1.5)
