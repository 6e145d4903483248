"""How far a site's budget lets it go in a study, before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ...common.counted import counted
from ...common.errors import BudgetSpent

Unit = Literal["round", "noised step"]
"""What is paid for at a time: a round's noised steps, or the one noised step of the whole study (means)."""


@dataclass(frozen=True)
class Outlook:
    """Of one site.

    Attributes:
        unit: What is counted.
        needed: How many of these the study still asks of the site.
        left: How many it can still give, one that it has paid for and not yet sent included; ``needed`` at most.
        limit: What limits them, and how much of it is spent, in words; empty where nothing does.
    """

    unit: Unit
    needed: int
    left: int
    limit: str = ""

    @property
    def short(self) -> bool:
        """Whether the site cannot go on to the study's end."""
        return self.left < self.needed

    def __str__(self) -> str:
        """For a person.

        >>> str(Outlook("round", 3, 1, "ε = 2 of 3 is spent")), str(Outlook("noised step", 1, 1))
        ('3 rounds needed, 1 left (ε = 2 of 3 is spent)', '1 noised step needed, and left')
        """
        needed = f"{counted(self.needed, self.unit)} needed"
        if not self.short:
            return f"{needed}, and left"
        return f"{needed}, {self.left} left" + (f" ({self.limit})" if self.limit else "")


def told_outlooks(outlooks: Mapping[str, Outlook], fewest: int) -> str:
    """What is said of sites' budgets before a study begins or goes on; empty where all last to its end.

    Args:
        outlooks: By site name.
        fewest: Without how many sites no round counts: the study's quorum, or a masked sum's threshold.

    Raises:
        BudgetSpent: fewer sites than that can go on to the study's end, so that it would break off before, all that it
            spent for nothing.
    """
    short = {name: one for name, one in sorted(outlooks.items()) if one.short}
    if not short:
        return ""
    sites, lasting = "; ".join(f"site '{name}': {one}" for name, one in short.items()), len(outlooks) - len(short)
    if lasting < fewest:
        raise BudgetSpent(
            f"the privacy budget lasts to the study's end at {lasting} of {counted(len(outlooks), 'site')} ({sites})",
            expected=f"{counted(fewest, 'site')} at least whose budget lasts: without them no round counts, and a study"
            " that breaks off leaves no generator",
            remedy="Nothing was spent now. Nothing mends a spent budget: ask for less in a study of its own (fewer"
            " rounds, more noise), or take patients who have spent less. 'fedphantom budget show' on a site's folder of"
            " an earlier run says what was spent when.",
        )
    return f"privacy budget: {sites}. A site whose budget is spent is left out, and the study goes on without it"
