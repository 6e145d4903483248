"""Which scans a site's patients had when first prepared, in its journal: the cohort that trains is the one audited."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from .cohorts.roles import CoinRecord
from .cohorts.scan_digests import patients_digests
from .counted import counted
from .errors import PolicyRefused, VerificationFailed
from .folder_lock import holds_anything
from .journal import Journal, JournalEntry, read_journal

SCANS_PREPARED = "scans-prepared"
"""Journal event, written when the cohort was first prepared, with one keyed digest a patient, in the coins' order."""


def hold_scans(
    journal: Journal, coins: CoinRecord, patients: Sequence[str], digests: Sequence[str], state: Path
) -> None:
    """Note each patient's scans the first time, and hold them against what was noted ever after.

    The digests are keyed with the coin record's salt, which stays at the site: whoever gets the journal alone can look
    for no scan in it.

    Args:
        journal: The site's.
        coins: Their roles.
        patients: Of each prepared scan.
        digests: Of each (:mod:`.cohorts.scan_digests`).
        state: The site's training state.

    Raises:
        PolicyRefused: scans of patients are not those of then; how many patients', never whose.
        VerificationFailed: the site trained, and its journal does not tell on which scans.
    """
    now = patients_digests(patients, digests, bytes.fromhex(coins.salt))
    with journal.held() as held:
        then = _noted(held.entries())
        if then is None:
            if holds_anything(state):
                raise VerificationFailed(
                    "a site that has trained, whose journal does not tell on which scans",
                    expected="a journal that noted them before the first round",
                    remedy="Restore it from a backup; a run of an earlier version cannot go on: begin a new one.",
                )
            held.append(SCANS_PREPARED, scans=now)
            return
    changed = abs(len(then) - len(now)) + sum(not hmac.compare_digest(a, b) for a, b in zip(then, now, strict=False))
    if changed:
        raise PolicyRefused(
            f"the cohort changed since it was first prepared: the scans of {counted(changed, 'patient')} of {len(now)}"
            " are not those of then",
            expected="the very scans and label maps that were trained on",
            remedy="Restore the cohort, or start a new run folder with its own roles; of a privacy budget, what was"
            " spent stays spent.",
        )


def scans_digest(journals: Sequence[Path]) -> str:
    """SHA-256 (hex) over what sites' journals note of their scans: names in a result what was audited, and no scan.

    Raises:
        VerificationFailed: a journal that is broken, or notes none.
    """
    out = hashlib.sha256()
    found = [_noted(read_journal(journal)) for journal in journals]
    if None in found:
        raise VerificationFailed(
            "a site whose journal does not tell which scans it prepared",
            expected="the journal since the site's first start",
            remedy="Restore journal.jsonl from a backup.",
        )
    for noted in sorted(" ".join(scans or ()) for scans in found):
        out.update(f"{noted}\n".encode())
    return out.hexdigest()


def _noted(entries: Sequence[JournalEntry]) -> list[str] | None:
    """What was noted first; None where nothing was."""
    for entry in entries:
        scans = entry.facts.get("scans")
        if entry.event == SCANS_PREPARED and isinstance(scans, list):
            return [str(scan) for scan in scans]
    return None
