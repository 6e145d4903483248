"""The limits on what patients may spend: over all runs that they take part in, and in one study (PRIVACY §2)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from ...common.counted import counted
from ...common.errors import BudgetSpent, ConfigError
from .accounting import Mechanism, check_delta, epsilon, most_steps, told
from .persons import Marks
from .spending import Spending


@dataclass(frozen=True)
class Budget:
    """What a cohort's patients may spend: in all, in every run that they take part in, and in one study.

    Attributes:
        epsilon: The most, at ``delta``, as the study promises. The study itself never spends more than this.
        delta: Below 1/n of the patients that it is asked for.
        site: What the site itself allows, in its own ``site.toml``; None where it says nothing: then no study may spend
            more than the smallest budget that any of its patients was ever reserved under.
    """

    epsilon: float
    delta: float
    site: float | None = None

    def binding(self, earlier: Iterable[float]) -> float:
        """What binds the sum over all studies, after studies with these budgets."""
        return self.site if self.site is not None else min([self.epsilon, *earlier])


@dataclass(frozen=True)
class Limit:
    """An ε at a δ, and what is counted under it.

    Attributes:
        most: ε.
        delta: At which.
        spent: By the patient for whom it is most.
        asked: ε with what is asked for now, of the patient for whom that is most.
        over: Which steps count, in words.
    """

    most: float
    delta: float
    spent: tuple[Mechanism, ...]
    asked: float
    over: str

    @classmethod
    def on(
        cls, most: float, delta: float, spending: Spending, people: Sequence[Marks], mechanism: Mechanism, over: str
    ) -> Self:
        """The limit on these people's spending, with the steps that are asked for now."""
        asked = epsilon(spending.dearest(delta, people, [mechanism]), delta)
        return cls(most, delta, spending.dearest(delta, people), asked, over)

    def steps_left(self, mechanism: Mechanism) -> int:
        """How many such steps would still fit."""
        return most_steps(self.most, self.delta, mechanism, self.spent)

    def refusal(self, mechanism: Mechanism, left: int) -> BudgetSpent:
        """What is said where these steps do not fit, and so many would."""
        kind = f"with q = {mechanism.sampling_rate:g} and σ = {mechanism.noise_multiplier:.4g}"
        return BudgetSpent(
            f"{told(epsilon(self.spent, self.delta))} of {told(self.most)} at δ = {self.delta:g} is spent, per patient,"
            f" and {counted(mechanism.steps, 'more step')} {kind} would make it {told(self.asked)}",
            expected=f"{told(self.most)} at most, {self.over}",
            remedy=f"{counted(left, 'such step is', 'such steps are')} left; ask for no more, or for more noise."
            if left
            else "No such step is left: the study can go on without this site.",
        )


def limits_of(
    budget: Budget, spending: Spending, of_study: Spending, people: Sequence[Marks], mechanism: Mechanism
) -> tuple[Limit, Limit]:
    """The limit over all runs, and that of the study itself.

    Args:
        budget: What is allowed.
        spending: Everything that these people ever spent.
        of_study: What they spent in the study, in whatever run folder.
        people: Who would spend.
        mechanism: The steps that are asked for.
    """
    most = budget.binding(one.budget for one in spending.reservations)
    everywhere = "over all runs of these patients"
    here = "in this study, as it promises them"
    return (
        Limit.on(most, spending.delta(budget.delta), spending, people, mechanism, everywhere),
        Limit.on(budget.epsilon, budget.delta, of_study, people, mechanism, here),
    )


def check_asked(budget: Budget, patients: int) -> None:
    """Raise ConfigError for nobody, for a δ that is too large for so many, and for a budget that is none."""
    if not patients:
        raise ConfigError("no patient to reserve for", expected="one or more", remedy="Check the cohort.")
    check_delta(budget.delta, patients)
    if not 0 < budget.epsilon < math.inf:
        raise ConfigError(
            f"a budget of ε = {budget.epsilon:g}", expected="ε > 0, finite", remedy="Give the study's or the site's."
        )
