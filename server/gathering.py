"""Waiting for the sites' nodes before a round."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..common.counted import counted
from ..common.errors import PeerError
from .rounds import Rounds

GATHERING_S = 90.0
"""How long a round waits for every site's node before it goes on with a quorum: a restarted node may need a minute."""

_POLL_S = 0.25


def gather(
    connected: Callable[[], list[int]],
    rounds: Rounds,
    gathering_s: float = GATHERING_S,
    let_in: Callable[[], int] | None = None,
) -> list[int]:
    """Connected nodes: all sites', or a quorum after the gathering time.

    Args:
        connected: The nodes that may be asked, sorted.
        rounds: The run.
        gathering_s: Seconds to wait for every site.
        let_in: How many of the run's sites are let in at this moment: for one that left nobody waits. None for all.

    Raises:
        PeerError: fewer than the quorum until the deadline.
    """
    federation = rounds.study.federation
    terms = federation.secure_aggregation
    quorum = federation.fewest_sites
    started, gathering_s = time.monotonic(), min(gathering_s, federation.deadline_s)
    while True:
        nodes, sites = connected(), len(rounds.sites) if let_in is None else let_in()
        waited = time.monotonic() - started
        enough = len(nodes) >= quorum and waited >= gathering_s
        if (len(nodes) >= sites and len(nodes) >= quorum) or enough:
            return nodes
        if waited >= federation.deadline_s:
            raise PeerError(
                f"{len(nodes)} of {counted(sites, 'site')} connected before the deadline",
                expected=f"at least {quorum}, the study's {'threshold' if terms else 'quorum'}",
                remedy="Have the missing sites start their nodes, then run it again: it goes on from here.",
            )
        time.sleep(_POLL_S)
