"""What a run led to, as was noted when it did: which generator its rounds made, or a site's own one, of which sites.

A generator file that lies in a run's or a site's folder could have been put there, and a site's folder could have been
taken out. The parameters' digest stands in the coordinator's journal, or of a site that trained alone in its own, from
the moment they were written, and the sites' names from the run's beginning; whoever audits or releases the file asks
there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from .counted import counted
from .errors import DataError, VerificationFailed
from .gan.weights import generator_metadata, study_of
from .journal import Fact, Journal, read_journal
from .study import Study, read_study

RUN_FILE = "run.json"
"""Study digest and site names, in the run's folder."""
JOURNAL = "journal.jsonl"
"""The coordinator's, in the run's folder."""
RUN_STARTED = "run-started"
"""Journal event, with the names of the run's sites."""
RUN_FINISHED = "run-finished"
"""Journal event, written before a run's generators are, with the digest of each one's parameters."""
ROUND_FAILED = "round-failed"
"""Journal event of a round that too few sites answered, or whose sum could not be opened, with its number."""
GENERATOR_KEPT = "generator-kept"
"""Event of a site's own journal, written before its own generator is, with the digest of the parameters."""

NamedBy = Literal["the coordinator's journal", "the site's journal", "the coordinator's signature"]
"""Whose word it is that these patients' training made a generator; a signature's where the journal is elsewhere
(:mod:`.enrolment.named_generator`)."""


def note_generators(run: Path, digests: list[str]) -> None:
    """Say in the coordinator's journal which generators the run led to; said before, it is not said again.

    Raises:
        VerificationFailed: the journal was edited.
        StorageError: the disk is full, read-only or forbidden.
    """
    path = run / JOURNAL
    finished = path.exists() and any(entry.event == RUN_FINISHED for entry in read_journal(path))
    if not finished or not set(digests) <= _noted(path, RUN_FINISHED, "generators"):
        Journal(path).append(RUN_FINISHED, generators=sorted(digests))


def failed_round(run: Path) -> int | None:
    """The round that a run stands still in since it failed; None where none did, or the journal cannot tell."""
    path = run / JOURNAL
    try:
        entries = read_journal(path) if path.exists() else ()
    except VerificationFailed:
        return None
    round_ = entries[-1].facts.get("round") if entries and entries[-1].event == ROUND_FAILED else None
    return round_ if isinstance(round_, int) else None


def refuse_several_generators(run: Path) -> None:
    """Refuse a run's whole folder where each of its sites has a generator of its own.

    Raises:
        DataError: it has; says where each one's folder is.
        ConfigError: the run's study cannot be read.
    """
    if (run / RUN_FILE).exists() and (study := read_study(run / "study.toml")).federation.alone:
        raise DataError(
            f"a run whose sites each have a generator of their own (sharing = '{study.federation.sharing}')",
            expected="the folder of one site: it holds the generator and the patients who trained it",
            remedy=f"Give {run.name or run.resolve().name}/sites/NAME, one site after the other.",
        )


def check_generator(
    run: Path, digest: str, metadata: Mapping[str, str], journals: Mapping[str, Path]
) -> NamedBy | None:
    """Find that these sites' training made the generator of this parameters' digest, and that no site is missing.

    Args:
        run: A run's folder; or one site's own, or one with nothing but a generator, where there may be nobody to ask.
        digest: Of the generator's parameters.
        metadata: What its file says of it.
        journals: Of the sites whose folders are there, by name.

    Returns:
        Who says so; None where there is nobody to ask.

    Raises:
        VerificationFailed: they did not, as far as the coordinator's journal tells, or the journal of the site whose
            own it would be; or that was edited or is gone, or the run had other sites or another study; or the file
            says other things than a run of its study writes, by which the same generator would pass for another.
        DataError: a file without a study.
    """
    study = study_of(metadata)
    _refuse_other_header(metadata, study)
    if study.federation.alone:
        # Another site's generator never saw these patients: an audit would find nothing, and mean nothing.
        if not all(digest in _noted(journal, GENERATOR_KEPT, "generator") for journal in journals.values()):
            raise VerificationFailed(
                "a generator that this site's journal does not know",
                expected="the generator that the site trained: its coins say nothing about another",
                remedy="Give the site's own: generator.safetensors in its folder, as its training left it.",
            )
        return "the site's journal" if journals else None
    if not (run / RUN_FILE).exists() and not (run / "sites").is_dir():
        return None
    journal, sites = run / JOURNAL, journals.keys()
    if digest not in _noted(journal, RUN_FINISHED, "generators") or study.digest() not in _noted(
        journal, RUN_STARTED, "study"
    ):
        raise VerificationFailed(
            "a generator that the run's journal does not know",
            expected="the generator that these sites' rounds made: their coins say nothing about another",
            remedy="Put the run's own file back: the 'fedphantom simulate' command that began the run writes it again.",
        )
    named = _noted(journal, RUN_STARTED, "sites")
    if named != sites:
        raise VerificationFailed(
            f"a run of {counted(len(named), 'site')}, and the folders of {len(named & sites)} of them"
            + (f" and {len(sites - named)} of others" if sites - named else ""),
            expected="the folder of every site that trained the generator, under its own name",
            remedy="Restore the missing folder: patients who cannot be audited cannot be passed over.",
        )
    return "the coordinator's journal"


def _refuse_other_header(metadata: Mapping[str, str], study: Study) -> None:
    """Whoever changes a word of the header has a file of another hash, and the same generator."""
    try:
        written = generator_metadata(study, study.training.rounds, metadata.get("dp", ""))
    except ValueError:
        written = {}
    if metadata != written:
        raise VerificationFailed(
            "a generator whose file does not say of it what its study's training writes",
            expected="the file as the training left it, to the last word of its header",
            remedy="Put the run's or the site's own file back.",
        )


def refuse_unfinished(run: Path, digest: str) -> None:
    """Find that the coordinator's journal names the generator of this parameters' digest, wherever the sites are.

    Raises:
        VerificationFailed: it does not, or was edited.
    """
    if digest not in _noted(run / JOURNAL, RUN_FINISHED, "generators"):
        raise VerificationFailed(
            "a generator that the run's journal does not know",
            expected="the generator that the run's rounds made",
            remedy="Put the run's own file back: 'fedphantom server run' writes it again.",
        )


def contributing_sites(run: Path) -> int | None:
    """How many sites trained a run's average, by the coordinator's journal; None where there is none to ask.

    Raises:
        VerificationFailed: the journal was edited.
    """
    return len(_noted(run / JOURNAL, RUN_STARTED, "sites")) or None


def _noted(journal: Path, event: str, fact: str) -> set[str]:
    """What a journal says under a fact of an event, over all its lines."""
    found: set[str] = set()
    for entry in read_journal(journal) if journal.exists() else ():
        noted: Fact = entry.facts.get(fact)
        if entry.event == event and noted is not None:
            found.update(map(str, noted) if isinstance(noted, list) else [str(noted)])
    return found
