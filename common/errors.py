"""Every failure a user is meant to see, with the exit code it ends in.

    FedPhantomError            1  unexpected failure
    ├── ConfigError            3  study or policy file
    ├── DataError              3  cohort, volume, label map
    │   └── GeometryError      3  affine, spacing, shape
    ├── TrainingError          1  NaN, collapse: names the step
    ├── PeerError              1  a site or the coordinator failed; quorum, deadline
    ├── StorageError           1  disk full, folder not writable
    ├── PolicyRefused          4  gate, approval, cohort changed since its reservation
    │   └── BudgetSpent        4  privacy budget
    └── VerificationFailed     5  hash, chain, audit of another generator
        └── SignatureInvalid   5  signature, unknown or expired key

A message says what was found, what was expected and what to do. It never holds a patient
identifier, a path to patient data, or the text of another exception that might hold either.
"""

from __future__ import annotations

from typing import ClassVar


class FedPhantomError(Exception):
    """A failure explained to a person: ``found``, ``expected``, ``remedy``, each one phrase."""

    exit_code: ClassVar[int] = 1

    def __init__(self, found: str, *, expected: str, remedy: str) -> None:
        super().__init__(f"{found}; expected {expected}. {remedy}")
        self.found = found
        self.expected = expected
        self.remedy = remedy


class ConfigError(FedPhantomError):
    exit_code = 3


class DataError(FedPhantomError):
    exit_code = 3


class GeometryError(DataError):
    pass


class TrainingError(FedPhantomError):
    pass


class PeerError(FedPhantomError):
    pass


class StorageError(FedPhantomError):
    pass


class PolicyRefused(FedPhantomError):
    exit_code = 4


class BudgetSpent(PolicyRefused):
    pass


class VerificationFailed(FedPhantomError):
    exit_code = 5


class SignatureInvalid(VerificationFailed):
    pass
