"""What was promised to the patients behind a generator, in one object with all that an ε means nothing without."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...common.counted import counted
from ...common.errors import DataError
from ...common.promise import Noised
from ...common.study import Study
from .accounting import ACCOUNTANT, ADJACENCY, SAMPLING, UNIT, Mechanism, epsilon, told
from .plan import noised_plan

NONE: Final = "none"
"""What stands in the statement's place where nothing is promised, said as loudly."""


_SIGMA: Final = 0.005
"""Relative; the σ that a promise needs is searched for to 0.2 %, on whatever machine."""

WHAT: Final[Mapping[Noised, str]] = {
    "means": "the mean intensities of structures",
    "generator-head": "the generator's last layer",
    "norms": "the discriminator's norms",
    "head": "the discriminator's last layer",
    "all": "the whole discriminator",
}
"""What is noised, in words."""


class DpStatement(BaseModel):
    """Patient-level differential privacy of a generator (PRIVACY §0).

    Attributes:
        epsilon: Over all rounds, of the patient whom it holds least for.
        delta: The probability with which it may not hold.
        unit: Whose contribution it hides.
        adjacency: Which two cohorts it cannot tell apart.
        sampling: How patients were drawn into a step.
        accountant: What computed ε.
        sampling_rate: q.
        noise_multiplier: σ.
        clip_norm: C.
        noised: What was noised: ``means`` of structures, or gradients of the generator's last layer or of (some of)
            the discriminator.
        steps: Noised steps behind it, of the site that took most; broken-off ones count. Of a site that did not answer
            when it was last asked, ε and steps are those that the study may cost it at most.
        across_sites: Of several sites, whether ε is the largest (no patient at two of them) or, with δ, the sum.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epsilon: float = Field(gt=0)
    delta: float = Field(gt=0, lt=1)
    unit: Literal["patient"] = UNIT
    adjacency: Annotated[str, Field(max_length=200)] = ADJACENCY
    sampling: Literal["Poisson"] = SAMPLING
    accountant: Literal["pld"] = ACCOUNTANT
    sampling_rate: float = Field(gt=0, le=1)
    noise_multiplier: float = Field(gt=0)
    clip_norm: float = Field(gt=0)
    steps: int = Field(gt=0)
    noised: Noised
    across_sites: Literal["largest", "sum"] = "largest"

    def sentence(self) -> str:
        """All of it, for people."""
        steps = f"{counted(self.steps, 'noised step')} of {WHAT[self.noised]}"
        together = {"largest": "no patient at two sites", "sum": "summed over sites that may share patients"}
        return (
            f"{told(self.epsilon)} at δ = {self.delta:g}; unit: {self.unit}; adjacency: {self.adjacency}; "
            f"sampling: {self.sampling}, q = {self.sampling_rate:g}; σ = {self.noise_multiplier:.3g}, clipped at"
            f" {self.clip_norm:g}; {steps}; accountant: {self.accountant}; "
            f"{together[self.across_sites]}"
        )

    def encode(self) -> str:
        """For the header of a weights file."""
        return self.model_dump_json()


@dataclass(frozen=True)
class Spent:
    """What a study has cost a site's patients.

    Attributes:
        epsilon: At the study's δ.
        steps: Noised steps behind it.
    """

    epsilon: float
    steps: int


def dp_statement(study: Study, spent: Mapping[str, Spent]) -> DpStatement | None:
    """What holds for a generator of the study; None where the study promises nothing.

    Args:
        study: What was trained.
        spent: By site, each by its own ledger.
    """
    promise = study.privacy.promise
    if promise is None:
        return None
    plan = noised_plan(study)
    return DpStatement(
        epsilon=promise.over_sites([one.epsilon for one in spent.values()]),
        delta=promise.delta * (len(spent) if promise.sites_overlap else 1),
        sampling_rate=plan.sampling_rate,
        noise_multiplier=plan.noise_multiplier,
        clip_norm=promise.clip_norm,
        steps=max(one.steps for one in spent.values()),
        noised=promise.noised,
        across_sites="sum" if promise.sites_overlap else "largest",
    )


def asked_for(study: Study) -> DpStatement | None:
    """What a study promises before anything is trained: the same, with the ε that may be spent at most."""
    spent = asked_spent(study)
    return dp_statement(study, {"": spent}) if spent else None


def asked_spent(study: Study) -> Spent | None:
    """What a study may cost a site's patients at most; None where it promises nothing."""
    promise = study.privacy.promise
    return Spent(promise.epsilon, noised_plan(study).most_steps) if promise else None


def said(dp: Literal["none"] | DpStatement) -> str:
    """The statement in words, or ``none``."""
    return dp if dp == NONE else dp.sentence()


def one_line(promise: DpStatement | None) -> str:
    """What a command prints after ``dp: ``."""
    return f"patient-level, {promise.sentence()}" if promise else NONE


def read_dp(text: str, study: Study) -> DpStatement | None:
    """What a weights file's header says of the promise behind it; None for ``none``.

    Raises:
        DataError: neither ``none`` nor a whole statement, or not what the study in the same header promises.
    """
    statement, promise = _parsed(text), study.privacy.promise
    if statement is None and promise is None:
        return None
    if statement is None or promise is None:
        raise _unfit("contradicts the study in its header")
    plan = noised_plan(study)
    asked = (plan.sampling_rate, promise.clip_norm, promise.noised)
    told_of = (statement.sampling_rate, statement.clip_norm, statement.noised)
    across = "sum" if promise.sites_overlap else "largest"
    fits = asked == told_of and statement.across_sites == across and statement.steps <= plan.most_steps
    fits = fits and math.isclose(statement.noise_multiplier, plan.noise_multiplier, rel_tol=_SIGMA)
    sites = round(statement.delta / promise.delta)
    fits = fits and math.isclose(statement.delta, promise.delta * (sites if across == "sum" else 1), rel_tol=1e-9)
    fits = fits and statement.epsilon <= promise.epsilon * (sites if across == "sum" else 1)
    if not fits or statement.epsilon < _least(statement, promise.delta):
        raise _unfit("is not the one of the study in its header")
    return statement


def _least(statement: DpStatement, delta: float) -> float:
    """What the stated steps cost one site: no statement of them may say less."""
    steps = Mechanism(statement.sampling_rate, statement.noise_multiplier, statement.steps)
    return epsilon([steps], delta) * (1 - 1e-6)


def _parsed(text: str) -> DpStatement | None:
    if text == NONE:
        return None
    try:
        return DpStatement.model_validate_json(text)
    except ValidationError:
        raise _unfit("is neither 'none' nor a whole statement") from None


def _unfit(how: str) -> DataError:
    return DataError(
        f"a weights file whose promise {how}",
        expected="'none', or ε with δ, unit, adjacency, sampling, accountant, q, σ and steps, as the study asks for",
        remedy="Take generator.safetensors from the run or release itself.",
    )
