"""What noised steps cost: ε at a δ from the whole privacy loss distribution, and the noise that an ε asks for.

Numbers in, numbers out: neither torch nor a network is known here. Official is the PLD accountant of dp-accounting
(Meiser & Mohammadi 2018; Doroshenko et al. 2022, arXiv:2207.04380); :mod:`.cross_checks` holds others against it. Every
figure is for the unit patient, adjacency add/remove in the zero-out reading, true Poisson sampling (PRIVACY §0).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

from ...common.counted import counted
from ...common.errors import ConfigError
from ...common.promise import ACCOUNTANT as ACCOUNTANT

UNIT: Final = "patient"
ADJACENCY: Final = "add/remove one patient with all scans (zero-out)"
SAMPLING: Final = "Poisson"

LARGEST_EPSILON: Final = 100.0
"""What exceeds it is told as infinite: no such figure promises anybody anything, and computing it takes ever longer."""
_LARGEST_RENYI = 300.0  # whose PLD is beyond the largest ε, or takes minutes: Rényi's bound is up to 2.3 times as large
_ORDERS = (*range(2, 33), 40, 48, 64, 128, 256, 512, 1024)
_SMALLEST_SIGMA = 0.3  # below it a single step's distribution takes minutes, and its noise hides nobody
_LARGEST_SIGMA = 2.0**20
_PRECISION = 1.002  # of a noise multiplier found: at most so many times the smallest that suffices


@dataclass(frozen=True)
class Mechanism:
    """Noised steps of one kind: what they do, which is all that they cost.

    Attributes:
        sampling_rate: q in (0, 1], each patient's probability to be in a step; public, never measured on the data.
        noise_multiplier: σ > 0, standard deviation of the noise over the clip norm.
        steps: T ≥ 1.

    Raises:
        ConfigError: one of them is outside its range.
    """

    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.sampling_rate <= 1:
            raise ConfigError(
                f"a sampling rate q of {self.sampling_rate:g}",
                expected="0 < q ≤ 1",
                remedy="Give the expected number of patients in a step over the number of patients.",
            )
        if not 0 < self.noise_multiplier < math.inf:
            raise ConfigError(
                f"a noise multiplier σ of {self.noise_multiplier:g}",
                expected="σ > 0, finite",
                remedy="Let it be computed from the ε that is asked for; without noise there is no ε.",
            )
        if not self.steps >= 1 or self.steps % 1:
            raise ConfigError(
                f"{self.steps:g} noised steps",
                expected="a whole number, 1 or more",
                remedy="Ask for one step at least.",
            )


def check_delta(delta: float, patients: int) -> None:
    """Refuse a δ that would let one of the site's patients be published whole. Raises ConfigError."""
    if not 0 < delta < 1 / max(patients, 1):
        raise ConfigError(
            f"δ = {delta:g} for {counted(patients, 'patient')}",
            expected=f"0 < δ < 1/{patients}",
            remedy="Set delta under [privacy.promise] to 1/(10·n) of the largest site: for so many patients"
            f" {usual_delta(patients):g}.",
        )


def usual_delta(patients: int) -> float:
    """δ = 1/(10·n) (PRIVACY §0)."""
    return 1 / (10 * max(patients, 1))


def told(epsilon: float) -> str:
    """ε for a person, rounded up.

    >>> told(7.123), told(math.inf)
    ('ε = 7.13', 'ε beyond 100')
    """
    return f"ε = {math.ceil(100 * epsilon - 1e-9) / 100:g}" if math.isfinite(epsilon) else "ε beyond 100"


