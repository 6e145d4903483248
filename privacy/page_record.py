"""Which pages were made of which audit: a line in the journal of every site whose folder was there.

A page is a file that anybody can write, as a result file is. What makes it an audit's page is that the site's own
journal noted its SHA-256 when 'audit report' made it, so whoever approves by it asks there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from ..common.journal import Journal, read_journal

PAGES: Final = "audit-pages"
"""Journal event: the SHA-256 of an audit's result file and of both its pages; written before they appear."""


def note_pages(journals: Iterable[Path], audit_sha256: str, internal: bytes, shareable: bytes) -> None:
    """Write down that these pages are about this audit, in every journal that has begun."""
    digests = {"internal": _digest(internal), "shareable": _digest(shareable)}
    for journal in map(Journal, journals):
        if journal.begun():
            journal.append(PAGES, audit=audit_sha256, **digests)


def is_page_of(content: bytes, audits: Collection[str], journal: Path) -> bool:
    """Whether a site's journal tells that this very file was made of one of these audits, by their SHA-256."""
    digest = _digest(content)
    return any(
        entry.facts.get("audit") in audits and digest in (entry.facts.get("internal"), entry.facts.get("shareable"))
        for entry in read_journal(journal)
        if entry.event == PAGES
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
