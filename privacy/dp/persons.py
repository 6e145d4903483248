"""Who is the same person: patients known by keyed hashes of what they are called and of what their scans hold.

A name alone would not do: in some layouts it is a file's name, and a renamed file would be a new person with a new
budget. So each patient is known by several marks, and whoever shares one with another is the same person. Marks are
HMACs with the site's secret: nobody else can tell whose they are, or try out names.

A label map is a mark like a channel, unless several patients of a site have the very same: an atlas's, say, where all
scans were brought into its space. That one tells nobody from anybody, and its mark is of the patient's identifier too.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

Marks = frozenset[str]
"""One patient: HMAC-SHA256 (hex) of the identifier, and of the voxels of each scan's channels and label map."""


@dataclass(frozen=True)
class Held:
    """What one patient's scans hold, whatever their files are called.

    Attributes:
        channels: Digest (hex) of each channel's voxels.
        label_maps: Likewise of each label map's that no other patient of the site has.
        shared_label_maps: Likewise of each that others have too.
    """

    channels: Collection[str]
    label_maps: Collection[str] = ()
    shared_label_maps: Collection[str] = ()


def marked(patients: Mapping[str, Held], secret: bytes, *, label_maps: bool = True) -> tuple[Marks, ...]:
    """A cohort's patients by their marks, in an order that tells nothing of their names.

    Args:
        patients: Identifier to what its scans hold.
        secret: The site's.
        label_maps: Whether label maps give marks; an earlier version knew patients without them.
    """
    people = []
    for name, held in patients.items():
        marks = {_mark("patient", name, secret), *(_mark("scan", digest, secret) for digest in held.channels)}
        if label_maps:
            marks |= {_mark("label map", digest, secret) for digest in held.label_maps}
            marks |= {_mark("label map of", f"{digest}\0{name}", secret) for digest in held.shared_label_maps}
        people.append(frozenset(marks))
    return tuple(sorted(people, key=sorted))


def secret_mark(secret: bytes) -> str:
    """What tells this secret from another without telling it."""
    return _mark("ledger", "", secret)


def _mark(kind: str, text: str, secret: bytes) -> str:
    return hmac.new(secret, f"{kind}\0{text}".encode(), hashlib.sha256).hexdigest()


def cohort_name(people: Sequence[Marks]) -> str:
    """SHA-256 (hex) over everybody's marks: another name as soon as anybody, or any of a scan's files, is another."""
    return hashlib.sha256(json.dumps(sorted(sorted(marks) for marks in people)).encode()).hexdigest()


def persons(cohorts: Collection[Sequence[Marks]]) -> dict[str, int]:
    """Every mark's person, a number: marks that any patient of any cohort shares are one person's."""
    from scipy.cluster.hierarchy import DisjointSet  # waits: it loads half of scipy

    known = DisjointSet(sorted({mark for people in cohorts for marks in people for mark in marks}))
    for people in cohorts:
        for marks in people:
            first, *others = marks
            for other in others:
                known.merge(first, other)
    return {mark: number for number, together in enumerate(known.subsets()) for mark in together}


def person_of(marks: Marks, known: Mapping[str, int]) -> int:
    """The person whose marks these are."""
    return known[min(marks)]
