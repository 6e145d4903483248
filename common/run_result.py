"""What a run led to, as its coordinator noted it: which generator the sites' training made.

A generator file that lies in a run's folder could have been put there. Its parameters' digest stands in the
coordinator's journal from the moment they were written, and whoever audits or releases the file asks there.
"""

from __future__ import annotations

from pathlib import Path

from .errors import VerificationFailed
from .journal import Journal, read_journal

RUN_FILE = "run.json"
"""Study digest and site names, in the run's folder."""
JOURNAL = "journal.jsonl"
"""The coordinator's, in the run's folder."""
RUN_FINISHED = "run-finished"
"""Journal event, written before a run's generators are, with the digest of each one's parameters."""


def note_generators(run: Path, digests: list[str]) -> None:
    """Say in the coordinator's journal which generators the run led to; said before, it is not said again.

    Raises:
        VerificationFailed: the journal was edited.
        StorageError: the disk is full, read-only or forbidden.
    """
    journal = Journal(run / JOURNAL)
    if not set(digests) <= _noted(run):
        journal.append(RUN_FINISHED, generators=sorted(digests))


def refuse_generator_of_no_round(run: Path, digest: str) -> str | None:
    """Find that the run's rounds made the generator of this parameters' digest.

    Args:
        run: A run's folder; or one site's own, or one with nothing but a generator, where there is nobody to ask.
        digest: Of the generator's parameters.

    Returns:
        Who says so; None where there is nobody to ask.

    Raises:
        VerificationFailed: they did not, as far as the coordinator's journal tells, or it was edited or is gone.
    """
    if not (run / RUN_FILE).exists() and not (run / "sites").is_dir():
        return None
    if digest not in _noted(run):
        raise VerificationFailed(
            "a generator that the run's journal does not know",
            expected="the generator that these sites' rounds made: their coins say nothing about another",
            remedy="Put the run's own file back: the 'fedphantom simulate' command that began the run writes it again.",
        )
    return "the coordinator's journal"


def _noted(run: Path) -> set[str]:
    path = run / JOURNAL
    found: set[str] = set()
    for entry in read_journal(path) if path.exists() else ():
        noted = entry.facts.get("generators")
        if entry.event == RUN_FINISHED and isinstance(noted, list):
            found.update(map(str, noted))
    return found
