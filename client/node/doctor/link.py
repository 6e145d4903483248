"""The link to the coordinator: what the last reply took over it, else what the study declares, and the time that is."""

from __future__ import annotations

from ....common.journal import read_journal
from ....common.site_folder import SiteFolder
from ...site_setup import read_egress_rule
from ..answers import REPLY_ARRIVED
from .finding import Outcome, green, yellow

HANDED_OVER_S = 15.0
"""Of a reply's time at most so much is not the link's: Flower's processes hand it on, and wait in between."""


def check_link(folder: SiteFolder) -> Outcome:
    """Whether replies arrive about as fast as the study declares; nothing is sent for it, no door of its own opened.

    Raises:
        ConfigError: the study or the egress rule cannot be read.
        VerificationFailed: the journal was edited.
    """
    federation, values = folder.study().federation, read_egress_rule(folder).generator.values
    if not values:
        return green("no weights travel in this study")
    size, declared = federation.travels_bytes(values), federation.slowest_link_mbit
    promised = (
        f"the study declares {declared:g} Mbit/s of the slowest link, at which its {size / 1e6:.1f} MB take"
        f" {federation.link_s(values):.0f} s each way"
    )
    entries = read_journal(folder.journal) if folder.journal.exists() else ()
    arrived = next((entry.facts for entry in reversed(entries) if entry.event == REPLY_ARRIVED), None)
    if arrived is None:
        return green(f"not measured before a reply of this site arrived; {promised}")
    megabits, seconds = 8e-6 * float(str(arrived["bytes"])), float(str(arrived["seconds"]))
    measured = (
        f"round {arrived['round']}: a reply of {megabits / 8:.1f} MB arrived {seconds:.0f} s after it left,"
        f" {megabits / seconds:.2g} Mbit/s or more; {promised}"
    )
    if seconds > HANDED_OVER_S + megabits / declared:
        return yellow(
            measured,
            "Tell the coordinator: a round's deadline allows for the declared link. A study with a lower"
            " 'slowest_link_mbit' waits longer; or have the hospital's network give the node more.",
        )
    return green(measured)
