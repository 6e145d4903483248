"""What every attack owes: it finds a planted leak, nothing where nothing is, and depends on nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import stats

from fedphantom.common.errors import DataError
from fedphantom.privacy.attacks.battery import Battery, Reference
from fedphantom.privacy.attacks.copy_detection import COPY_DETECTION
from fedphantom.privacy.attacks.distances import distances
from fedphantom.privacy.attacks.domias import log_density
from fedphantom.privacy.attacks.interface import (
    AuditedScans,
    Images,
    Labels,
    Logits,
    Networks,
    Search,
    SentRound,
    Told,
    by_patient,
    foreground,
)
from fedphantom.privacy.attacks.monte_carlo import radius, share_close
from fedphantom.privacy.attacks.shadows import Errors, Shadows
from fedphantom.privacy.attacks.target import Target
from fedphantom.privacy.audit.shadow_training import halves
from fedphantom.privacy.evidence import ATTACKS as ALL_ATTACKS
from fedphantom.privacy.evidence import INSIDER, OF_COINS, OF_SHADOWS, TRAJECTORY, WHITE_BOX
from fedphantom.privacy.statistics import Floats, auc, null_standard_error

GRID = (12, 10, 8)
CHANNELS = 2


ATTACKS = {name: model for name, model in ALL_ATTACKS.items() if name != COPY_DETECTION}
"""Those that the battery runs; A7 is scored by the search for moved copies."""


def scans_of(patients: int, seed: int, scans_each: int = 1) -> AuditedScans:
    """People whose label maps and intensities vary smoothly; every other one is a member."""
    draw = np.random.default_rng(seed)
    coarse = draw.normal(0, 1, (patients, 1 + CHANNELS, 3, 5, 4))
    smooth = np.kron(coarse, np.ones((1, 1, 4, 2, 2))).astype(np.float32)
    owner = np.repeat(np.arange(patients), scans_each)
    labels = (smooth[owner, 0] + draw.normal(0, 0.3, (len(owner), *GRID)) > -0.5).astype(np.uint8)
    images = smooth[owner, 1:] + labels[:, None] + draw.normal(0, 0.1, (len(owner), CHANNELS, *GRID))
    return AuditedScans(
        images.astype(np.float32),
        labels,
        tuple(f"p{i:03d}" for i in owner),
        tuple("AB"[(i // 2) % 2] for i in owner),
        tuple(bool(i % 2 == 0) for i in owner),
    )


class Painter:
    """Paints what it knows of some label maps, and else the labels with an anatomy drawn from them alone."""

    def __init__(self, known: AuditedScans | None = None) -> None:
        self.known = {} if known is None else {m.tobytes(): x for m, x in zip(known.labels, known.images, strict=True)}

    def __call__(self, labels: Labels, noise_seed: int) -> Images:
        return np.stack([self.known.get(label.tobytes(), self.fresh(label)) for label in labels])

    def fresh(self, label: NDArray[np.uint8]) -> NDArray[np.float32]:
        draw = np.random.default_rng(np.frombuffer(label.tobytes(), np.uint8).astype(np.uint32))
        field = np.kron(draw.normal(0, 1, (CHANNELS, 3, 5, 4)), np.ones((1, 4, 2, 2)))
        return (label + field + draw.normal(0, 0.1, field.shape)).astype(np.float32)


def critic(known: AuditedScans | None = None) -> Logits:
    """Finds bright scans real, and those that it knows a little more so."""
    seen = set() if known is None else {image.tobytes() for image in known.images}

    def logits(scans: AuditedScans) -> Floats:
        bright = scans.images.mean(axis=(1, 2, 3, 4)).astype(np.float64)
        return bright + 0.1 * np.array([image.tobytes() in seen for image in scans.images])

    return logits


def search(painter: Painter) -> Search:
    """Comes no nearer to a scan than the painter does from the scan's own label map."""

    def errors(scans: AuditedScans, judged: NDArray[np.bool_], told: Told) -> Floats:
        off = painter(scans.labels, 0) - scans.images
        return np.array([(x[:, seen].astype(np.float64) ** 2).mean() for x, seen in zip(off, judged, strict=True)])

    return Search(errors, lambda scans, judged: 1.0)


