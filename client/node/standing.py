"""How a site stands to its study: taking part, paused, withdrawn. Its journal says so."""

from __future__ import annotations

from typing import Literal

from ...common.errors import PolicyRefused
from ...common.journal import Journal, read_journal
from ...common.site_folder import SiteFolder

PAUSED, GOES_ON, WITHDRAWN = "site-paused", "site-goes-on", "site-withdrew"
"""Journal events."""

Standing = Literal["takes part", "paused", "withdrawn"]


def standing(folder: SiteFolder) -> Standing:
    """How the site stands. Raises VerificationFailed where its journal was edited."""
    entries = read_journal(folder.journal) if folder.journal.exists() else ()
    events = [entry.event for entry in entries if entry.event in (PAUSED, GOES_ON, WITHDRAWN)]
    if WITHDRAWN in events:
        return "withdrawn"
    return "paused" if events and events[-1] == PAUSED else "takes part"


def pause(folder: SiteFolder) -> None:
    """Answer no round until :func:`go_on`. Raises PolicyRefused once withdrawn."""
    _refuse_withdrawn(folder)
    if standing(folder) != "paused":
        Journal(folder.journal).append(PAUSED)


def go_on(folder: SiteFolder) -> None:
    """Take part again. Raises PolicyRefused once withdrawn."""
    _refuse_withdrawn(folder)
    if standing(folder) == "paused":
        Journal(folder.journal).append(GOES_ON)


def withdraw(folder: SiteFolder, reason: str) -> str:
    """Take part no more, for good; called again it changes nothing.

    Args:
        folder: The site's folder.
        reason: For the site's own journal; it is told to nobody.

    Returns:
        Since when, UTC, ISO 8601.
    """
    if standing(folder) != "withdrawn":
        Journal(folder.journal).append(WITHDRAWN, reason=reason)
    return next(entry.time for entry in read_journal(folder.journal) if entry.event == WITHDRAWN)


def refuse_absent(folder: SiteFolder) -> None:
    """Raise PolicyRefused where the site is paused or has withdrawn."""
    _refuse_withdrawn(folder)
    if standing(folder) == "paused":
        raise PolicyRefused(
            "this site has paused",
            expected="a site that takes part",
            remedy="'fedphantom site go-on' ends the pause.",
        )


def _refuse_withdrawn(folder: SiteFolder) -> None:
    if standing(folder) == "withdrawn":
        raise PolicyRefused(
            "this site has withdrawn from the study",
            expected="a site that takes part",
            remedy="A withdrawal is final. To take part again, begin a new folder with a new invitation.",
        )
