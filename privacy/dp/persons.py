"""Who is the same person: patients known by keyed hashes of what they are called and of what their scans hold.

A name alone would not do: in some layouts it is a file's name, and a renamed file would be a new person with a new
budget. So each patient is known by several marks, and whoever shares one with another is the same person. Marks are
HMACs with the site's secret: nobody else can tell whose they are, or try out names.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Mapping, Sequence

Marks = frozenset[str]
"""One patient: HMAC-SHA256 (hex) of the identifier and of each scan's voxels."""


def marked(patients: Mapping[str, Collection[str]], secret: bytes) -> tuple[Marks, ...]:
    """A cohort's patients by their marks, in an order that tells nothing of their names.

    Args:
        patients: Identifier to the digests of what its scans hold, whatever their files are called.
        secret: The site's.
    """
    people = (
        frozenset({_mark("patient", name, secret), *(_mark("scan", digest, secret) for digest in scans)})
        for name, scans in patients.items()
    )
    return tuple(sorted(people, key=sorted))


def secret_mark(secret: bytes) -> str:
    """What tells this secret from another without telling it."""
    return _mark("ledger", "", secret)


def _mark(kind: str, text: str, secret: bytes) -> str:
    return hmac.new(secret, f"{kind}\0{text}".encode(), hashlib.sha256).hexdigest()


def cohort_name(people: Sequence[Marks]) -> str:
    """SHA-256 (hex) over everybody's marks: another name as soon as anybody, or any scan, is another."""
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
