"""Sites' budgets, looked at before a simulation's next round: on one machine what is left at a site is no secret."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from ..common.cohort import Cohort
from ..common.errors import about
from ..common.study import Study
from ..privacy.dp.outlook import Outlook, told_outlooks
from .run_folder import RunFolder
from .site_cohorts import OwnCohort


class SeeBudget(Protocol):
    """Looks at a site's ledger before anything is spent."""

    def __call__(self, folder: Path, name: str, cohort: Cohort, study: Study, rounds_done: int, /) -> Outlook:
        """Return how far the site can go; raise VerificationFailed where its ledger cannot be trusted."""
        ...


def check_budgets(
    see: SeeBudget,
    folder: RunFolder,
    own: Mapping[str, OwnCohort],
    study: Study,
    rounds_done: int,
    say: Callable[[str], None],
) -> None:
    """Open every site's ledger, and say what is left where some site cannot go on to the end.

    Raises:
        BudgetSpent: fewer sites than a round needs could go on to the study's end.
        VerificationFailed: a ledger is damaged, missing or another's; names the site.
        PolicyRefused: a site's patients are others than the ledger or the coin record knows; names the site.
    """
    outlooks = {}
    for name in sorted(own):
        with about(f"site '{name}'"):
            outlooks[name] = see(folder.site(name), name, own[name].read(), study, rounds_done)
    if told := told_outlooks(outlooks, study.federation.fewest_sites):
        say(told)
