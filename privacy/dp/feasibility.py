"""Whether a promise leaves anything to learn from: noise against the largest possible signal, before any training.

One noised step moves P parameters by S/B̄ and noise: S is at most B̄ patients' gradients of norm C, the noise has
standard deviation σC in every parameter and so about σC√P in all. Their ratio r = σ√P/B̄ (PRIVACY §1.4) knows nothing
of the data; a real signal is smaller than the largest possible one, often by far. Where no vector can be as long as C,
but V at most (:mod:`.longest_means`), the largest possible signal is smaller by V/C, and r larger by C/V.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Final, Literal

from ...common.counted import counted
from ...common.errors import ConfigError, PolicyRefused
from ...common.promise import HEAD_CLIP
from .accounting import (
    ACCOUNTANT,
    ADJACENCY,
    SAMPLING,
    UNIT,
    Mechanism,
    check_delta,
    epsilon,
    most_steps,
    noise_multiplier,
)

WARN_ABOVE: Final = 5.0
REFUSE_ABOVE: Final = 50.0
LITTLE_FROM: Final = 8.0
"""From this ε on a promise by itself forbids little (PRIVACY §3.4)."""

Outlook = Literal["feasible", "doubtful", "refused"]

_FEWER_STEPS = "[training] rounds or local_steps, or [privacy.promise] spare_rounds"
_USUAL = "means"
_LEAST_SIGMA = 0.3
_RATE_PRECISION = 0.01


@dataclass(frozen=True)
class DpPlan:
    """What a study promises and means to do for it, at one site.

    Attributes:
        epsilon: Of all its steps together, at ``delta``.
        delta: Below 1/``patients``.
        patients: n, public.
        sampling_rate: q in (0, 1].
        steps: T, noised steps over all rounds.
        noised_parameters: P, numbers that every noised step moves.
        spare_steps: How many of the steps are spare: kept for rounds that broke off.
        clip_norm: C.
        longest: V, the longest that any patient's vector can be; None where nothing but C bounds it.

    Raises:
        ConfigError: one of them is outside its range.
    """

    epsilon: float
    delta: float
    patients: int
    sampling_rate: float
    steps: int
    noised_parameters: int
    spare_steps: int = 0
    clip_norm: float = 1.0
    longest: float | None = None

    def __post_init__(self) -> None:
        check_delta(self.delta, self.patients)
        Mechanism(self.sampling_rate, 1.0, self.steps)
        if self.noised_parameters < 1 or self.patients < 1:
            raise ConfigError(
                f"{counted(self.noised_parameters, 'noised parameter')}, {counted(self.patients, 'patient')}",
                expected="one of each at least",
                remedy="Let some part of the discriminator learn, from some patient.",
            )

    @property
    def expected_batch(self) -> float:
        """B̄ = q·n, patients."""
        return self.sampling_rate * self.patients

    @property
    def slack(self) -> float:
        """C/V, how far the clip norm lies above the longest vector there is; 1 where it does not."""
        return 1.0 if self.longest is None else max(1.0, self.clip_norm / self.longest)

    @property
    def largest_signal(self) -> float:
        """The longest that a step's sum can be without its noise, in units of C."""
        return self.expected_batch / self.slack

    @property
    def formula(self) -> str:
        """What r is."""
        return "σ√P/B̄" if self.slack == 1 else f"σ√P/B̄ · {self.clip_norm:g}/{self.longest:.3g}"


