"""What a threshold of t among n sites protects from: which are allowed, and the smallest sum that anybody can get.

Once a round, a site shows its share of one of two secrets of every site: of what hides that site's input, where that is
in the sum, or of what links it to the others, where it is not. Both secrets of one site, t shares each, open its input.
A holder shows one of the two, so both together take 2t shares of n sites: t > n/2 makes that impossible, and leaves
room for 2t - n - 1 sites that help the coordinator and show it both.

A coordinator that lies can still tell each site another story of who answered. Source: Bonawitz et al. 2017 (CCS,
doi 10.1145/3133956.3133982), §6 and appendix; its consistency check would take one more exchange a round. Without it
:func:`smallest_group` is the least that such a coordinator gets a sum over.
"""

from __future__ import annotations

from ..counted import counted
from .terms import FEWEST_SITES


def threshold_problem(sites: int, threshold: int) -> str | None:
    """Why so many sites cannot aggregate at this threshold, as one phrase; None if they can."""
    if sites < FEWEST_SITES:
        return f"{counted(sites, 'site')}: of two, each would learn the other's update from the sum"
    if threshold > sites:
        return f"a threshold of {threshold} among {counted(sites, 'site')}, which can never be reached"
    if 2 * threshold <= sites:
        several = counted(sites, "site")
        return f"a threshold of {threshold} among {several}: two groups of {threshold} could each be told otherwise"
    return None


def helpers_borne(sites: int, threshold: int) -> int:
    """How many sites may give the coordinator all they know, and the others' updates stay hidden from it.

    Never all but one: whoever knows all other updates knows the last one from the sum.

    >>> [helpers_borne(4, t) for t in (3, 4)], helpers_borne(10, 7)
    ([1, 2], 3)
    """
    return min(2 * threshold - sites - 1, sites - 2)


def smallest_group(sites: int, threshold: int, helpers: int = 0) -> int:
    """Fewest sites, helpers aside, whose sum alone a coordinator could get by telling each site another story.

    Each of the h = n - helpers honest sites calls at most n - t dropped, since it answers only where t are in the sum;
    to leave a site out of a sum t - helpers honest ones must have called it dropped.

    >>> smallest_group(3, 3), smallest_group(4, 3), smallest_group(7, 4), smallest_group(7, 5)
    (3, 3, 2, 5)
    """
    honest = sites - helpers
    return honest - honest * (sites - threshold) // (threshold - helpers)
