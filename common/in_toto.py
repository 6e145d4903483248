"""What every signed statement shares: in-toto's frame, digests, times, and files that strangers wrote, read with care.

Source: in-toto attestation framework, statement v1 (https://in-toto.io/Statement/v1).
"""

from __future__ import annotations

import os
import stat
from datetime import MAXYEAR, datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from .errors import VerificationFailed
from .labels.chain import Sha256

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"


def _real(time: str) -> str:
    if not 1 < datetime.fromisoformat(time).year < MAXYEAR:  # a day before or after is a time, too
        raise ValueError("a time at the end of the calendar")
    return time


Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"), AfterValidator(_real)]
"""UTC, ISO 8601, seconds; earlier ones sort before later ones."""


def time_text(moment: datetime) -> str:
    """A moment in UTC as a :data:`Time`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Record(BaseModel):
    """A part of a signed statement: frozen, and without a key that nobody reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Digest(Record):
    """A file's hash, as in-toto writes it."""

    sha256: Sha256


def content_within(path: Path, largest: int) -> bytes | None:
    """The content of a plain file; None where there is none, or a link or more than ``largest`` bytes instead."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            content = file.read(largest + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
    except OSError:
        return None
    return content if content is not None and len(content) <= largest else None


def read_small(path: Path, what: str, largest: int) -> bytes:
    """The content of a plain file of at most ``largest`` bytes; links are not followed.

    Raises:
        VerificationFailed: it is larger, no plain file, or cannot be read.
    """
    content = content_within(path, largest)
    if content is None:
        raise VerificationFailed(
            f"no readable {what}, but something else under its name",
            expected=f"a plain file of at most {largest >> 10} KiB, as FedPhantom writes it",
            remedy="Get it anew from its signer, or take it away.",
        )
    return content
