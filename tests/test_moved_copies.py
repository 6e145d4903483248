"""The search for a training scan behind a synthetic volume, whichever way the scan was moved or lit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from fedphantom.privacy.attacks.copies import Copies, confirmed_copies
from fedphantom.privacy.attacks.copy_detection import copy_detection
from fedphantom.privacy.attacks.distances import distances
from fedphantom.privacy.attacks.interface import AuditedScans, Images
from fedphantom.privacy.attacks.moved_copies import search_moved
from fedphantom.privacy.attacks.once import Arrays
from fedphantom.privacy.audit.controls import perturbed
from fedphantom.privacy.statistics import auc

SHAPE = (20, 24, 20)
Volume = NDArray[np.float32]


def moved_copies(*search: Any, **options: Any) -> NDArray[np.bool_]:
    return search_moved(*search, **options).source


def people(number: int = 8, seed: int = 0) -> tuple[AuditedScans, NDArray[np.bool_]]:
    """An anatomy that all share, and as much again that is each one's own."""
    draw = np.random.default_rng(seed)

    def smooth(scale: float) -> Volume:
        field = ndimage.gaussian_filter(draw.normal(size=(2, *SHAPE)), (0, scale, scale, scale))
        return np.asarray(field / field.std(), np.float32)

    common = smooth(2.5)
    images = np.stack([common + 0.7 * smooth(1.5) + 0.05 * smooth(0.5) for _ in range(number)])
    labels = np.zeros((number, *SHAPE), np.uint8)
    labels[:, 4:-4, 4:-4, 4:-4] = 1
    judged = np.zeros(labels.shape, bool)
    judged[:, 2:-2, 2:-2, 2:-2] = True
    names = tuple(f"p{i}" for i in range(number))
    return AuditedScans(images, labels, names, ("A",) * number, (True, False) * (number // 2)), judged


def moved(volume: Volume, shift: tuple[float, float, float], degrees: float = 0.0) -> Volume:
    angle, turn = math.radians(degrees), np.eye(3)
    turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    centre = (np.array(SHAPE) - 1) / 2
    offset = centre - turn @ (centre + np.array(shift))
    return np.stack([ndimage.affine_transform(c, turn, offset, order=1, mode="nearest") for c in volume])


def unevenly_lit(volume: Volume) -> Volume:
    ramp = np.linspace(-0.3, 0.3, SHAPE[1], dtype=np.float32)[:, None]
    return volume * (1 + ramp) + 2 * ramp


DISGUISES: dict[str, Callable[[Volume], Volume]] = {
    "none": lambda x: x,
    "noise, as the audit plants it": lambda x: perturbed(x, "noise", np.random.default_rng(1)),
    "a turn and half a voxel, as the audit plants it": lambda x: perturbed(x, "affine", np.random.default_rng(1)),
    "half a voxel": lambda x: moved(x, (0.5, 0.5, -0.5)),
    "three voxels": lambda x: moved(x, (3, -3, 2)),
    "a mirror": lambda x: x[:, ::-1],
    "a mirror, moved": lambda x: moved(x[:, ::-1], (1.3, 0, -2.4)),
    "a turn of five degrees": lambda x: moved(x, (0.4, 0, 1), 5),
    "another contrast": lambda x: 0.6 * x - 0.2,
    "a bias field": unevenly_lit,
    "all at once": lambda x: perturbed(
        unevenly_lit(moved(x[:, ::-1], (1.5, -2.4, 0.7), 2)), "noise", np.random.default_rng(1)
    ),
}


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES.keys())
def test_a_scan_is_found_behind_every_disguise(disguise: Callable[[Volume], Volume]) -> None:
    scans, judged = people()
    found = moved_copies(scans, judged, np.stack([disguise(scans.images[i]) for i in (0, 3)]))
    assert np.argwhere(found).tolist() == [[0, 0], [3, 1]]


def test_volumes_searched_side_by_side_find_what_one_after_the_other_do() -> None:
    scans, judged = people()
    made = np.stack([disguise(scans.images[i % 8]) for i, disguise in enumerate(DISGUISES.values())])
    told: list[tuple[int, int]] = []
    one = moved_copies(scans, judged, made, lambda done, total: told.append((done, total)), workers=1)
    many = moved_copies(scans, judged, made, workers=4)
    assert one.any()
    np.testing.assert_array_equal(one, many)
    assert told == [(done, len(made)) for done in range(1, len(made) + 1)]


def test_other_people_and_the_average_of_all_are_nobodys_copy() -> None:
    scans, judged = people()
    rest = scans.take(np.arange(4))
    strangers: Images = np.concatenate([scans.images[4:], scans.images.mean(axis=0, keepdims=True)])
    assert not moved_copies(rest, judged[:4], strangers).any()


@pytest.mark.parametrize(("share", "source"), [(0.65, [[0, 0]]), (0.6, []), (0.5, [])])
def test_a_stranger_blended_with_a_scan_is_its_copy_only_where_the_scan_explains_four_fifths(
    share: float, source: list[list[int]]
) -> None:
    # The scan leaves .17, .24 and .41 of these volumes unexplained, and the next one at least .5.
    scans, judged = people()
    stranger = people(seed=5)[0].images[1]
    blend = share * scans.images[0] + (1 - share) * stranger
    assert np.argwhere(moved_copies(scans, judged, blend[None])).tolist() == source


def test_a_volume_as_like_one_person_as_another_names_nobody() -> None:
    scans, judged = people()
    other = people(seed=1)[0].images
    scans.images[1] = scans.images[0] + 0.2 * other[0]
    between = (scans.images[0] + scans.images[1]) / 2
    assert not moved_copies(scans, judged, moved(between, (-1, 0.5, 0))[None]).any()


def test_one_person_under_two_names_is_no_contrast() -> None:
    scans, judged = people()
    scans.images[1] = scans.images[0]
    found = moved_copies(scans, judged, moved(scans.images[0], (-0.5, 0.5, 0))[None])
    assert found[:2].sum() == 1


def test_a_moved_copy_counts_as_one_that_was_not_moved() -> None:
    scans, judged = people()
    made = np.stack([moved(scans.images[0], (2, 0, -2)), scans.images[1], scans.images.mean(axis=0)])
    plain = distances(scans, judged, made)
    assert confirmed_copies(scans, judged, plain) == Copies(volumes=1, members=0)
    assert confirmed_copies(scans, judged, plain, moved_copies(scans, judged, made)) == Copies(volumes=2, members=1)


def test_members_repeated_mirrored_or_moved_are_more_like_the_set_than_strangers() -> None:
    """A7."""
    scans, judged = people()
    a, b, c, d = (scans.images[i] for i, member in enumerate(scans.member) if member)
    released = np.stack([moved(a, (2, -2, 1)), b[:, ::-1], c, 0.5 * d + 0.1])
    searched = search_moved(scans, judged, released, workers=1)
    scores = copy_detection(scans, searched.likeness)
    assert (scores.id, scores.threat_model, auc(scores.scores())) == ("A7", "S", 1.0)
    assert searched.likeness.argmax(axis=0).tolist() == searched.source.argmax(axis=0).tolist() == [0, 2, 4, 6]


def test_likeness_is_kept_and_depends_on_no_number_of_workers() -> None:
    scans, judged = people()
    released = scans.images[[1, 4, 6]][:, :, ::-1]
    kept: dict[str, Arrays] = {}

    def once(what: str, find: Callable[[], Arrays]) -> Arrays:
        return kept[what] if what in kept else kept.setdefault(what, find())

    first = search_moved(scans, judged, released, workers=1, once=once).likeness
    assert first.max() > 0.9
    gone_on_with = search_moved(scans, judged, np.zeros_like(released), workers=1, once=once).likeness
    assert np.array_equal(first, gone_on_with)
    assert np.array_equal(first, search_moved(scans, judged, released, workers=3).likeness)