def networks(known: AuditedScans | None = None) -> Networks:
    painter = Painter(known)
    return Networks(painter, critic(known), search(painter))


def rounds_of(known: AuditedScans) -> list[Callable[[], SentRound]]:
    """A round in which every site sent a generator that knows some scans, and the average knew none."""
    return [lambda: SentRound(dict.fromkeys("AB", Painter(known)), dict.fromkeys("AB", (Painter(),)))]


REFERENCE = Reference(scans_of(14, seed=77), networks())
LABELS = scans_of(40, seed=99).labels


def shadows_of(scans: AuditedScans, number: int = 8) -> Shadows:
    """Painters who each learnt half of the patients by heart."""
    seen = halves(tuple(set(scans.patients)), number, seed=5)
    rest = REFERENCE.scans
    judged = (foreground(scans.images, scans.labels), foreground(rest.images, rest.labels))
    measure = Errors(scans, judged[0], rest, judged[1], draws=2, seed=3)
    errors = np.stack([measure.of(Painter(scans.take(scans.of(half)))) for half in seen])
    return Shadows(measure, errors, np.array([[p in half for p in scans.patients] for half in seen]))


def battery(scans: AuditedScans) -> Battery:
    shadows = shadows_of(scans)
    return Battery.calibrate(scans, REFERENCE, LABELS, 2, 3, lambda images: images, shadows)


def leaking(tools: Battery, members: int = 10**6) -> Target:
    """A generator that learnt members by heart, and whose released set holds their scans beside others."""
    scans = tools.known.scans
    known = scans.take(np.flatnonzero(scans.member)[:members])
    fresh = Painter()(LABELS, 0)
    return tools.target(
        replace(networks(known), rounds=rounds_of(known)),
        np.concatenate([fresh, known.images]),
        np.concatenate([LABELS, known.labels]),
    )


def clean(tools: Battery) -> Target:
    strangers = scans_of(30, seed=123)
    released = LABELS[::-1]
    return tools.target(replace(networks(strangers), rounds=rounds_of(strangers)), Painter()(released, 0), released)


@pytest.fixture(scope="module")
def tools() -> Battery:
    return battery(scans_of(48, seed=1))


def test_the_table_lists_every_attack_and_no_other(tools: Battery) -> None:
    assert list(tools.scores(leaking(tools))) == list(ATTACKS)
    for name, scores in tools.scores(clean(tools)).items():
        assert (scores.id, scores.threat_model) == (name, ATTACKS[name])


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_finds_members_whom_a_generator_or_its_set_repeats(tools: Battery, name: str) -> None:
    found = tools.scores(leaking(tools), (name,))[name]
    assert auc(found.scores()) >= 0.85


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_turns_round_where_strangers_were_learnt_instead(tools: Battery, name: str) -> None:
    scans = tools.known.scans
    turned = replace(tools.known.scans, member=tuple(not m for m in scans.member))
    other = replace(tools, known=replace(tools.known, scans=turned))
    found = tools.scores(leaking(other), (name,))[name]
    assert auc(found.scores()) <= 0.15


def test_no_attack_finds_anything_where_nobody_was_learnt() -> None:
    z: dict[str, list[float]] = {}
    for seed in range(12):
        tools = battery(scans_of(40, seed=1000 + seed))
        for name, found in tools.scores(clean(tools)).items():
            scores = found.scores()
            z.setdefault(name, []).append((auc(scores) - 0.5) / null_standard_error(scores))
    assert z.keys() == ATTACKS.keys()
    for name, values in z.items():
        assert abs(np.mean(values)) < 3 / np.sqrt(len(values)), name
        assert np.max(np.abs(values)) < 3.5, name


def test_the_order_of_the_scans_does_not_matter() -> None:
    scans = scans_of(20, seed=4, scans_each=2)
    order = np.random.default_rng(0).permutation(len(scans))
    one, other = battery(scans), battery(scans.take(order))
    there = other.scores(leaking(other))
    for name, found in one.scores(leaking(one)).items():
        assert there[name].patients == found.patients
        np.testing.assert_allclose(there[name].score, found.score, rtol=1e-4, atol=1e-4)


