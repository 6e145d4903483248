"""Where a round that goes by files stands, by what the run's journal tells: cheap enough to be asked every few seconds.

A reply counts as here if it was believed when it came and its file lies here; ``server import`` reads it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...common.journal import JournalEntry, read_journal
from ...common.study import Study
from ..run_folder import RunFolder
from .folder import CoordinatorFolder
from .membership import Membership
from .round_under_way import LEFT, LEFT_SINCE, NO_REPLY, REPLY_KEPT, REQUEST_EXPORTED


def goes_by_files(run: RunFolder) -> bool:
    """Whether any round of this run was asked by a file."""
    return any(entry.event == REQUEST_EXPORTED for entry in _entries(run))


def carried_facts(folder: CoordinatorFolder, study: Study, membership: Membership, done: int) -> dict[str, Any] | None:
    """The round under way, for machines; None where all rounds are done.

    Args:
        folder: The coordinator's folder, whose rounds go by files.
        study: What is trained.
        membership: Who is enrolled.
        done: Rounds that are.

    Raises:
        VerificationFailed: the run's journal was edited.
    """
    run, number = RunFolder(folder.run), done + 1
    if number > study.training.rounds:
        return None
    entries = _entries(run)
    request = _newest(entries, number) if folder.round_request(number).exists() else None
    why = {site: _why_missing(folder, entries, request, membership, number, site) for site in run.claimed()[1]}
    return {
        "round": number,
        "asked": request.time if request else None,
        "roster": request.facts["roster"] if request else None,
        "answered": [site for site, problem in why.items() if problem is None],
        "missing": {site: problem for site, problem in why.items() if problem is not None},
        "quorum": study.federation.quorum,
    }


def carried_text(facts: dict[str, Any]) -> str:
    """The same for people."""
    if facts["asked"] is None:
        return f"round {facts['round']} goes by files and was not asked yet: 'fedphantom server export'"
    missing = "; ".join(f"{site}: {why}" for site, why in facts["missing"].items())
    said = (
        f"round {facts['round']} goes by files, asked {facts['asked']}: replies of"
        f" {', '.join(facts['answered']) or 'nobody'} are here; missing {missing or 'nobody'}"
    )
    enough = len(facts["answered"]) >= facts["quorum"]
    close = "; 'fedphantom server import DIR --close' goes on without them"
    return said + (close if enough and missing else "" if enough else f"; a round needs {facts['quorum']}")


def _newest(entries: Sequence[JournalEntry], number: int) -> JournalEntry | None:
    """The line on the round's newest request, the first one where the same was written several times."""
    asked = [e for e in entries if e.event == REQUEST_EXPORTED and e.facts["round"] == number]
    return next((e for e in asked if e.facts["sha256"] == asked[-1].facts["sha256"]), None)


def _why_missing(
    folder: CoordinatorFolder,
    entries: Sequence[JournalEntry],
    request: JournalEntry | None,
    membership: Membership,
    number: int,
    site: str,
) -> str | None:
    """Why no reply of a site is here; None where one is."""
    kept = [
        entry.time
        for entry in entries
        if request is not None
        and entry.n > request.n
        and (entry.event, entry.facts.get("round"), entry.facts.get("site")) == (REPLY_KEPT, number, site)
    ]
    if not kept or not folder.round_reply(number, site).exists():
        how = membership.left().get(site)
        return LEFT[how] if how else NO_REPLY
    since = [keys.why for keys in membership.retired if keys.name == site and keys.retired >= kept[-1]]
    return next((LEFT_SINCE[why] for why in reversed(since) if why != "renewed"), None)


def _entries(run: RunFolder) -> Sequence[JournalEntry]:
    return read_journal(run.journal) if run.journal.exists() else ()
