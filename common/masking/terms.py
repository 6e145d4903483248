"""A study's ``[federation.secure_aggregation]``: how many sites a sum needs, and how updates become whole numbers."""

from __future__ import annotations

from pydantic import Field

from ..study_table import StudyTable

FEWEST_SITES = 3
"""In any sum: of two sites each would learn the other's update by taking its own from the sum."""
SUM_EXPECTED = "3 sites or more, a threshold of more than half of them, and whole weights that fit"
"""Of a study's sites, in an error's words."""


class SecureAggregationTable(StudyTable):
    """The table itself; a study without it has its coordinator see every site's generator."""

    threshold: int = Field(ge=FEWEST_SITES, le=1000)
    """Fewest sites in a sum, and how many of them must answer for it to be opened; more than half of all sites. As many
    sites together can open a single one's update, fewer cannot."""
    clip: float = Field(gt=0, le=1e9)
    """Largest L2 norm of a site's update (its generator less the round's); the site itself scales a larger one back."""
    bits: int = Field(default=20, ge=8, le=28)
    """Each value is rounded to ``clip`` / 2^bits. The sum of the sites' weights has the remaining 31 - bits."""
