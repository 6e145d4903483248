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
    """

    unit: Unit
    needed: int
    left: int

    @property
    def short(self) -> bool:
        """Whether the site cannot go on to the study's end."""
        return self.left < self.needed

    def __str__(self) -> str:
        """For a person.

        >>> str(Outlook("round", 3, 1)), str(Outlook("noised step", 1, 1))
        ('3 rounds needed, 1 left', '1 noised step needed, and left')
        """
        return (
            f"{counted(self.needed, self.unit)} needed, {self.left if self.short else 'and left'}{' left' * self.short}"
        )


def told_outlooks(outlooks: Mapping[str, Outlook], fewest: int) -> str:
    """What is said of sites' budgets before a study begins or goes on; empty where all last to its end.

    Args:
        outlooks: By site name.
        fewest: Without how many sites no round counts: the study's quorum, or a masked sum's threshold.

    Raises:
        BudgetSpent: fewer sites than that can take part in the next round.
    """
    if not any(one.short for one in outlooks.values()):
        return ""
    sites = ", ".join(f"site '{name}': {one}" for name, one in sorted(outlooks.items()))
    if sum(one.left > 0 for one in outlooks.values()) < fewest:
        raise BudgetSpent(
            f"the privacy budget of too many sites is spent before the next round ({sites})",
            expected=f"a round's noised steps left at {counted(fewest, 'site')} at least: without them no round counts",
            remedy="Nothing was spent now. Nothing mends a spent budget: ask for less in the study (fewer rounds, more"
            " noise), or take patients who have spent less; 'fedphantom budget show' at each site says what is left.",
        )
    lasting = sorted((one.left for one in outlooks.values() if one.unit == "round"), reverse=True)
    rounds = max(one.needed for one in outlooks.values())
    after = f"the study goes on while {counted(fewest, 'site')} can"
    if lasting and lasting[fewest - 1] < rounds:
        after = (
            f"a round needs {counted(fewest, 'site')}, so many last for {counted(lasting[fewest - 1], 'more round')},"
            " and the study ends there"
        )
    return f"privacy budget: {sites}. A site whose budget is spent is left out; {after}"
