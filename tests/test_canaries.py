"""Canaries: the promised noise is there, a broken step is found out, and the audit asks for it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fedphantom.privacy.audit.controls import canary_control
from fedphantom.privacy.dp import canaries
from fedphantom.privacy.dp.accounting import Mechanism, noise_multiplier
from fedphantom.privacy.dp.canaries import CanaryRun, run_canaries
from fedphantom.privacy.dp.randomness import SecretRandom

DELTA = 0.001
STEPS = Mechanism(1.0, 1.0, 2)


def test_without_noise_every_coin_is_told_and_with_it_no_more_than_promised() -> None:
    run = run_canaries(STEPS, 0.7, DELTA)
    assert run.bare > 5  # 2,000 coins, all guessed right
    assert 0 < run.promised <= run.epsilon
    assert not run.excess
    assert canary_control(run).ok


def test_what_it_proves_is_what_the_noise_is_worth() -> None:
    """Two steps, the sum moved by 2C against noise of σ√2·C: at half of it, each side errs with Φ(-1/√2)."""
    errs = 0.5 * math.erfc(1 / math.sqrt(2) / math.sqrt(2))
    assert run_canaries(STEPS, 1.0, DELTA).promised == pytest.approx(math.log((1 - errs) / errs), abs=0.45)


def test_rare_sampling_is_part_of_what_is_tested() -> None:
    run = run_canaries(Mechanism(0.2, 0.6, 20), 1.0, DELTA)
    assert run.bare >= 1.5
    assert not run.excess


class Quiet(SecretRandom):
    """A tenth of the noise that was asked for."""

    def normal(self, size: int) -> Tensor:
        return super().normal(size) / 10


def test_a_step_with_too_little_noise_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canaries, "SecretRandom", Quiet)
    run = run_canaries(Mechanism(1.0, 3.0, 1), 1.0, DELTA)
    assert run.excess
    assert not canary_control(run).ok


def test_a_step_without_noise_is_found_out_at_any_epsilon(monkeypatch: pytest.MonkeyPatch) -> None:
    """At ε = 8 no number of right guesses among 2,000 proves more than was promised."""
    sigma = noise_multiplier(8.0, DELTA, 1.0, 1)
    assert not run_canaries(Mechanism(1.0, sigma, 1), 1.0, DELTA).excess
    monkeypatch.setattr(Quiet, "normal", lambda self, size: torch.zeros(size, dtype=torch.float64))
    monkeypatch.setattr(canaries, "SecretRandom", Quiet)
    run = run_canaries(Mechanism(1.0, sigma, 1), 1.0, DELTA)
    assert run.promised < run.epsilon
    assert run.excess
    assert not canary_control(run).ok


def test_a_step_that_does_not_clip_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def unclipped(patients, vector_of, size, how, random):  # type: ignore[no-untyped-def]  # as the step it stands in for
        total = sum(
            (10 * torch.cat([part.as_subclass(Tensor) for part in vector_of(p)]) for p in patients), torch.zeros(1)
        )
        return total + how.noise_multiplier * how.clip_norm * random.normal(size)

    monkeypatch.setattr(canaries, "noised_mean", unclipped)
    assert run_canaries(Mechanism(1.0, 3.0, 1), 1.0, DELTA).excess


def test_canaries_that_show_nothing_even_without_noise_are_no_control() -> None:
    assert not canary_control(CanaryRun(runs=200, bare=0.4, promised=0.1, epsilon=3.0, noise=1.0)).ok
