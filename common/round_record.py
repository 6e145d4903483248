"""What a site keeps of its rounds for its own audit: what it sent, and what all sites' replies together became.

Without secure aggregation a coordinator sees each site's generator every round (threat model F). What that betrays,
only somebody who still has what was sent can audit. It lies in the site's folder for its owner alone, and nothing sends
it anywhere. With secure aggregation nothing is kept: what left says nothing by itself.

rounds/sent-00003.safetensors   what left the site in round 3
rounds/made-00003.safetensors   what round 4 began from: the average that round 3 led to
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .atomic import for_owner_alone, write_atomic
from .errors import DataError
from .exchange import Parameters
from .gan.parameters import parameters_digest
from .journal import read_journal
from .site_folder import REPLY_LEFT, SiteFolder
from .tensor_file import decode, encode

FOLDER = "rounds"
MOST = 4
"""Rounds kept of a run, however long: the first, the last, and some between. They bound disk and an audit's time."""


@dataclass(frozen=True)
class KeptRound:
    """One round.

    Attributes:
        round: 1-based.
        sent: What the site sent.
        made: What the next round began from; None where that is not known here.
    """

    round: int
    sent: Parameters
    made: Parameters | None


def rounds_kept(rounds: int) -> tuple[int, ...]:
    """Which rounds of a study's are kept, evenly from the first to the last.

    >>> rounds_kept(8)
    (1, 3, 6, 8)
    """
    return tuple(sorted({round(float(r)) for r in np.linspace(1, rounds, min(rounds, MOST))}))


def keep_round(folder: SiteFolder, rounds: int, number: int, incoming: Parameters, sent: Parameters) -> None:
    """Keep what a round began from and led to, where it is one to be kept; the same again changes nothing.

    Args:
        folder: The site's.
        rounds: Of the study.
        number: Of this round, 1-based.
        incoming: What it began from; empty where no weights travel.
        sent: What leaves; empty where no weights do.

    Raises:
        StorageError: the disk is full, read-only or forbidden.
    """
    kept, place = rounds_kept(rounds), folder.root / FOLDER
    files = {f"sent-{number:05d}": sent} if number in kept else {}
    if number - 1 in kept:
        files[f"made-{number - 1:05d}"] = incoming
    for name, parameters in files.items():
        if parameters:
            place.mkdir(exist_ok=True)
            for_owner_alone(place)
            write_atomic(place / f"{name}.safetensors", encode(dict(parameters), {}), mode=0o600)


def kept_numbers(folder: SiteFolder, *, followed: bool) -> tuple[int, ...]:
    """Rounds that were kept, as far as the site's journal says of each that this is what left; damaged ones count not.

    Args:
        folder: The site's.
        followed: Only those of which the site also knows what all replies became.

    Raises:
        VerificationFailed: the journal was edited.
    """
    if not folder.journal.exists():
        return ()
    replies = [entry.facts for entry in read_journal(folder.journal) if entry.event == REPLY_LEFT]
    left = {(facts.get("round"), facts.get("sha256")) for facts in replies}
    began = {(facts.get("round"), facts.get("incoming")) for facts in replies}
    out = []
    for number in sorted({int(str(facts["round"])) for facts in replies}):
        kept = kept_round(folder, number)
        if kept is None or (number, parameters_digest(kept.sent)) not in left:
            continue
        if not followed or (kept.made is not None and (number + 1, parameters_digest(kept.made)) in began):
            out.append(number)
    return tuple(out)


def kept_round(folder: SiteFolder, number: int) -> KeptRound | None:
    """What lies there of one round; None where nothing of it does, or a damaged file."""
    sent = _read(folder, f"sent-{number:05d}")
    return None if sent is None else KeptRound(number, sent, _read(folder, f"made-{number:05d}"))


def _read(folder: SiteFolder, name: str) -> Parameters | None:
    try:
        arrays, _ = decode((folder.root / FOLDER / f"{name}.safetensors").read_bytes(), "kept round")
    except (OSError, DataError):
        return None
    return arrays
