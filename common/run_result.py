"""What a run led to, as its coordinator noted it: which generator the rounds made, of which sites.

A generator file that lies in a run's folder could have been put there, and a site's folder could have been taken out.
The parameters' digest stands in the coordinator's journal from the moment they were written, and the sites' names from
the run's beginning; whoever audits or releases the file asks there.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from .counted import counted
from .errors import VerificationFailed
from .journal import Fact, Journal, read_journal

RUN_FILE = "run.json"
"""Study digest and site names, in the run's folder."""
JOURNAL = "journal.jsonl"
"""The coordinator's, in the run's folder."""
RUN_STARTED = "run-started"
"""Journal event, with the names of the run's sites."""
RUN_FINISHED = "run-finished"
"""Journal event, written before a run's generators are, with the digest of each one's parameters."""

NamedBy = Literal["the coordinator's journal", "the site's journal"]
"""Whose journal says that these patients' training made a generator."""


def note_generators(run: Path, digests: list[str]) -> None:
    """Say in the coordinator's journal which generators the run led to; said before, it is not said again.

    Raises:
        VerificationFailed: the journal was edited.
        StorageError: the disk is full, read-only or forbidden.
    """
    journal = Journal(run / JOURNAL)
    if not set(digests) <= _noted(run, RUN_FINISHED, "generators"):
        journal.append(RUN_FINISHED, generators=sorted(digests))


def check_generator(run: Path, digest: str, sites: Collection[str]) -> NamedBy | None:
    """Find that the run's rounds made the generator of this parameters' digest, and that no site's folder is missing.

    Args:
        run: A run's folder; or one site's own, or one with nothing but a generator, where there is nobody to ask.
        digest: Of the generator's parameters.
        sites: Names of the sites whose folders are there.

    Returns:
        Who says so; None where there is nobody to ask.

    Raises:
        VerificationFailed: they did not, as far as the coordinator's journal tells, or it was edited or is gone, or
            the run had other sites.
    """
    if not (run / RUN_FILE).exists() and not (run / "sites").is_dir():
        return None
    if digest not in _noted(run, RUN_FINISHED, "generators"):
        raise VerificationFailed(
            "a generator that the run's journal does not know",
            expected="the generator that these sites' rounds made: their coins say nothing about another",
            remedy="Put the run's own file back: the 'fedphantom simulate' command that began the run writes it again.",
        )
    named = _noted(run, RUN_STARTED, "sites")
    if named != set(sites):
        raise VerificationFailed(
            f"a run of {counted(len(named), 'site')}, and the folders of {len(named & set(sites))} of them"
            + (f" and {len(set(sites) - named)} of others" if set(sites) - named else ""),
            expected="the folder of every site that trained the generator, under its own name",
            remedy="Restore the missing folder: patients who cannot be audited cannot be passed over.",
        )
    return "the coordinator's journal"


def _noted(run: Path, event: str, fact: str) -> set[str]:
    """What the coordinator's journal says under a fact of an event, over all its lines."""
    path = run / JOURNAL
    found: set[str] = set()
    for entry in read_journal(path) if path.exists() else ():
        noted: Fact = entry.facts.get(fact)
        if entry.event == event and isinstance(noted, list):
            found.update(map(str, noted))
    return found
