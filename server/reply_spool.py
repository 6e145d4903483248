"""A round's replies on the disk, so that memory holds one of them, however many sites there are.

Their mean is summed in site-name order, and they arrive in any: folding each in as it comes would make the last bits a
matter of chance. A sum that is exact in any order would need several times the memory of what it sums, and neither a
trimmed mean nor an answer given twice can be folded at all. What lies on the disk can be read in any order, a block of
every reply at a time.

One file without a name holds them: it is gone with the process, however that ends, and nobody else can open it.
"""

from __future__ import annotations

import errno
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..common.exchange import Parameters
from ..common.gan.parameters import ParameterSpec
from ..common.storage import making_errors, storage_errors

BLOCK_VALUES = 1 << 21
"""Values in memory at once when replies are read again, of all replies together; at least one of each."""


class ReplySpool:
    """Generators of one specification, each in a slot of its own.

    Args:
        folder: On a disk with room for every site's reply.
        spec: Names and shapes of each generator; callers check what they add.

    Raises:
        StorageError: the disk is full, read-only or forbidden; here and from every method.
    """

    def __init__(self, folder: Path, spec: ParameterSpec) -> None:
        self.spec = spec
        self._begins: dict[str, int] = {}
        size = 0
        for name, shape in spec.shapes:
            self._begins[name] = size
            size += 4 * math.prod(shape)
        self._size, self._slots = size, 0
        with making_errors():
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, generator: Parameters) -> int:
        """Write a generator; returns its slot."""
        slot = self._slots
        with storage_errors():
            for name, begin in self._begins.items():
                data = np.ascontiguousarray(generator[name], dtype=np.float32).data.cast("B")
                at, written = slot * self._size + begin, 0
                while written < len(data):
                    written += os.pwrite(self._file.fileno(), data[written:], at + written)
        self._slots += 1
        return slot

    def blocks(self, name: str, slots: Sequence[int]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """A parameter of several generators, block by block.

        Yields:
            Which of the parameter's values, in C order; and those values, shape (slots, values).
        """
        values = math.prod(dict(self.spec.shapes)[name])
        step = max(1, BLOCK_VALUES // max(1, len(slots)))
        for begin in range(0, values, step):
            end = min(begin + step, values)
            rows = np.empty((len(slots), end - begin), np.float32)
            for row, slot in zip(rows, slots, strict=True):
                row[:] = self._values(slot * self._size + self._begins[name] + 4 * begin, end - begin)
            yield slice(begin, end), rows

    def generator(self, slot: int) -> dict[str, NDArray[np.float32]]:
        """One generator, whole."""
        begin = slot * self._size
        return {
            name: self._values(begin + self._begins[name], math.prod(shape)).reshape(shape).copy()
            for name, shape in self.spec.shapes
        }

    def _values(self, at: int, count: int) -> NDArray[np.float32]:
        with storage_errors():
            data = os.pread(self._file.fileno(), 4 * count, at)
            if len(data) < 4 * count:
                raise OSError(errno.EIO, "short read")
        return np.frombuffer(data, np.float32)
