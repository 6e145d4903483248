"""The search of a generator's weights: it finds whom they know, finds nobody they do not, and changes nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from tiny_cohorts import tiny_scans, tiny_study

from fedphantom.common.cohorts.preparation import PreparedScans
from fedphantom.common.device import choose_device
from fedphantom.common.errors import DataError
from fedphantom.common.gan.generation import paint
from fedphantom.common.gan.networks import Generator, make_generator
from fedphantom.privacy.attacks.interface import AuditedScans, Search, foreground
from fedphantom.privacy.audit import control_training
from fedphantom.privacy.audit import weight_search as searched_file
from fedphantom.privacy.audit.control_training import train_memoriser
from fedphantom.privacy.audit.weight_search import weight_search
from fedphantom.privacy.statistics import Floats, Scores, auc

STUDY, CPU = tiny_study(), choose_device("cpu")


def audited(scans: PreparedScans, members: int) -> AuditedScans:
    n = len(scans)
    return AuditedScans(
        np.asarray(scans.volumes),
        np.asarray(scans.classes),
        scans.patients,
        scans.sites,
        (*[True] * members, *[False] * (n - members)),
    )


def found(search: Search, scans: AuditedScans) -> Floats:
    return search.errors(scans, foreground(scans.images, scans.labels), lambda done, total: None)


@pytest.fixture(scope="module")
def scans() -> AuditedScans:
    """Four patients, the first two of whom are members."""
    return audited(tiny_scans(4), members=2)


def test_a_search_leaves_the_network_as_it_was(scans: AuditedScans) -> None:
    network = make_generator(STUDY, 1).train()
    before = copy.deepcopy(network.state_dict())
    search = weight_search(network, STUDY, CPU, restarts=2, steps=3)
    found(search, scans)
    search.seconds(scans, foreground(scans.images, scans.labels))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(value.requires_grad and value.grad is None for value in network.parameters())
    assert network.training


def test_it_comes_nearer_than_questions_do_and_never_forgets_the_best(scans: AuditedScans) -> None:
    network, judged = make_generator(STUDY, 1), foreground(scans.images, scans.labels)
    asked = paint(network, scans.labels, STUDY, 0, CPU)
    plain = np.array([((a - x)[:, j] ** 2).mean() for a, x, j in zip(asked, scans.images, judged, strict=True)])
    errors = [found(weight_search(network, STUDY, CPU, restarts=1, steps=steps), scans) for steps in (1, 4, 16)]
    assert (errors[2] < 0.9 * plain).all()
    assert (errors[0] >= errors[1]).all()
    assert (errors[1] >= errors[2]).all()


def test_of_several_starts_the_best_counts(scans: AuditedScans) -> None:
    network = make_generator(STUDY, 1)
    with torch.no_grad():
        network.down[0].conv1.conv.weight[:, -4:] *= 20  # type: ignore[index, union-attr]  # noise decides what is painted
    once, often = (found(weight_search(network, STUDY, CPU, restarts=n, steps=2), scans) for n in (1, 6))
    assert (often <= once * 1.02).all()  # volumes painted together differ in their last bits
    assert (often < once * 0.98).any()


def test_both_the_noise_and_the_label_map_are_searched(scans: AuditedScans) -> None:
    class Deaf(Generator):
        """Does not hear one of what it is given."""

        deaf_to = ""

        def forward(self, given: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
            return super().forward(
                given.detach() if self.deaf_to == "labels" else given,
                noise.detach() if self.deaf_to == "noise" else noise,
            )

    network = make_generator(STUDY, 1)
    whole = found(weight_search(network, STUDY, CPU, restarts=1, steps=8), scans)
    for deaf_to in ("labels", "noise"):
        hears_less = copy.deepcopy(network)
        hears_less.__class__, hears_less.deaf_to = Deaf, deaf_to  # type: ignore[assignment]
        assert (found(weight_search(hears_less, STUDY, CPU, restarts=1, steps=8), scans) > whole).all()


def test_neither_the_order_of_scans_nor_how_many_are_searched_at_once_matters(
    scans: AuditedScans, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = weight_search(make_generator(STUDY, 1), STUDY, CPU, restarts=2, steps=3)
    errors = found(search, scans)
    turned = found(search, scans.take(np.arange(len(scans))[::-1]))[::-1]
    np.testing.assert_array_equal(turned, errors)
    monkeypatch.setattr(searched_file, "_VOXELS_AT_ONCE", 1)
    np.testing.assert_allclose(found(search, scans), errors, rtol=0.02)


def test_every_scan_is_told_of(scans: AuditedScans) -> None:
    told: list[tuple[int, int]] = []
    search = weight_search(make_generator(STUDY, 1), STUDY, CPU, restarts=1, steps=1)
    judged = foreground(scans.images, scans.labels)
    search.errors(scans, judged, lambda done, total: told.append((done, total)))
    assert told == [(done, 4) for done in range(1, 5)]


def test_what_a_search_will_take_is_told_by_a_first_step(scans: AuditedScans, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.arange(0.0, 1000.0, 2.0))  # every step takes two seconds
    monkeypatch.setattr(searched_file.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(searched_file, "usable_cores", lambda: 1)
    search = weight_search(make_generator(STUDY, 1), STUDY, CPU, restarts=2, steps=5)
    assert search.seconds(scans, foreground(scans.images, scans.labels)) == pytest.approx(4 * 5 * 2.0)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_network_that_paints_no_numbers_is_refused(scans: AuditedScans, poison: float) -> None:
    network = make_generator(STUDY, 1)
    with torch.no_grad():
        network.head.bias.fill_(poison)
        network.head.weight.fill_(poison)
    with pytest.raises(DataError, match="non-finite"):
        found(weight_search(network, STUDY, CPU, restarts=1, steps=2), scans)


def test_it_finds_whom_a_generator_learnt_by_heart_and_nobody_in_one_that_never_saw_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control_training, "weight_search", partial(weight_search, restarts=1, steps=4))
    prepared = tiny_scans(24)
    own = np.random.default_rng(3).uniform(-0.35, 0.35, (24, 2, 1, 1, 1))  # each patient's brightness
    seen = np.where(prepared.classes[:, None] > 0, prepared.volumes + own, -1).clip(-1, 1)
    prepared = replace(prepared, volumes=seen.astype(np.float32))
    scans = audited(prepared.only(np.arange(12)), members=6)

    def errors(rows: range, steps: int) -> Floats:
        made = train_memoriser(prepared, np.array(rows), STUDY, CPU, steps=steps, seed=rows.start)
        assert made.search is not None
        return np.log(found(made.search, scans))

    reference = errors(range(12, 24), steps=60)

    def area(rows: range) -> float:
        score = reference - errors(rows, steps=240)
        return auc(Scores.of(score[:6], score[6:], ["A"] * 6, ["A"] * 6))

    assert area(range(6)) == 1.0
    assert 0.2 <= area(range(12, 18)) <= 0.8
