"""Every failure a user is meant to see, with the exit code it ends in.

    FedPhantomError            1  unexpected failure
    ├── ConfigError            3  study or policy file
    ├── DataError              3  cohort, volume, label map
    │   └── GeometryError      3  affine, spacing, shape
    ├── TrainingError          1  NaN, collapse: names the step
    ├── PeerError              1  a site or the coordinator failed; quorum, deadline
    ├── StorageError           1  disk full, folder not writable
    │   └── OutputTaken        3  something else stands where a command was told to write
    ├── PolicyRefused          4  gate, approval, cohort changed since its reservation
    │   ├── BudgetSpent        4  privacy budget
    │   └── RoundOver          4  a round whose sum this site helped to open
    └── VerificationFailed     5  hash, chain, audit of another generator
        └── SignatureInvalid   5  signature, unknown or expired key

A message says what was found, what was expected and what to do. It never holds a patient
identifier, a path to patient data, or the text of another exception that might hold either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar


class FedPhantomError(Exception):
    """A failure explained to a person: ``found``, ``expected``, ``remedy``, each one phrase."""

    exit_code: ClassVar[int] = 1

    def __init__(self, found: str, *, expected: str, remedy: str) -> None:
        super().__init__(_sentence(found, expected, remedy))
        self.found = found
        self.expected = expected
        self.remedy = remedy


def _sentence(found: str, expected: str, remedy: str) -> str:
    return f"{found}; expected {expected}. {remedy}"


class ConfigError(FedPhantomError):
    """A study or policy file cannot be used."""

    exit_code = 3


class DataError(FedPhantomError):
    """A cohort, volume or label map cannot be used."""

    exit_code = 3


class GeometryError(DataError):
    """An affine, spacing or shape cannot be used."""


class TrainingError(FedPhantomError):
    """Training met NaN or collapse; the message names the step."""


class PeerError(FedPhantomError):
    """A site or the coordinator failed, or a quorum or deadline was missed."""


class StorageError(FedPhantomError):
    """The disk is full, read-only or forbidden."""


class OutputTaken(StorageError):
    """Something else stands where a command was told to write, and is never overwritten: the path given is wrong."""

    exit_code = 3


class PolicyRefused(FedPhantomError):
    """A gate, an approval or a changed cohort stands against it."""

    exit_code = 4


class BudgetSpent(PolicyRefused):
    """The privacy budget does not allow it."""


class RoundOver(PolicyRefused):
    """The site gave its part in opening that round's sum, and takes part in no other sum of it."""


class VerificationFailed(FedPhantomError):
    """A hash or chain is broken, or an audit is of another generator."""

    exit_code = 5


class SignatureInvalid(VerificationFailed):
    """A signature is wrong, or its key unknown or expired."""


@contextlib.contextmanager
def about(what: str) -> Iterator[None]:
    """Begin what was found with the option, site or file that it was found in, where there are several.

    >>> with about("--synthetic"):
    ...     raise DataError("no cohort", expected="one", remedy="Check the path.")
    Traceback (most recent call last):
    fedphantom.common.errors.DataError: --synthetic: no cohort; expected one. Check the path.
    """
    try:
        yield
    except FedPhantomError as error:
        # The same error: whoever asks where it arose (--verbose) is not told that it was here.
        error.found = f"{what}: {error.found}"
        error.args = (_sentence(error.found, error.expected, error.remedy),)
        raise