def epsilon(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """ε of all these steps together: an upper bound, of PLDs rounded to the cautious side.

    The order does not matter, nor how steps of one kind are divided over mechanisms.

    Args:
        mechanisms: Whatever touched the patient; none costs nothing.
        delta: In (0, 1).

    Returns:
        ε ≥ 0; infinite where it exceeds :data:`LARGEST_EPSILON`.

    Raises:
        ConfigError: ``delta`` is outside (0, 1).
    """
    if not 0 < delta < 1:
        raise ConfigError(f"δ = {delta:g}", expected="0 < δ < 1", remedy="Take 1/(10·n) for n patients.")
    steps: Counter[tuple[float, float]] = Counter()
    for mechanism in mechanisms:
        steps[mechanism.sampling_rate, mechanism.noise_multiplier] += mechanism.steps
    if not steps:
        return 0.0
    kinds = tuple(Mechanism(q, sigma, number) for (q, sigma), number in sorted(steps.items()))
    if _unsampled_bound(kinds, delta) > _LARGEST_RENYI and _renyi_bound(kinds, delta) > _LARGEST_RENYI:
        return math.inf
    return _epsilon(kinds, delta)


@lru_cache(maxsize=4096)
def _epsilon(kinds: tuple[Mechanism, ...], delta: float) -> float:
    whole = None
    for kind in kinds:
        part = _step_loss(kind.sampling_rate, kind.noise_multiplier).self_compose(kind.steps)
        whole = part if whole is None else whole.compose(part)
    assert whole is not None  # noqa: S101  # epsilon() has answered where there is none
    found = max(0.0, float(whole.get_epsilon_for_delta(delta)))
    return found if found <= LARGEST_EPSILON else math.inf


@lru_cache(maxsize=16)
def _step_loss(sampling_rate: float, noise_multiplier: float) -> Any:
    """One step's privacy loss distribution, both directions of add/remove; pessimistic."""
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    return from_gaussian_mechanism(noise_multiplier, sampling_prob=sampling_rate)


def _unsampled_bound(kinds: Iterable[Mechanism], delta: float) -> float:
    """A bound in closed form, as if every patient were in every step: zCDP of Gaussians (Bun & Steinke 2016)."""
    rho = sum(kind.steps / (2 * kind.noise_multiplier**2) for kind in kinds)
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


def _renyi_bound(kinds: Iterable[Mechanism], delta: float) -> float:
    """A quick upper bound, which tells what is not worth a PLD."""
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(_ORDERS)
    for kind in kinds:
        step = dp_accounting.PoissonSampledDpEvent(
            kind.sampling_rate, dp_accounting.GaussianDpEvent(kind.noise_multiplier)
        )
        accountant.compose(dp_accounting.SelfComposedDpEvent(step, kind.steps))
    return float(accountant.get_epsilon(delta))


class _Trial(NamedTuple):
    sigma: float
    epsilon: float


@lru_cache(maxsize=256)
def noise_multiplier(target: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The smallest σ from 0.3 on, within 0.2 % and never below it, with which ``steps`` steps keep within ε.

    Args:
        target: ε > 0, at most :data:`LARGEST_EPSILON`.
        delta: In (0, 1).
        sampling_rate: q in (0, 1].
        steps: T ≥ 1.

    Raises:
        ConfigError: an argument is outside its range, or no σ up to a million suffices.
    """
    if not 0 < target <= LARGEST_EPSILON:
        raise ConfigError(
            f"ε = {target:g} asked for",
            expected=f"0 < ε ≤ {LARGEST_EPSILON:g}",
            remedy="Ask for 8 or less under [privacy.promise] epsilon; beyond that it promises little.",
        )

    def tried(sigma: float) -> _Trial:
        return _Trial(sigma, epsilon([Mechanism(sampling_rate, sigma, steps)], delta))

    # Begun near where it lies by the moments bound of Abadi et al. 2016: far below it, a trial takes seconds.
    begun = 0.8 * sampling_rate * math.sqrt(2 * steps * math.log(1 / delta)) / target
    high = tried(max(begun, _SMALLEST_SIGMA))
    low = high
    while high.epsilon > target:
        if high.sigma >= _LARGEST_SIGMA:
            raise ConfigError(
                f"ε = {target:g} at δ = {delta:g} for {counted(steps, 'step')}, which no noise reaches",
                expected="a larger ε or fewer steps",
                remedy="Change [privacy.promise] epsilon, or [training] rounds or local_steps.",
            )
        low, high = high, tried(1.5 * high.sigma)
    while low.epsilon <= target:
        if low.sigma <= _SMALLEST_SIGMA:
            return low.sigma
        low, high = tried(max(low.sigma / 1.3, _SMALLEST_SIGMA)), low
    tries = 0
    while high.sigma / low.sigma > _PRECISION:
        tries += 1
        found = tried(_between(low, high, target, tries))
        low, high = (low, found) if found.epsilon <= target else (found, high)
    return high.sigma


def _between(low: _Trial, high: _Trial, target: float, tries: int) -> float:
    """The σ to try next: ε is nearly a power of it. By turns a little above and below, so that both ends move."""
    bisected = math.sqrt(low.sigma * high.sigma)
    if tries % 4 == 0 or math.isinf(low.epsilon) or high.epsilon <= 0:
        return bisected
    share = math.log(low.epsilon / target) / math.log(low.epsilon / high.epsilon)
    guess = low.sigma * (high.sigma / low.sigma) ** share * (1.0008 if tries % 2 else 1 / 1.0008)
    return guess if low.sigma < guess < high.sigma else bisected


def most_steps(target: float, delta: float, mechanism: Mechanism, spent: Iterable[Mechanism] = ()) -> int:
    """How many steps like the mechanism's still fit under ε after what is spent; at most ``mechanism.steps``."""
    before = tuple(spent)

    def fits(steps: int) -> bool:
        kind = Mechanism(mechanism.sampling_rate, mechanism.noise_multiplier, steps)
        return epsilon([*before, kind], delta) <= target

    # Upwards from one: what is far beyond the ε takes longest to compose.
    fit, too_many = 0, 1
    while too_many <= mechanism.steps and fits(too_many):
        fit, too_many = too_many, 2 * too_many
    too_many = min(too_many, mechanism.steps + 1)
    while too_many - fit > 1:
        middle = (fit + too_many) // 2
        fit, too_many = (middle, too_many) if fits(middle) else (fit, middle)
    return fit
