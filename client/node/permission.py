"""Whether a site may answer a round now; asked before every one, whatever started it."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from ...common.masking.peers import Peers
from ...common.site_folder import SiteFolder
from ..conditions import Conditions
from .approval import refuse_unapproved
from .joining import accepted_roster, open_enrolled
from .limits import read_limits
from .standing import refuse_absent


def check_permission(folder: SiteFolder) -> Conditions:
    """Find that the site takes part and that exactly what runs now was approved.

    Returns:
        Whom it may be summed with: the sites of the approved roster whose keys count now, and as many as its own limits
        ask for.

    Raises:
        PolicyRefused: it paused or withdrew, nobody approved, or something changed since.
        ConfigError, VerificationFailed: what it would be judged by cannot be read or was edited.
    """
    refuse_absent(folder)
    refuse_unapproved(folder)
    return Conditions(partial(approved_peers, folder, datetime.now(UTC)), read_limits(folder.root).sites)


def approved_peers(folder: SiteFolder, now: datetime) -> Peers:
    """Identity keys of the sites on the accepted roster, by name.

    Raises:
        ConfigError: it accepted none yet.
        SignatureInvalid: the roster was changed since.
    """
    _, node, invitation = open_enrolled(folder.root)
    active = accepted_roster(node, invitation).active(now)
    return Peers({name: site.identity() for name, site in active.items()})
