"""Under which conditions a site answers: whom it may be summed with, and how many at least."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

from ..common.masking.peers import Peers, read_peers
from ..common.masking.terms import FEWEST_SITES
from ..common.site_folder import SiteFolder


@dataclass(frozen=True)
class Conditions:
    """What a site asks for before it takes part in a sum; plain rounds ask for none of it.

    Attributes:
        peers: The sites that were approved; raises where nobody was.
        fewest_sites: That this site will be summed with, itself among them; never fewer than the study's threshold.
    """

    peers: Callable[[], Peers]
    fewest_sites: int = FEWEST_SITES

    @classmethod
    def of_simulation(cls, folder: SiteFolder) -> Self:
        """All sites of the run, as its coordinator made them known."""
        return cls(partial(read_peers, folder.peers))
