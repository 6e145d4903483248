"""How a failed command ends: what it says on stderr and which exit code (DESIGN §5)."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from .atomic import storage_errors
from .errors import FedPhantomError, StorageError

INTERRUPTED = 130
"""Exit code of Ctrl-C, as shells have it: 128 + SIGINT."""


@dataclass(frozen=True)
class FailureReport:
    """What a person is told.

    Attributes:
        text: One or more lines, without identifiers.
        exit_code: As DESIGN §5.
    """

    text: str
    exit_code: int


def report_failure(error: BaseException) -> FailureReport:
    """Explain a failure in words that cannot name a patient.

    Our own errors hold what was found, what was expected and what to do. Of any other only the type is told: its
    text may hold a path or an identifier.
    """
    ours = _ours(error)
    if ours is not None:
        text = f"error: {ours.found}\n  expected:   {ours.expected}\n  what to do: {ours.remedy}"
        return FailureReport(text, ours.exit_code)
    if isinstance(error, KeyboardInterrupt):
        text = "interrupted: what was finished is on disk; the same command goes on from there"
        return FailureReport(text, INTERRUPTED)
    return FailureReport(f"unexpected failure: {type(error).__name__} (--verbose shows where)", 1)


def _ours(error: BaseException) -> FedPhantomError | None:
    """The error if it is ours, or what a full disk amounts to wherever it was noticed."""
    if isinstance(error, FedPhantomError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        try:
            with storage_errors():
                raise error
        except StorageError as full:
            return full
    return None
