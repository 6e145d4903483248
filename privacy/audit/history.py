"""Which audits a holdout has had, as its sites' journals tell, and the turn of the next one.

A journal counts the audits of the coins beside it, of whichever generator. A run in another folder has coins and
journals of its own, and so has a copy of a folder: nobody counts across folders. A note outside would not either, since
who can copy a folder can copy it to where no note is; the README and every report say so instead.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ...common.errors import VerificationFailed
from ...common.journal import Fact, Journal, JournalEntry, read_journal
from ...common.site_folder import ROLES_DRAWN
from ..evidence import BINDING, ReleaseKind
from ..multiplicity import PValues
from ..policy import Tier
from ..statement import STRICTER
from .kept_findings import KeptFindings

AUDITED = "audit-begun"
"""Journal event, written before the first attack: an audit that was broken off was a look at the holdout too."""
DONE = "audit-done"
"""Journal event, written with the SHA-256 of the result file and each attack's p-value."""
FAILED = (
    "This generator failed an earlier audit of this kind of release: whatever this one finds, 'release pack' refuses it"
    " (exit 5). Train another, with fewer steps, more patients or differential privacy."
)
"""Said before a further look at the holdout is spent on it."""


@dataclass(frozen=True)
class Turn:
    """One audit's place among all of its holdout.

    Attributes:
        number: This is audit k.
        id: Names it in every journal; drawn at random.
        earlier: The p-values of the k - 1 before it, the first one first; None where one was broken off, still runs,
            or is told of by its number alone.
    """

    number: int
    id: str
    earlier: tuple[PValues | None, ...]


def begin_audit(journals: Sequence[Journal], noted: Callable[[str], None] = lambda audit: None, **facts: Fact) -> Turn:
    """Take the next number and write it into every journal, under all their locks: no two audits take the same.

    Args:
        journals: Of all sites whose patients are audited together.
        noted: Told the audit's identifier before any journal is, so that one broken off at once can be gone on with.
        facts: Of the event, beside its number.

    Raises:
        VerificationFailed: a journal is missing, broken, or does not tell when its roles were drawn.
        StorageError: the disk is full, read-only or forbidden.
    """
    if not all(journal.path.exists() for journal in journals):
        raise _without_roles()
    # Each file once, or a process would wait for itself; in one order, or two would wait for each other.
    by_file = {journal.path.resolve(): journal for journal in journals}
    with ExitStack() as stack:
        held = [stack.enter_context(by_file[path].held()) for path in sorted(by_file)]
        entries = [journal.entries() for journal in held]
        if not all(any(entry.event == ROLES_DRAWN for entry in told) for told in entries):
            raise _without_roles()
        earlier = _earlier([entry for told in entries for entry in told])
        turn = Turn(1 + len(earlier), secrets.token_hex(8), earlier)
        noted(turn.id)
        for journal in held:
            journal.append(AUDITED, number=turn.number, audit=turn.id, **facts)
    return turn


def take_turn(
    journals: Sequence[Journal],
    findings: KeptFindings,
    begins: Callable[[int, Sequence[str] | None], None],
    **facts: Fact,
) -> Turn:
    """Of the audit that was broken off where these findings lie, if nothing has changed since; else the next one's.

    Args:
        journals: Of all sites whose patients are audited together.
        findings: What a broken-off audit left, or nothing.
        begins: Told the audit's number and, where it goes on, what was found finished; None where it is a new one.
        facts: Of the event of a new one.

    Raises:
        VerificationFailed, StorageError: as :func:`begin_audit`.
    """
    broken_off = findings.turn()
    turn = resume_audit(journals, broken_off, findings.inputs) if broken_off else None
    if turn is None:
        turn = begin_audit(journals, findings.begin, inputs=findings.inputs, **facts)
        begins(turn.number, None)
    else:
        begins(turn.number, findings.finished())
    return turn


def resume_audit(journals: Sequence[Journal], audit: str, inputs: str) -> Turn | None:
    """The turn of an audit that was broken off, to be gone on with: no further look at the holdout, but the same one.

    That is so where nothing else was looked at since: it is the last that every journal tells of, with the very inputs
    of now, and none tells its end. Its seeds then are the same, and so is whatever it will find: whoever breaks audits
    off until one pleases gains nothing.

    Args:
        journals: Of all sites whose patients are audited together.
        audit: Its identifier, as the folder has it where it was broken off.
        inputs: Digest of all that its figures depend on.

    Raises:
        VerificationFailed: a journal is broken.
    """
    told = [read_journal(journal.path) if journal.path.exists() else () for journal in journals]
    last = [[entry for entry in entries if entry.event in (AUDITED, DONE)][-1:] for entries in told]
    begun = [entry for entries in last for entry in entries if entry.event == AUDITED]
    same = [entry for entry in begun if (entry.facts.get("audit"), entry.facts.get("inputs")) == (audit, inputs)]
    if not same or len(same) < len(journals):
        return None
    others = [entry for entries in told for entry in entries if entry.facts.get("audit") != audit]
    earlier = _earlier(others)
    number = 1 + len(earlier)
    return Turn(number, audit, earlier) if same[0].facts.get("number") == number else None