@dataclass(frozen=True)
class Feasibility:
    """A plan's noise, and what it means.

    Attributes:
        plan: As asked.
        noise_multiplier: σ that the plan's ε needs.
        ratio: r = σ√P/B̄, times C/V where the clip norm lies above the longest vector there is.
        outlook: ``doubtful`` for r above 5, ``refused`` above 50.
        nearest: For a plan that is not feasible, the nearest ones that are: each changes as little as it can.
        choices: Of a study, what each other choice of ``noised`` would make of the plan; parameters are taken away in
            no other way. Where there are none, any number of them may be.
        steps_by: Keys of the study that make its steps fewer.
        enough_patients: For a plan that is not feasible, with how many patients it would be, all else as it is.
    """

    plan: DpPlan
    noise_multiplier: float
    ratio: float
    outlook: Outlook
    nearest: tuple[DpPlan, ...]
    choices: Mapping[str, DpPlan] = field(default_factory=dict)
    steps_by: str = _FEWER_STEPS
    enough_patients: int | None = None

    def to_json(self) -> dict[str, object]:
        """For ``--json``: with everything that an ε means nothing without."""
        return {
            "unit": UNIT,
            "adjacency": ADJACENCY,
            "sampling": SAMPLING,
            "accountant": ACCOUNTANT,
            **asdict(self),
            "nearest": [asdict(plan) for plan in self.nearest],
            "ways": self.ways(),
            "meaning": self.meaning(),
        }

    def ways(self) -> list[str]:
        """What would make the plan feasible, each in words; empty for one that is."""
        if self.outlook == "feasible":
            return []
        told = [_difference(self.plan, other, self.choices, self.steps_by) for other in self.nearest]
        more = "more patients" if self.enough_patients is None else f"about {counted(self.enough_patients, 'patient')}"
        return [*told, f"{more} instead of {self.plan.patients}, with the same sampling_rate and delta"]

    def meaning(self) -> str:
        """What the ratio says, in a sentence."""
        if self.ratio <= 1:
            return "The noise of a step is smaller than the largest possible signal: it can be learnt from."
        times = f"The noise of a step is {self.ratio:.3g} times the largest possible signal"
        match self.outlook:
            case "feasible" if self.plan.steps - self.plan.spare_steps == 1:
                return f"{times}, and there is one step: what does not stand out of its noise is not learnt."
            case "feasible":
                return f"{times}: only what persists over many steps can be learnt."
            case "doubtful":
                return f"{times}: little can be learnt, and images will hardly be better than before these steps."
            case "refused":
                return f"{times}: the steps would be pure noise."

    def text(self, *, ways: bool = True) -> str:
        """For a terminal: the plan, its noise, what that means and, if asked, what would be feasible."""
        plan = self.plan
        spare = f", {plan.spare_steps} of them spare" if plan.spare_steps else ""
        lines = [
            f"ε = {plan.epsilon:g} at δ = {plan.delta:g} per patient (add/remove, Poisson),"
            f" {counted(plan.steps, 'noised step')}{spare},"
            f" q = {plan.sampling_rate:g} of {counted(plan.patients, 'patient')} (B̄ = {plan.expected_batch:g}),"
            f" {counted(plan.noised_parameters, 'noised parameter')}:",
            f"  noise multiplier σ = {self.noise_multiplier:.3g}; r = {plan.formula} = {self.ratio:.3g}",
            f"  {self.meaning()}",
        ]
        if plan.epsilon >= LITTLE_FROM:
            lines.append(f"  ε = {plan.epsilon:g} by itself forbids little: an audit has to say the rest.")
        if ways and self.outlook != "feasible":
            lines += ["  Feasible (r ≤ 5) would be:", *(f"    {way}" for way in self.ways())]
        return "\n".join(lines)


def feasibility(plan: DpPlan, choices: Mapping[str, DpPlan] | None = None, steps_by: str = _FEWER_STEPS) -> Feasibility:
    """The noise that a plan needs, its ratio to the signal, and the nearest feasible plans; seconds.

    Args:
        plan: What is asked.
        choices: As :attr:`Feasibility.choices`.
        steps_by: As :attr:`Feasibility.steps_by`.
    """
    sigma = noise_multiplier(plan.epsilon, plan.delta, plan.sampling_rate, plan.steps)
    ratio = _ratio(plan, sigma)
    outlook: Outlook = "feasible" if ratio <= WARN_ABOVE else "doubtful" if ratio <= REFUSE_ABOVE else "refused"
    if outlook == "feasible":
        return Feasibility(plan, sigma, ratio, outlook, (), steps_by=steps_by)
    patients = math.ceil(plan.patients * ratio / WARN_ABOVE)  # σ knows q and δ, and not how many patients there are
    enough = patients if plan.delta * patients < 1 else None
    nearest = tuple(dict.fromkeys(_nearest(plan, sigma, choices or {})))
    return Feasibility(plan, sigma, ratio, outlook, nearest, choices or {}, steps_by, enough)


def refuse_noise(found: Feasibility) -> None:
    """Refuse a plan whose steps would be pure noise. Raises PolicyRefused, naming the nearest plans that are not."""
    if found.outlook != "refused":
        return
    ways = "; or ".join(found.ways())
    raise PolicyRefused(
        f"a privacy promise with r = {found.plan.formula} = {found.ratio:.3g}: every step would be pure noise",
        expected=f"r ≤ {REFUSE_ABOVE:g}, better ≤ {WARN_ABOVE:g}",
        remedy=f"Feasible would be: {ways}.",
    )


def _ratio(plan: DpPlan, sigma: float) -> float:
    return sigma * math.sqrt(plan.noised_parameters) / plan.largest_signal


def _nearest(plan: DpPlan, sigma: float, choices: Mapping[str, DpPlan]) -> Iterator[DpPlan]:
    """One setting changed, as little as makes r ≤ 5; then the full batch with what it still needs beside."""
    if plan.slack > 1 and _ratio(tighter := _tighter(plan), sigma) <= WARN_ABOVE:
        yield tighter
    fewer = tuple(_fewer(plan, sigma, choices))
    yield from fewer
    if larger := _larger_batch(plan):
        yield larger
    if shorter := _fewer_steps(plan):
        yield shorter
    if plan.sampling_rate < 1:
        full = replace(plan, sampling_rate=1.0)
        all_in = {name: replace(other, sampling_rate=1.0) for name, other in choices.items()}
        proposed = {plan.noised_parameters, *(one.noised_parameters for one in fewer)}
        for other in _fewer(full, noise_multiplier(plan.epsilon, plan.delta, 1.0, plan.steps), all_in):
            if other.noised_parameters not in proposed:
                yield other


