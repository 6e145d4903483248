"""What a study's promise means in noised steps: how many, of how much noise; a function of the study alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from ...common.promise import DISCRIMINATING, MOST_STEPS, Noised
from ...common.study import Study
from .accounting import Mechanism, noise_multiplier
from .feasibility import DpPlan, Feasibility, feasibility
from .longest_means import longest_means


@dataclass(frozen=True)
class NoisedPlan:
    """A site's noised steps; alike at every site.

    Attributes:
        sampling_rate: q.
        noise_multiplier: σ, the smallest with which ``most_steps`` keep within the promised ε.
        steps: Noised steps that are taken, and paid for, at a time.
        most_steps: Of the whole study, spare ones among them.
    """

    sampling_rate: float
    noise_multiplier: float
    steps: int
    most_steps: int

    def once(self) -> Mechanism:
        """What is paid for at a time."""
        return Mechanism(self.sampling_rate, self.noise_multiplier, self.steps)

    def whole(self) -> Mechanism:
        """What the study costs a site at most."""
        return Mechanism(self.sampling_rate, self.noise_multiplier, self.most_steps)


def noised_plan(study: Study) -> NoisedPlan:
    """The plan of a study that makes a promise.

    Raises:
        ConfigError: no noise reaches the promise.
    """
    promise, training = study.privacy.promise, study.training
    assert promise is not None  # noqa: S101  # asked by callers that know
    steps, most = promise.noised_steps(training.rounds, training.local_steps)
    sigma = noise_multiplier(promise.epsilon, promise.delta, promise.sampling_rate, most)
    return NoisedPlan(promise.sampling_rate, sigma, steps, most)


def asked_plan(study: Study, patients: int) -> DpPlan:
    """What the study asks for at a site of so many training patients. Raises ConfigError as :class:`DpPlan`."""
    from .noised import numbers_noised  # with it torch; whoever verifies a release needs none

    promise, training = study.privacy.promise, study.training
    assert promise is not None  # noqa: S101  # asked by callers that know
    _, most = promise.noised_steps(training.rounds, training.local_steps)
    _, needed = promise.model_copy(update={"spare_rounds": 0}).noised_steps(training.rounds, training.local_steps)
    numbers = numbers_noised(study)
    return DpPlan(
        promise.epsilon,
        promise.delta,
        patients,
        promise.sampling_rate,
        most,
        numbers,
        most - needed,
        promise.clip_norm,
        longest_means(len(study.channels)) if promise.noised == "means" else None,
    )


def asked_feasibility(study: Study, patients: int) -> Feasibility:
    """Of :func:`asked_plan`, with what every other choice of ``noised`` would make of it."""
    promise = study.privacy.promise
    assert promise is not None  # noqa: S101  # asked by callers that know

    def choosing(noised: Noised) -> DpPlan:
        privacy = study.privacy.model_copy(update={"promise": promise.model_copy(update={"noised": noised})})
        return asked_plan(study.model_copy(update={"privacy": privacy}), patients)

    others = {noised: choosing(noised) for noised in get_args(Noised) if noised != promise.noised}
    countable = {noised: plan for noised, plan in others.items() if plan.steps <= MOST_STEPS}
    return feasibility(asked_plan(study, patients), countable, _fewer_steps_by(promise.noised))


def _fewer_steps_by(noised: Noised) -> str:
    """Which of a study's keys its noised steps are counted by, as :meth:`.PromiseTable.noised_steps` does."""
    if noised == "means":
        return "[privacy.promise] spare_rounds"
    own = "discriminator_steps or spare_rounds" if noised in DISCRIMINATING else "spare_rounds"
    return f"[training] rounds or local_steps, or [privacy.promise] {own}"
