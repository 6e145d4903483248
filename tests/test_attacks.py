"""Attacks find what they should and nothing else; a branch that did nothing would be seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from memorisers import (
    GRID,
    IGNORANT,
    STRANGERS,
    Memory,
    attack_on,
    battery,
    make_scans,
    memory_of,
    released_by,
    released_labels,
)

from fedphantom.common.errors import DataError
from fedphantom.privacy.attacks.battery import Battery
from fedphantom.privacy.attacks.distances import distances, isolation
from fedphantom.privacy.attacks.gan_leaks import nearness
from fedphantom.privacy.attacks.interface import (
    AttackScores,
    AuditedScans,
    Images,
    Labels,
    Networks,
    Reconstruct,
    by_patient,
    foreground,
    paint,
)
from fedphantom.privacy.attacks.knowledge import ShownSet
from fedphantom.privacy.attacks.own_map import OwnMapErrors, own_map_errors
from fedphantom.privacy.statistics import auc


def test_a1_recognises_a_generator_that_learnt_members_by_heart() -> None:
    scans = make_scans(40)
    attack = attack_on(battery(scans), memory_of(scans, member=True), "A1")
    assert (attack.id, attack.threat_model) == ("A1", "G")
    assert auc(attack.scores()) == 1.0


def test_a1_turns_round_where_the_holdout_was_learnt() -> None:
    scans = make_scans(40)
    assert auc(attack_on(battery(scans), memory_of(scans, member=False), "A1").scores()) == 0.0


def test_a1_finds_nothing_in_a_generator_that_saw_nobody() -> None:
    scans = make_scans(40)
    attack = attack_on(battery(scans), Memory(scans.images[:0], scans.labels[:0]), "A1")
    assert np.allclose(attack.score, 0)  # the very same generator as the reference


def test_calibration_forgives_members_that_are_merely_easy() -> None:
    scans = make_scans(60, seed=4)
    easy = np.array(scans.member)[:, None, None, None, None]
    images = np.where(easy, scans.labels[:, None] + 0.3 * (scans.images - scans.labels[:, None]), scans.images)
    scans = replace(scans, images=images.astype(np.float32))
    tools = battery(scans)
    errors = own_map_errors(IGNORANT, scans, tools.known.judged, 1, 3)
    assert auc(by_patient("A1", scans, -errors).scores()) == 1.0
    other_noise: Reconstruct = lambda labels, seed: IGNORANT(labels, seed + 1)  # noqa: E731  # a name and its type
    assert auc(attack_on(tools, other_noise, "A1").scores()) < 0.75


def test_the_best_of_several_noise_draws_counts() -> None:
    scans = make_scans(6)
    judged = np.ones(scans.labels.shape, bool)

    third: list[int] = []

    def lucky(labels: Labels, noise_seed: int) -> Images:
        third.append(noise_seed)
        return scans.images if len(third) == 3 else np.zeros_like(scans.images)

    assert own_map_errors(lucky, scans, judged, 2, 3).min() > 0
    third.clear()
    assert own_map_errors(lucky, scans, judged, 3, 3).max() == 0
    assert len(set(third)) == 3


@pytest.mark.parametrize(("noise", "draws"), [(0.0, 2), (1e-4, 2), (3.0, 8)])
def test_so_many_draws_are_painted_as_still_tell_scans_apart_otherwise(noise: float, draws: int) -> None:
    scans = make_scans(30)
    asked: list[int] = []

    def noisy(labels: Labels, seed: int) -> Images:
        asked.append(seed)
        volumes = np.random.default_rng(seed).normal(0, 1, (len(labels), 1, 1, 1, 1))  # one number a volume
        return (0.5 * scans.images[: len(labels)] + noise * volumes).astype(np.float32)

    errors = OwnMapErrors(scans, np.ones(scans.labels.shape, bool))
    assert errors.settled(8, noisy, 3) == draws
    smallest = errors.after(draws, noisy, 3)
    assert len(set(asked)) == len(asked) == len(errors.each) == draws  # what was painted is not painted again
    np.testing.assert_array_equal(smallest, own_map_errors(noisy, scans, np.ones(scans.labels.shape, bool), draws, 3))


class Restless:
    """Half remembers members, and lays one number over every volume, drawn anew, that drowns that in any one draw."""

    def __init__(self, scans: AuditedScans) -> None:
        self.known = memory_of(scans, member=True).known
        self.asked: list[int] = []

    def __call__(self, labels: Labels, noise_seed: int) -> Images:
        self.asked.append(noise_seed)
        rng = np.random.default_rng(noise_seed)
        over = 1.5 * rng.normal(0, 1, (len(labels), 1, 1, 1, 1))
        made = [x + 0.3 * (self.known.get(m.tobytes(), x) - x) for m, x in zip(labels, plain(labels, 0), strict=True)]
        return (np.stack(made) + over).astype(np.float32)


def plain(labels: Labels, noise_seed: int) -> Images:
    """Paints the labels, whatever the noise."""
    return np.stack([labels, labels], axis=1).astype(np.float32)


def asking(most: int, scans: AuditedScans) -> Battery:
    """With a reference that settles at once."""
    quiet = replace(STRANGERS, networks=Networks(plain))
    tools = Battery.calibrate(scans, quiet, released_labels(), most, 5, lambda images: images)
    assert tools.known.draws == 2
    return tools


def test_a1_asks_a_restless_generator_as_often_as_it_needs_though_the_reference_settles_at_once() -> None:
    scans = make_scans(60)
    areas = {}
    for most in (2, 8):
        target = Restless(scans)
        areas[most] = auc(attack_on(asking(most, scans), target, "A1").scores())
        assert len(set(target.asked)) == len(target.asked) == 2 * most  # in two batches each
    assert areas[2] < 0.85
    assert areas[8] > 0.95


def test_how_often_one_target_was_asked_changes_nothing_for_another() -> None:
    scans = make_scans(40)

    def quiet(tools: Battery) -> AttackScores:
        return attack_on(tools, memory_of(scans, member=True), "A1")

    alone, after = asking(16, scans), asking(16, scans)
    attack_on(after, Restless(scans), "A1")
    np.testing.assert_array_equal(quiet(alone).score, quiet(after).score)


def test_the_error_is_the_mean_square_over_judged_voxels_and_channels() -> None:
    scans = make_scans(4)
    judged = scans.labels > 0
    errors = own_map_errors(lambda labels, seed: np.zeros_like(scans.images), scans, judged, 1, 3)
    expected = [np.mean(x[:, w].astype(float) ** 2) for x, w in zip(scans.images, judged, strict=True)]
    assert errors == pytest.approx(expected)


def test_one_recognised_scan_gives_the_patient_away() -> None:
    scans = make_scans(20, scans_each=3)
    attack = by_patient("A1", scans, np.arange(60.0))
    assert len(attack.patients) == 20
    assert attack.score.tolist() == [3 * i + 2 for i in range(20)]
    assert attack.is_member.tolist() == [i % 2 == 0 for i in range(20)]
    assert attack.sites == tuple("AB"[(i // 2) % 2] for i in range(20))


def test_a_scan_without_a_score_is_an_error_even_beside_a_good_one() -> None:
    scans = make_scans(4, scans_each=2)
    score = np.arange(8.0)
    score[3] = np.nan
    with pytest.raises(DataError):
        by_patient("A1", scans, score)


def test_a3_recognises_a_released_set_that_holds_members() -> None:
    scans = make_scans(40)
    tools = battery(scans)
    members = scans.images[scans.of(scans.side(True))]
    attack = attack_on(tools, IGNORANT, "A3", members)
    assert (attack.id, attack.threat_model) == ("A3", "S")
    assert auc(attack.scores()) == 1.0
    assert np.allclose(attack_on(tools, IGNORANT, "A3").score, 0)


def test_a3_on_own_label_maps_recognises_a_generator_whose_released_set_shows_nothing() -> None:
    scans = make_scans(40)
    tools = battery(scans)
    attack = attack_on(tools, memory_of(scans, member=True), "A3/own")
    assert (attack.id, attack.threat_model) == ("A3/own", "G")
    assert auc(attack.scores()) == 1.0
    assert auc(attack_on(tools, memory_of(scans, member=True), "A3").scores()) == 0.5


def test_a3_needs_only_one_near_volume() -> None:
    scans = make_scans(40)
    tools = battery(scans)
    one = np.concatenate([released_by(tools, IGNORANT), scans.images[:1] + np.float32(0.01)])
    assert np.argmax(attack_on(tools, IGNORANT, "A3", one).score) == 0


def test_distances_are_root_mean_squares_in_judged_voxels() -> None:
    scans = make_scans(3)
    judged = scans.labels > 0
    other = make_scans(20, seed=8).images
    expected = [
        [np.sqrt(np.mean((s[:, w] - x[:, w]).astype(float) ** 2)) for s in other]
        for x, w in zip(scans.images, judged, strict=True)
    ]
    assert distances(scans, judged, other) == pytest.approx(np.array(expected), rel=1e-5)


def test_a3_scores_are_less_the_farther_the_release() -> None:
    near, far, reference = (ShownSet(np.full((4, 2), distance), np.zeros((2, 3))) for distance in (1.0, 2.0, 3.0))
    assert (nearness(near, reference) > nearness(far, reference)).all()


def test_the_lonely_quartile_is_cut_alike_for_members_and_holdout() -> None:
    scans = make_scans(40)
    images = scans.images.copy()
    far = [3, 8, 15, 22]
    images[far] += np.random.default_rng(1).normal(0, 3, images[far].shape).astype(np.float32)
    tools = battery(replace(scans, images=images))
    outliers = tools.outliers()
    assert len(outliers) == 10
    assert {f"p{i:03d}" for i in far} <= set(outliers)


def test_a_patients_own_scans_are_no_neighbours() -> None:
    scans = make_scans(8, scans_each=2)
    images = scans.images.copy()
    images[1::2] = images[::2]
    lonely = isolation(replace(scans, images=images), np.ones(scans.labels.shape, bool))
    assert min(lonely.values()) > 0.5


def test_loneliness_is_the_mean_distance_to_five_neighbours_so_that_a_lonely_pair_is_lonely() -> None:
    scans = make_scans(8)
    images = np.zeros_like(scans.images)
    images[:] = np.array([0, 1, 2, 3, 4, 5, 50, 50.5], np.float32)[:, None, None, None, None]
    lonely = isolation(replace(scans, images=images), np.ones(scans.labels.shape, bool))
    assert lonely["p000"] == pytest.approx((1 + 2 + 3 + 4 + 5) / 5)
    assert lonely["p006"] == pytest.approx((0.5 + 45 + 46 + 47 + 48) / 5)
    assert sorted(lonely, key=lonely.__getitem__)[-2:] == ["p006", "p007"]


def test_background_and_padding_are_not_judged() -> None:
    labels = np.zeros((1, 16, 16, 16), np.uint8)
    labels[0, 8, 8, 8] = 1
    images = np.random.default_rng(0).normal(size=(1, 2, 16, 16, 16)).astype(np.float32)
    images[0, :, :8] = -1.0  # constant padding reaches into the margin
    judged = foreground(images, labels)[0]
    assert judged[8, 8, 8]
    assert judged[11, 8, 8]
    assert not judged[12, 8, 8]
    assert not judged[7, 8, 8]


def test_a_volume_without_labels_is_judged_everywhere_but_in_its_padding() -> None:
    images = np.ones((1, 1, 8, 8, 8), np.float32)
    assert foreground(images, np.zeros((1, 8, 8, 8), np.uint8)).all()
    images[0, 0, 4] = 2
    assert foreground(images, np.zeros((1, 8, 8, 8), np.uint8))[0].sum() == 64


def test_a_generator_is_run_in_small_batches_in_order() -> None:
    sizes: list[int] = []
    seeds: set[int] = set()

    def generator(labels: Labels, noise_seed: int) -> Images:
        sizes.append(len(labels))
        seeds.add(noise_seed)
        return labels[:, None].astype(np.float32)

    labels = np.arange(70, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 2), np.uint8)
    painted = np.concatenate(list(paint(generator, labels, 3)))
    assert (painted[:, 0, 0, 0, 0] == np.arange(70)).all()
    assert max(sizes) <= 32
    assert len(seeds) == len(sizes)  # no two batches share their noise
    large = np.zeros((3, 155, 155, 155), np.uint8)
    assert [len(batch) for batch in paint(generator, large, 3)] == [1, 1, 1]


@pytest.mark.parametrize(
    "broken",
    [
        lambda labels, seed: np.full((len(labels), 1, *GRID), np.nan, np.float32),
        lambda labels, seed: np.zeros((len(labels), 1, 4, 4, 4), np.float32),
        lambda labels, seed: np.zeros((1, 1, *GRID), np.float32),
    ],
    ids=["not finite", "another grid", "too few"],
)
def test_a_broken_generator_is_refused(broken) -> None:  # type: ignore[no-untyped-def]  # a table of lambdas
    with pytest.raises(DataError):
        list(paint(broken, np.zeros((3, *GRID), np.uint8), 0))
