"""Whom figures were computed on, in words: persons only where a person was scanned (privacy/report/people)."""

from __future__ import annotations

from dataclasses import dataclass

from ...privacy.report.people import Kind, PeopleCounts
from .disclosure import NOTICE

_TEST: dict[Kind, str] = {
    "real": "real test patients",
    "procedural": "procedural test patients",
    "mixed": "test patients, some real and some procedural",
}
_TRAINING: dict[Kind, str] = {
    "real": "real training patients",
    "procedural": "procedural training patients",
    "mixed": "training patients, some real and some procedural",
}


@dataclass(frozen=True)
class Examined:
    """The patients behind an evaluation's figures; who is not known to be procedural counts as real.

    Attributes:
        test: Those who were segmented.
        training: Those of the sites' arms, with and without synthetic scans.
    """

    test: PeopleCounts
    training: PeopleCounts

    @property
    def notice(self) -> str:
        """Where the figures may go."""
        if self.test.kind == self.training.kind == "procedural":
            return "Computed on procedural patients: no person was scanned for them."
        return NOTICE

    def test_patients(self, number: int) -> str:
        """As in "12 real test patients"."""
        return f"{number} {_TEST[self.test.kind]}"

    def training_patients(self, number: int) -> str:
        """As in "12 real training patients"."""
        return f"{number} {_TRAINING[self.training.kind]}"

    def to_json(self) -> dict[str, int]:
        """How many of them nobody was scanned for, beside how many there are."""
        return {
            "test_patients": self.test.real + self.test.procedural,
            "procedural_test_patients": self.test.procedural,
            "procedural_training_patients": self.training.procedural,
        }


def examined(test: tuple[str, ...], training: tuple[str, ...], procedural: frozenset[str]) -> Examined:
    """Count patients named as in prepared scans; a name may stand for several scans."""

    def counts(names: tuple[str, ...]) -> PeopleCounts:
        each = set(names)
        return PeopleCounts(real=len(each - procedural), procedural=len(each & procedural))

    return Examined(counts(test), counts(training))