def end_audit(journals: Sequence[Journal], turn: Turn, p_values: PValues, **facts: Fact) -> None:
    """Write into every journal how an audit ended.

    Raises:
        StorageError: the disk is full, read-only or forbidden.
    """
    for journal in journals:
        journal.append(DONE, number=turn.number, audit=turn.id, p_values=dict(p_values), **facts)


def refuse_forgotten(results: Path, journals: Sequence[Journal], cohort_digest: str) -> None:
    """Hold every audit result in a folder against the journals of its sites: each must know it.

    So a journal that lost its last lines, head and all, is found by any result that it no longer tells of. A result
    whose audit was broken off before the journal could note it is known by its number.

    Args:
        results: Where ``audit-001.json`` and so on lie.
        journals: Of the sites.
        cohort_digest: Of their coins: results about other sites are none of their business.

    Raises:
        VerificationFailed: a result that a journal does not know, or a broken journal.
    """
    told = [read_journal(journal.path) for journal in journals]
    for file in sorted(results.glob("audit-[0-9]*.json")):
        content = file.read_bytes()
        try:
            result = json.loads(content)
            same, number = result["cohort_digest"] == cohort_digest, result["audit_number"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        digest = hashlib.sha256(content).hexdigest()
        if same and not all(_knows(entries, digest, number) for entries in told):
            raise VerificationFailed(
                f"{file.name}, an audit of these patients that a site's journal does not know",
                expected="a journal that tells of every audit of its holdout",
                remedy="Lines of the journal were cut off, or the result was changed: restore them from a backup.",
            )


def failed_before(
    done: Mapping[str, Fact], generator_sha256: str, parameters_sha256: str, kind: ReleaseKind, tier: Tier
) -> bool:
    """Whether a journalled audit is a FAIL of this generator that stands against such a release.

    A generator is its parameters: the same under another header, with another file's hash, failed too. Lines of earlier
    versions tell of the file alone.
    """
    known = done.get("generator") == generator_sha256 or done.get("parameters") == parameters_sha256
    same = known and done.get("verdict") == "FAIL"
    # Whoever holds the weights can make volumes: what fails for volumes fails for weights.
    covered = any(one == done.get("release") and set(models) <= set(BINDING[kind]) for one, models in BINDING.items())
    # What fails a lax tier fails a stricter one.
    return same and covered and any(one == done.get("tier") and tier in stricter for one, stricter in STRICTER.items())


def stands_failed(
    journals: Sequence[Journal], generator_sha256: str, parameters_sha256: str, kind: ReleaseKind, tier: Tier
) -> bool:
    """Whether any of these journals tells of such a FAIL; as :func:`failed_before`.

    Raises:
        VerificationFailed: a broken journal.
    """
    told = (entry for journal in journals if journal.path.exists() for entry in read_journal(journal.path))
    return any(
        failed_before(entry.facts, generator_sha256, parameters_sha256, kind, tier)
        for entry in told
        if entry.event == DONE
    )


def _knows(entries: Sequence[JournalEntry], digest: str, number: object) -> bool:
    done = [entry.facts for entry in entries if entry.event == DONE]
    begun = [entry.facts.get("number") for entry in entries if entry.event == AUDITED]
    cut_off = number in begun and number not in [facts.get("number") for facts in done]
    return cut_off or digest in [facts.get("sha256") for facts in done]


def _earlier(entries: Sequence[JournalEntry]) -> tuple[PValues | None, ...]:
    """Each audit once, however many journals tell of it; as many as the highest number says, at least."""
    found: dict[tuple[int, str], PValues | None] = {}
    for entry in entries:
        if entry.event in (AUDITED, DONE):
            number = entry.facts.get("number")
            place = number if isinstance(number, int) else 0
            # Journals of earlier versions know an audit by its number and generator.
            key = place, str(entry.facts.get("audit") or entry.facts.get("generator"))
            found[key] = _p_values(entry.facts.get("p_values")) or found.get(key)
    known = [found[key] for key in sorted(found)]
    return (*known, *[None] * (max((number for number, _ in found), default=0) - len(known)))


def _p_values(fact: Fact) -> PValues | None:
    if not isinstance(fact, dict):
        return None
    values = {name: p for name, p in fact.items() if isinstance(p, float) and 0 <= p <= 1}
    return values if len(values) == len(fact) else None


def _without_roles() -> VerificationFailed:
    return VerificationFailed(
        "a site whose journal does not tell when its roles were drawn",
        expected="the journal since the site's first start: it counts the audits of this holdout",
        remedy="Restore journal.jsonl from a backup; without it this cohort needs a new run with roles of its own.",
    )
