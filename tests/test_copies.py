"""A copy of a scan among released volumes is found, and nearness that others share is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from memorisers import (
    IGNORANT,
    battery,
    copies,
    make_scans,
    released_by,
)

from fedphantom.privacy.attacks.copies import Copies, confirmed_copies
from fedphantom.privacy.attacks.distances import distances


def test_a_copy_is_confirmed_once_for_each_volume_that_repeats_a_patient() -> None:
    scans = make_scans(20)
    tools = battery(scans)
    release = np.concatenate([released_by(tools, IGNORANT), scans.images[[0, 0, 2]]])
    assert copies(tools, release) == Copies(volumes=3, members=2)
    noisy = release + np.random.default_rng(0).normal(0, 0.05, release.shape).astype(np.float32)
    assert copies(tools, noisy) == Copies(volumes=3, members=2)
    assert copies(tools, released_by(tools, IGNORANT)) == Copies(0, 0)


@pytest.mark.parametrize(("share", "copies"), [(0.018, 1), (0.022, 0), (0.1, 0)])
def test_a_copy_leaves_less_than_a_fiftieth_of_a_scans_variance(share: float, copies: int) -> None:
    scans = make_scans(20)
    judged = np.ones(scans.labels.shape, bool)
    noise = np.random.default_rng(3).normal(size=scans.images[0].shape)
    off = noise * np.sqrt(share * scans.images[0].var() / np.mean(noise**2))
    release = (scans.images[0] + off).astype(np.float32)[None]
    assert confirmed_copies(scans, judged, distances(scans, judged, release)) == Copies(copies, copies)


def test_a_planted_copy_of_a_stranger_is_a_copy_too_and_silences_no_other() -> None:
    scans = make_scans(20)
    tools = battery(scans)
    release = np.concatenate([released_by(tools, IGNORANT), scans.images[[0, 2, 1]]])  # 1 is a holdout patient
    assert copies(tools, release) == Copies(volumes=3, members=2)


def test_two_scans_of_one_patient_are_no_contrast() -> None:
    scans = make_scans(10, scans_each=2)
    images = scans.images.copy()
    images[1] = images[0]
    tools = battery(replace(scans, images=images))
    assert copies(tools, images[:1]) == Copies(volumes=1, members=1)


def test_nearness_that_other_patients_share_confirms_no_copy_of_that_volume_alone() -> None:
    scans = make_scans(20)
    judged = np.ones(scans.labels.shape, bool)
    images = scans.images.copy()
    # A grid so coarse that four people look alike: 1 % of a scan's variance tells them apart.
    images[:4] = images[0] + np.random.default_rng(3).normal(0, 0.1, images[:4].shape).astype(np.float32)
    alike = replace(scans, images=images)
    assert confirmed_copies(alike, judged, distances(alike, judged, images[:3])) == Copies(0, 0)
    assert confirmed_copies(alike, judged, distances(alike, judged, images[[0, 6]])) == Copies(1, 1)


@pytest.mark.parametrize("rounding", [0.0, 1e-3], ids=["voxel by voxel", "but for rounding"])
def test_two_patients_with_the_same_scan_do_not_hide_a_copy_of_it(rounding: float) -> None:
    scans = make_scans(20)
    judged = np.ones(scans.labels.shape, bool)
    images = scans.images.copy()
    images[1] = images[0] + np.random.default_rng(3).normal(0, rounding, images[0].shape).astype(np.float32)
    images[2] = images[0]  # a member and a holdout patient beside another member
    twice = replace(scans, images=images)
    assert confirmed_copies(twice, judged, distances(twice, judged, images[[0]])) == Copies(volumes=1, members=2)
    assert confirmed_copies(twice, judged, distances(twice, judged, images[[0, 0, 6]])) == Copies(3, 3)


def test_a_person_under_two_identifiers_is_still_contrasted_with_others() -> None:
    scans = make_scans(20)
    judged = np.ones(scans.labels.shape, bool)
    images = scans.images.copy()
    images[1] = images[0]
    images[2] = images[0] + np.random.default_rng(3).normal(0, 0.1, images[0].shape).astype(np.float32)
    alike = replace(scans, images=images)
    assert confirmed_copies(alike, judged, distances(alike, judged, images[[0]])) == Copies(0, 0)


def test_suspects_come_in_an_order_of_suspicion_accused_pairs_before_those_merely_near() -> None:
    scans = make_scans(20)
    judged = np.ones(scans.labels.shape, bool)
    strangers = make_scans(30, seed=1).images[20:]
    noisy = scans.images[3] + np.random.default_rng(0).normal(0, 0.05, scans.images[3].shape).astype(np.float32)
    release = np.concatenate([strangers[:5], noisy[None], scans.images[[2]], strangers[5:]])
    found = confirmed_copies(scans, judged, distances(scans, judged, release)).suspects
    assert [(one.volume, one.scan, one.accused) for one in found[:2]] == [(6, 2, True), (5, 3, True)]
    assert not any(one.accused for one in found[2:])
    assert len({one.volume for one in found}) == len(found) == len(release)
