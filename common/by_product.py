"""What is made to be looked at, curves and pictures: its failure stops nothing, and is not passed over in silence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from .journal import Journal

FAILED = "by-product-failed"
"""Journal event: which round's, what, and the kind of failure."""


@contextlib.contextmanager
def by_product(journal: Path, what: str, round_: int) -> Iterator[None]:
    """Let the block fail; the journal then says that ``what`` of this round was not made, and by what kind of error.

    Raises:
        StorageError: the journal cannot be written either.
    """
    try:
        yield
    except Exception as error:  # whatever it is: nothing that matters hangs on it
        Journal(journal).append(FAILED, round=round_, what=what, kind=type(error).__name__)


def failures(journals: Iterable[Path]) -> int:
    """How many by-products these journals say were not made."""
    return sum(Journal(path).count(FAILED) for path in journals)
