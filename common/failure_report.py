"""How a failed command ends: what it says on stderr and which exit code (DESIGN §5)."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from .errors import DataError, FedPhantomError, StorageError
from .interrupt import INTERRUPTED, said_of_interrupt
from .storage import storage_errors


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
        return FailureReport(said_of_interrupt(), INTERRUPTED)
    return FailureReport(f"unexpected failure: {type(error).__name__} (--verbose shows where)", 1)


def _ours(error: BaseException) -> FedPhantomError | None:
    """The error if it is ours, or what the system's amounts to wherever it was noticed."""
    if isinstance(error, FedPhantomError):
        return error
    if not isinstance(error, OSError):
        return None
    if error.errno in (errno.EACCES, errno.EPERM):
        return StorageError(
            "a file or folder may not be read or written",
            expected="permission for what the command was given",
            remedy="Mend the permissions, or choose another folder. --verbose shows which.",
        )
    if error.errno == errno.ENAMETOOLONG:
        return DataError(
            "a path that is too long", expected="a name of at most 255 bytes", remedy="Choose a shorter one."
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        try:
            with storage_errors():
                raise error
        except StorageError as disk:
            return disk
    return None