def _fewer(plan: DpPlan, sigma: float, choices: Mapping[str, DpPlan]) -> Iterator[DpPlan]:
    """Of the choices that are fewer and feasible the one that noises most parameters, then the usual one.

    Without choices, any number may be.
    """
    if not choices:
        most = math.floor((WARN_ABOVE * plan.largest_signal / sigma) ** 2)
        if most >= 1:
            yield replace(plan, noised_parameters=min(most, plan.noised_parameters))
        return
    fewer = [other for other in choices.values() if other.noised_parameters < plan.noised_parameters]
    ordered = sorted(fewer, key=lambda one: one.noised_parameters, reverse=True)
    yield from itertools.islice(filter(_feasible, ordered), 1)
    usual = choices.get(_USUAL)
    if usual in fewer and _feasible(usual):
        yield usual


def _tighter(plan: DpPlan) -> DpPlan:
    """With a clip norm no longer than the longest vector there is, which costs no signal."""
    assert plan.longest is not None  # noqa: S101  # asked where it is shorter than the clip norm
    return replace(plan, clip_norm=math.floor(100 * plan.longest) / 100)


def _feasible(plan: DpPlan) -> bool:
    sigma = noise_multiplier(plan.epsilon, plan.delta, plan.sampling_rate, plan.steps)
    return _ratio(plan, sigma) <= WARN_ABOVE


def _larger_batch(plan: DpPlan) -> DpPlan | None:
    """The smallest rate that suffices by itself, rounded up to a hundredth of it; None where all patients do not."""

    def suffices(rate: float) -> bool:
        sigma = _allowed_sigma(replace(plan, sampling_rate=rate))
        if sigma < _LEAST_SIGMA:
            return False
        return epsilon([Mechanism(rate, sigma, plan.steps)], plan.delta) <= plan.epsilon

    too_low, enough = plan.sampling_rate, 1.0
    if too_low == 1 or not suffices(enough):
        return None
    while enough - too_low > _RATE_PRECISION * enough:
        middle = (too_low + enough) / 2
        too_low, enough = (too_low, middle) if suffices(middle) else (middle, enough)
    return replace(plan, sampling_rate=min(1.0, math.ceil(1000 * enough) / 1000))


def _fewer_steps(plan: DpPlan) -> DpPlan | None:
    sigma = _allowed_sigma(plan)
    if sigma < _LEAST_SIGMA:
        return None
    steps = most_steps(plan.epsilon, plan.delta, Mechanism(plan.sampling_rate, sigma, plan.steps))
    return replace(plan, steps=steps, spare_steps=min(plan.spare_steps, steps)) if steps else None


def _allowed_sigma(plan: DpPlan) -> float:
    """The largest σ with r ≤ 5."""
    return WARN_ABOVE * plan.largest_signal / math.sqrt(plan.noised_parameters)


def _difference(plan: DpPlan, other: DpPlan, choices: Mapping[str, DpPlan], steps_by: str) -> str:
    """What is other, with both values; of a choice of ``noised``, the study's key, and what comes with it by itself."""
    changes, named, steps = [], None, f"{counted(other.steps, 'step')} instead of {plan.steps}"
    if other.noised_parameters != plan.noised_parameters:
        named = next((name for name, one in choices.items() if _same_choice(one, other)), None)
        numbers = f"{counted(other.noised_parameters, 'noised parameter')} instead of {plan.noised_parameters}"
        if named:
            clip = f" and clip_norm = {HEAD_CLIP:g}" if named == "generator-head" else ""
            by_itself = f", {steps}" if other.steps != plan.steps else ""
            changes.append(f'[privacy.promise] noised = "{named}"{clip}: {numbers}{by_itself}')
        else:
            changes.append(numbers)
    if other.clip_norm != plan.clip_norm:
        changes.append(f"[privacy.promise] clip_norm = {other.clip_norm:g} instead of {plan.clip_norm:g}")
    if other.sampling_rate != plan.sampling_rate:
        changes.append(
            f"[privacy.promise] sampling_rate = {other.sampling_rate:g} (B̄ = {other.expected_batch:g}) instead of"
            f" {plan.sampling_rate:g} (B̄ = {plan.expected_batch:g})"
        )
    if other.steps != plan.steps and not named:
        changes.append(f"{steps}, by {steps_by}")
    return " with ".join(changes)


def _same_choice(choice: DpPlan, other: DpPlan) -> bool:
    return replace(choice, sampling_rate=other.sampling_rate) == other
