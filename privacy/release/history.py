"""What became of releases, as lines of a run's or site's journal: packed, refused, approved, collected, withdrawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...common.errors import PolicyRefused, VerificationFailed
from ...common.journal import Fact, Journal, read_journal
from ...common.run_result import JOURNAL
from ..evidence import ReleaseKind

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


def refuse_what_was_withdrawn(
    folders: Iterable[Path], kind: ReleaseKind, generator_sha256: str, synthetic_sha256: str | None
) -> None:
    """Keep what was taken back from being packed or approved again, by the journals of these folders.

    Args:
        folders: A run's or sites'; one without a journal tells of nothing.
        kind: Of the release to be made or approved.
        generator_sha256: Of the generator behind it.
        synthetic_sha256: Over its volumes' content; of no account for weights.

    Raises:
        PolicyRefused: the same volumes, or the weights that they come from or that are to leave, were withdrawn.
        VerificationFailed: a broken journal.
    """
    for folder in (one for one in folders if keeps_history(one)):
        for facts in (entry.facts for entry in read_journal(folder / JOURNAL) if entry.event == WITHDRAWN):
            weights = facts.get("kind") == "weights" and facts.get("generator") == generator_sha256
            volumes = kind == "volumes" and synthetic_sha256 and facts.get("synthetic") == synthetic_sha256
            if weights or volumes:
                raise PolicyRefused(
                    f"{'weights' if weights else 'volumes'} that were released before and withdrawn:"
                    f" {facts.get('reason')}",
                    expected="what nobody took back",
                    remedy="Generate other volumes and audit them, or, where weights were withdrawn, train another"
                    " generator: what was taken back stays so.",
                )


@contextmanager
def refusals_noted(folder: Path, **facts: Fact) -> Iterator[None]:
    """Write down what a policy refuses meanwhile, and refuse it."""
    try:
        yield
    except PolicyRefused as error:
        if keeps_history(folder):
            note(folder, REFUSED, reason=error.found, **facts)
        raise
