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

    def __str__(self) -> str:
        """What is spent of it, for a person."""
        return (
            f"{told(epsilon(self.spent, self.delta))} of {told(self.most)} at δ = {self.delta:g} is spent {self.over}"
        )

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


@dataclass(frozen=True)
class Left:
    """What patients can still be asked for.

    Attributes:
        steps: How many of the steps that are needed; all, at most.
        limit: What limits them, and how much of it is spent, in words.
    """

    steps: int
    limit: str

    @classmethod
    def of_nothing_spent(cls, budget: Budget, mechanism: Mechanism) -> Self:
        """Of patients who never spent anything."""
        most = budget.binding(())
        allowed = f"{told(most)} at δ = {budget.delta:g} is allowed here, and none of it spent"
        return cls(most_steps(most, budget.delta, mechanism), allowed)

    @classmethod
    def under(cls, limits: Sequence[Limit], mechanism: Mechanism) -> Self:
        """Of patients who spent something: the limit that leaves the fewest of these steps."""
        steps = [mechanism.steps if limit.asked <= limit.most else limit.steps_left(mechanism) for limit in limits]
        fewest = min(range(len(limits)), key=steps.__getitem__)
        return cls(steps[fewest], str(limits[fewest]))


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