def test_neither_the_set_s_order_nor_the_size_of_a_batch_matters(
    tools: Battery, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = leaking(tools)
    before = tools.scores(whole)
    monkeypatch.setattr("fedphantom.privacy.attacks.knowledge._AT_ONCE", 7)
    monkeypatch.setattr("fedphantom.privacy.attacks.battery._READ_AT_ONCE", 3)
    monkeypatch.setattr("fedphantom.privacy.attacks.interface._BATCH", 5)
    monkeypatch.setattr("fedphantom.privacy.attacks.distances._AT_ONCE", 1000)
    again = battery(tools.known.scans)
    known = tools.known.scans.take(np.flatnonzero(tools.known.scans.member))
    turned = np.concatenate([Painter()(LABELS, 0), known.images])[::-1]
    labels = np.concatenate([LABELS, known.labels])[::-1]
    target = again.target(replace(networks(known), rounds=rounds_of(known)), turned, labels)
    for name, found in again.scores(target).items():
        np.testing.assert_allclose(found.score, before[name].score, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name, model in ATTACKS.items() if model in "GS"])
def test_a_generator_that_paints_nan_is_refused_by_every_attack(tools: Battery, name: str) -> None:
    def broken(labels: Labels, noise_seed: int) -> Images:
        return np.full((len(labels), CHANNELS, *GRID), np.nan, np.float32)

    with pytest.raises(DataError, match="non-finite"):
        tools.scores(tools.target(Networks(broken)), (name,))


@pytest.mark.parametrize("name", [name for name, model in ATTACKS.items() if model == "S"])
def test_a_set_that_holds_nan_is_refused(tools: Battery, name: str) -> None:
    made = np.full((2, CHANNELS, *GRID), np.nan, np.float32)
    with pytest.raises(DataError, match="non-finite"):
        tools.scores(tools.target(Networks(Painter()), made), (name,))


def test_without_a_discriminator_the_attack_on_one_is_not_run(tools: Battery) -> None:
    unheld = (*INSIDER, WHITE_BOX, TRAJECTORY)
    assert list(tools.scores(tools.target(Networks(Painter())))) == [n for n in ATTACKS if n not in unheld]
    blind = Reference(REFERENCE.scans, Networks(Painter()))
    without = Battery.calibrate(tools.known.scans, blind, LABELS, draws=1, seed=3, as_released=lambda images: images)
    assert without.attacks.keys() == set(ATTACKS) - {*INSIDER, *OF_COINS, *OF_SHADOWS, WHITE_BOX}


def test_a_discriminator_without_an_answer_is_refused(tools: Battery) -> None:
    mute = Networks(Painter(), lambda scans: np.full(len(scans), np.nan))
    with pytest.raises(DataError, match="without a score"):
        tools.scores(tools.target(mute), INSIDER)


def test_a6_asks_how_much_more_real_than_to_the_reference(tools: Battery) -> None:
    scans = tools.known.scans
    found = tools.scores(leaking(tools), INSIDER)["A6"]
    assert found.score == pytest.approx(0.1 * found.is_member, abs=1e-6)
    raw = critic(scans.take(np.flatnonzero(scans.member)))(scans)
    assert auc(by_patient("A6", scans, raw).scores()) < 0.9  # brightness drowns it


