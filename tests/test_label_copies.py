"""The search for a patient's own label map among released ones, whichever way it was moved."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from fedphantom.privacy.attacks.interface import AuditedScans
from fedphantom.privacy.attacks.label_copies import copied_label_maps, label_copies
from fedphantom.privacy.evidence import CopiedLabels

SHAPE = (24, 28, 22)
Map = NDArray[np.uint8]


def a_map(draw: np.random.Generator, common: NDArray[np.float64]) -> Map:
    """A structure with a part inside it: the anatomy that all share, and as much again that is the person's own."""
    own = ndimage.gaussian_filter(draw.normal(size=SHAPE), 2.5)
    field = common + 0.5 * own / own.std()
    return np.select([field > 0.9, field > 0.2], [2, 1], 0).astype(np.uint8)


def people(number: int = 12, seed: int = 0) -> AuditedScans:
    draw = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    common = 1.6 - 3.2 * np.sqrt(sum((axis * k) ** 2 for axis, k in zip(axes, (1.1, 0.9, 1.2), strict=True)))
    labels = np.stack([a_map(draw, common) for _ in range(number)])
    names = tuple(f"p{i:02d}" for i in range(number))
    empty = np.zeros((number, 1, *SHAPE), np.float32)
    return AuditedScans(empty, labels, names, ("A",) * number, tuple(i % 2 == 0 for i in range(number)))


def moved(label: Map, shift: tuple[float, float, float], degrees: float = 0.0, scale: float = 1.0) -> Map:
    angle, turn = math.radians(degrees), np.eye(3)
    turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    centre = (np.array(SHAPE) - 1) / 2
    offset = centre - turn / scale @ (centre + np.array(shift))
    return np.asarray(ndimage.affine_transform(label, turn / scale, offset, order=0), np.uint8)


DISGUISES: dict[str, Callable[[Map], Map]] = {
    "none": lambda x: x,
    "half a voxel": lambda x: moved(x, (0.5, 0.5, -0.5)),
    "three voxels": lambda x: moved(x, (3, -3, 2)),
    "a mirror": lambda x: x[::-1],
    "a mirror, moved": lambda x: moved(x[::-1], (1.3, 0, -2.4)),
    "a turn of five degrees": lambda x: moved(x, (0.4, 0, 1), 5),
    "five percent larger": lambda x: moved(x, (0, 0, 0), scale=1.05),
    "all at once": lambda x: moved(x[::-1], (1.5, -2, 0.7), 4, 1.03),
}


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES.keys())
def test_a_label_map_is_found_behind_every_disguise(disguise: Callable[[Map], Map]) -> None:
    scans = people()
    found = copied_label_maps(scans, np.stack([disguise(scans.labels[i]) for i in (0, 3)]))
    assert np.argwhere(found).tolist() == [[0, 0], [3, 1]]


def test_label_maps_of_other_people_the_common_shape_and_an_empty_map_are_nobodys() -> None:
    scans = people(24)
    rest = scans.take(np.arange(12))
    middle = np.median(scans.labels, axis=0).astype(np.uint8)
    strangers = np.concatenate([scans.labels[12:], middle[None], np.zeros((1, *SHAPE), np.uint8)])
    assert not copied_label_maps(rest, strangers).any()


def test_a_label_map_deformed_by_a_tenth_of_the_grid_is_not_caught() -> None:
    scans = people()
    draw = np.random.default_rng(3)
    bend = [ndimage.gaussian_filter(draw.normal(size=SHAPE), 3) for _ in range(3)]
    places = [axis + 2.5 * by / by.std() for axis, by in zip(np.indices(SHAPE), bend, strict=True)]
    deformed = ndimage.map_coordinates(scans.labels[0], places, order=0)
    assert not copied_label_maps(scans, deformed[None]).any()


def test_another_label_in_the_same_outline_is_another_map() -> None:
    scans = people()
    inside_out = np.array([0, 2, 1], np.uint8)[scans.labels[:1]]
    assert not copied_label_maps(scans, inside_out).any()


def test_one_persons_map_under_two_names_is_found_once() -> None:
    scans = people()
    scans.labels[5] = scans.labels[0]
    found = copied_label_maps(scans, moved(scans.labels[0], (2, -1, 0))[None])
    assert found[[0, 5]].sum() == found.sum() == 1


def test_copies_are_counted_by_whose_they_are() -> None:
    scans = people()
    holdout = np.array([i in (1, 3, 5) for i in range(len(scans))])  # 7, 9 and 11 trained, and are no audited members
    released = np.stack([scans.labels[0], moved(scans.labels[2], (0, 2, 0)), scans.labels[3], scans.labels[7]])
    assert label_copies(scans, holdout, released) == CopiedLabels(released=4, member=2, holdout=1)
    told: list[tuple[int, int]] = []
    same = label_copies(scans, holdout, released, lambda done, total: told.append((done, total)), workers=1)
    assert same == CopiedLabels(4, 2, 1)
    assert told == [(i, 4) for i in range(1, 5)]


def test_the_order_of_the_scans_does_not_matter() -> None:
    scans = people()
    order = np.random.default_rng(1).permutation(len(scans))
    released = np.stack([moved(scans.labels[i], (1, 0, -2), 3) for i in (2, 4, 9)])
    found = copied_label_maps(scans, released)
    np.testing.assert_array_equal(copied_label_maps(scans.take(order), released), found[order])
    assert found.sum() == 3
