"""Rows of memory-mapped arrays, chosen and joined without reading them: a cohort's volumes are larger than memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

_Number = TypeVar("_Number", np.float32, np.uint8)


@dataclass(frozen=True, eq=False)
class DiskRows(Generic[_Number]):
    """Some rows of one or more arrays, as one array (n, ...) that is read row by row.

    One row is a view, nothing read yet; a slice or a list of rows, or ``np.asarray`` of it all, is a copy in memory.

    Attributes:
        places: Array and row of every row here.
        row_shape: The shape of one.
        dtype: Of all.
    """

    places: tuple[tuple[NDArray[_Number], int], ...]
    row_shape: tuple[int, ...]
    dtype: np.dtype[_Number]

    @classmethod
    def of(cls, arrays: Sequence[NDArray[_Number] | DiskRows[_Number]]) -> DiskRows[_Number]:
        """All rows of these arrays (n, ...), one after the other; there is one array or more."""
        places = [
            place
            for array in arrays
            for place in (array.places if isinstance(array, DiskRows) else [(array, i) for i in range(len(array))])
        ]
        return cls(tuple(places), arrays[0].shape[1:], arrays[0].dtype)

    def only(self, rows: Sequence[int] | NDArray[np.intp]) -> DiskRows[_Number]:
        """These rows, in this order."""
        return DiskRows(tuple(self.places[int(i)] for i in rows), self.row_shape, self.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...)."""
        return (len(self.places), *self.row_shape)

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[NDArray[_Number]]:
        return (array[row] for array, row in self.places)

    @overload
    def __getitem__(self, rows: int | np.integer[Any]) -> NDArray[_Number]: ...
    @overload
    def __getitem__(self, rows: slice | Sequence[int] | NDArray[np.intp]) -> NDArray[_Number]: ...
    def __getitem__(self, rows: int | np.integer[Any] | slice | Sequence[int] | NDArray[np.intp]) -> NDArray[_Number]:
        if isinstance(rows, int | np.integer):
            array, row = self.places[int(rows)]
            one: NDArray[_Number] = array[row]
            return one
        return np.asarray(self.only(range(len(self))[rows] if isinstance(rows, slice) else rows))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("rows on disk cannot be an array without a copy in memory")
        out = np.empty(self.shape, self.dtype)
        for i, row in enumerate(self):
            out[i] = row
        return out if dtype is None else out.astype(dtype, copy=False)


Rows = NDArray[_Number] | DiskRows[_Number]
"""Rows (n, ...) in memory or on disk: what both can do, reading by row number, is all that most readers need."""


def let_go(array: NDArray[Any]) -> None:
    """Give back the memory that reading a memory-mapped array took; whoever reads it again, reads from the disk.

    What lies in memory stays there, and so does a private mapping, whose changes are nowhere else.
    """
    base: Any = array
    while base is not None and not (isinstance(base, np.memmap) and base.mode != "c"):
        base = getattr(base, "base", None)
    mapped = getattr(base, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def chosen(array: Rows[_Number], rows: Sequence[int] | NDArray[np.intp]) -> Rows[_Number]:
    """These rows: copied where the array lies in memory, else none read."""
    if isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        return array[np.asarray(rows, dtype=np.intp)]
    return DiskRows.of([array]).only(rows)