def test_only_the_sets_that_an_attack_looks_at_are_painted(tools: Battery) -> None:
    painted: list[int] = []

    def counting(labels: Labels, noise_seed: int) -> Images:
        painted.append(len(labels))
        return Painter()(labels, noise_seed)

    n, s = len(tools.known.scans), len(LABELS)
    tools.scores(tools.target(Networks(counting)), ("A1",))
    assert sum(painted) == tools.known.draws * n
    painted.clear()
    target = tools.target(Networks(counting))
    tools.scores(target, [name for name, model in ATTACKS.items() if model == "S"])
    tools.scores(target, [name for name, model in ATTACKS.items() if model == "S"])
    assert sum(painted) == s  # once, for all of them
    painted.clear()
    tools.scores(tools.target(Networks(counting)))
    for_shadows = tools.known.draws * (n + len(REFERENCE.scans))
    # The set from own label maps is A1's first draw. A2 asks once, of both kinds of scan.
    assert sum(painted) == tools.known.draws * n + s + for_shadows


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), scans=st.integers(1, 5), volumes=st.integers(1, 5), at_once=st.integers(1, 500))
def test_distances_are_those_of_voxel_by_voxel_whatever_is_compared_at_once(
    seed: int, scans: int, volumes: int, at_once: int
) -> None:
    draw = np.random.default_rng(seed)
    there = scans_of(scans, seed)
    judged = draw.random(there.labels.shape) < 0.3
    judged[:, 0, 0, 0] = True
    made = scans_of(volumes, seed + 1).images
    expected = [
        [np.sqrt(np.mean((x[:, w] - y[:, w]).astype(float) ** 2)) for y in made]
        for x, w in zip(there.images, judged, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedphantom.privacy.attacks.distances._AT_ONCE", at_once)
        assert distances(there, judged, made) == pytest.approx(np.array(expected), rel=1e-5)
        assert np.diag(distances(there, judged, there.images)).max() < 1e-6


# A4 and A5 in closed form.


def test_the_radius_is_the_median_distance_to_the_nearest_volume() -> None:
    scans = np.array([[0.0], [10.0], [20.0]])
    volumes = np.array([[1.0], [1.5], [12.0], [12.0], [29.0]])
    assert radius(scans, volumes) == 2  # of 1, 2 and 8
    assert share_close(scans, volumes, 2).tolist() == [0.4, 0.4, 0.0]


def test_scans_that_lie_in_the_set_as_they_are_count_though_the_radius_is_nothing() -> None:
    scans = np.arange(5.0)[:, None]
    assert radius(scans, scans[:4]) == 0
    assert share_close(scans, scans[:4], 0).tolist() == [0.25, 0.25, 0.25, 0.25, 0.0]


@settings(deadline=None)
@given(
    points=arrays.arrays(np.float64, (6, 2), elements=st.floats(-5, 5)),
    far=st.floats(-1e6, 1e6),
)
def test_a_density_is_finite_however_far_the_place_and_however_alike_the_points(
    points: NDArray[np.float64], far: float
) -> None:
    assert np.isfinite(log_density(points, np.array([[far, 0.0], points[0].tolist()]))).all()
    assert np.isfinite(log_density(points[:1], np.array([[far, far]]))).all()


def test_a_density_is_a_mean_of_normal_densities_and_integrates_to_one() -> None:
    points = np.array([[-1.0], [0.0], [2.0]])
    places = np.linspace(-15, 15, 3001)[:, None]
    width = 3 ** (-1 / 5) * points.std()
    expected = np.mean([stats.norm.pdf(places[:, 0], p, width) for p in points[:, 0]], axis=0)
    found = np.exp(log_density(points, places))
    assert found == pytest.approx(expected)
    assert np.trapezoid(found, places[:, 0]) == pytest.approx(1)


def test_a5_forgives_places_that_are_crowded_in_the_population_too(tools: Battery) -> None:
    like_the_reference = np.concatenate([REFERENCE.scans.images, Painter()(LABELS, 0)])
    found = tools.scores(tools.target(Networks(Painter()), like_the_reference), ("A5",))["A5"]
    np.testing.assert_allclose(found.score, 0, atol=1e-4)


def test_the_embedding_is_fitted_on_no_audited_scan_and_no_audited_set(tools: Battery) -> None:
    others = battery(scans_of(30, seed=8))
    np.testing.assert_allclose(others.known.embedding.mean, tools.known.embedding.mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.abs(others.known.embedding.axes), np.abs(tools.known.embedding.axes), atol=1e-4)
    assert tools.known.points.shape[1] == 10


@pytest.mark.parametrize(("patients", "axes"), [(1, 1), (2, 1), (4, 3), (14, 10)])
def test_few_reference_patients_span_few_axes_and_every_attack_still_scores(patients: int, axes: int) -> None:
    few = Reference(REFERENCE.scans.take(np.arange(patients)), REFERENCE.networks)
    scans = scans_of(24, seed=2)
    tools = Battery.calibrate(scans, few, LABELS, draws=1, seed=3, as_released=lambda images: images)
    assert tools.known.points.shape == (24, axes)
    for found in tools.scores(leaking(tools)).values():
        assert np.isfinite(found.score).all()
