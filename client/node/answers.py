"""What of a site's journal says that it answered a round, by itself or in a sum."""

from __future__ import annotations

from ...common.journal import JournalEntry
from ...common.site_folder import REPLY_LEFT
from ..secure_reply import MASKED_LEFT

REPLY_ARRIVED = "reply-arrived"
"""Journal event of ``site start``: a round's reply reached the coordinator; round, bytes, seconds since it left, those
included in which Flower's processes handed it over."""


def left(entry: JournalEntry) -> bool:
    """Whether something left for the coordinator."""
    return entry.event in (REPLY_LEFT, MASKED_LEFT)


def answered(entry: JournalEntry) -> bool:
    """Whether it is what was trained in a round, masked or as it is."""
    return entry.event == REPLY_LEFT or (entry.event == MASKED_LEFT and entry.facts.get("what") == "input")


def round_over(entry: JournalEntry) -> bool:
    """Whether no more is asked of the site in that round; a sum still needs its shares after its input."""
    return entry.event == REPLY_LEFT or (entry.event == MASKED_LEFT and entry.facts.get("what") == "sum")
