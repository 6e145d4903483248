"""What became of releases, as lines of a run's or site's journal: packed, refused, approved, collected, withdrawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...common.errors import PolicyRefused, VerificationFailed
from ...common.journal import Fact, Journal
from ...common.run_result import JOURNAL

PACKED = "release-packed"
APPROVED = "release-approved"
"""Written before the approval is: who cannot write it down has not approved."""
COLLECTED = "approval-collected"
"""A site's approval came to the packer; written before it lies in the packer's copy."""
WITHDRAWN = "release-withdrawn"
"""Written before the notice is."""
REFUSED = "release-refused"
"""A policy stood against packing or approving; says why."""


def note(folder: Path, event: str, **facts: Fact) -> None:
    """Add a line to the journal of a run's or site's folder.

    Raises:
        VerificationFailed: there is no journal, or it is not what was written.
        StorageError: the disk is full, read-only or forbidden.
    """
    journal = Journal(folder / JOURNAL)
    if not journal.begun():
        raise VerificationFailed(
            "a folder without the journal that a release's history belongs in",
            expected=f"a run's or a site's folder with its {JOURNAL}",
            remedy="Give that folder; if its journal was lost, restore it from a backup.",
        )
    journal.append(event, **facts)


def keeps_history(folder: Path) -> bool:
    """Whether the folder has a journal; one with a generator alone, which was received, has none."""
    return Journal(folder / JOURNAL).begun()


@contextmanager
def refusals_noted(folder: Path, **facts: Fact) -> Iterator[None]:
    """Write down what a policy refuses meanwhile, and refuse it."""
    try:
        yield
    except PolicyRefused as error:
        if keeps_history(folder):
            note(folder, REFUSED, reason=error.found, **facts)
        raise
