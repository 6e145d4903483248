"""Named float32 arrays and JSON facts in one safetensors file that is whole or refused.

A header is judged by itself, a few kilobytes read and nothing else, before any array is: what it claims must be
exactly what the file holds. safetensors notices a cut file but not a changed value, so the header also holds a hash
of everything. All facts lie in one header entry: the library keeps entries in no fixed order, and the same content
must give the same bytes.

Source: safetensors format, github.com/huggingface/safetensors.
"""

from __future__ import annotations

import hashlib
import json
import math
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from .errors import DataError
from .exchange import Parameters
from .gan.parameters import parameters_digest
from .journal import Fact

_ENTRY = "fedphantom"
_LENGTH_BYTES = 8
_MOST_HEADER_BYTES = 1 << 22
"""Hundreds of times a generator's. safetensors allows 100 MB; parsed, a header can take 23 times its size."""


@dataclass(frozen=True)
class TensorHeader:
    """What a file claims to hold, and does in size. Whether its values are those sealed, only :func:`decode` tells.

    Attributes:
        shapes: Of every array, by name.
        facts: As :func:`encode` took them.
    """

    shapes: Mapping[str, tuple[int, ...]]
    facts: Mapping[str, Fact]


def encode(arrays: Parameters, facts: Mapping[str, Fact]) -> bytes:
    """The file's bytes; the same arrays and facts give the same bytes."""
    body = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    contiguous = {name: np.ascontiguousarray(arrays[name], dtype=np.float32) for name in sorted(arrays)}
    entry = json.dumps({"facts": body, "sha256": _seal(body, contiguous)}, sort_keys=True)
    return save(contiguous, metadata={_ENTRY: entry})


def read_header(path: Path, what: str, most_header_bytes: int = _MOST_HEADER_BYTES) -> TensorHeader:
    """Read a file's header alone.

    Args:
        path: The file.
        what: What it is, for the message.
        most_header_bytes: A longer header is refused unread.

    Raises:
        DataError: cut short, larger or smaller than its header says, not float32, or not written by :func:`encode`.
        OSError: there is no such file, or it may not be read.
    """
    with path.open("rb") as file:
        status = path.stat()
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if not 2 <= length <= size - _LENGTH_BYTES:
            raise _damaged(what, "is cut short, changed, or another kind of file")
        if length > most_header_bytes:
            raise _damaged(what, "has a header longer than any")
        return _judged(file.read(length), size, what)[0]


def decode(data: bytes, what: str) -> tuple[dict[str, NDArray[np.float32]], dict[str, Fact]]:
    """Arrays and facts of :func:`encode`'s bytes.

    Args:
        data: The file's bytes.
        what: What the file is, for the message.

    Raises:
        DataError: cut short, changed, not float32, or not written by :func:`encode`.
    """
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if length > _MOST_HEADER_BYTES:
        raise _damaged(what, "has a header longer than any")
    header, entry = _judged(data[_LENGTH_BYTES : _LENGTH_BYTES + length], len(data), what)
    try:
        arrays = load(data)
        whole = _seal(entry["facts"], arrays) == entry["sha256"]
    except (SafetensorError, ValueError):
        raise _damaged(what, "is cut short, changed, or another kind of file") from None
    if not whole:
        raise _damaged(what, "was changed after it was written")
    return arrays, dict(header.facts)


def _judged(raw: bytes, size: int, what: str) -> tuple[TensorHeader, Mapping[str, str]]:
    """The header of a file of ``size`` bytes, and the entry with facts and hash as they stand there."""
    try:
        header = _parse(raw)
        entry = _parse(header["__metadata__"][_ENTRY])
        facts = _parse(entry["facts"])
        extents = {name: _extent(value) for name, value in header.items() if name != "__metadata__"}
        alone = header["__metadata__"].keys() == {_ENTRY} and entry.keys() == {"facts", "sha256"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _damaged(what, "is cut short, changed, or another kind of file") from None
    if not alone or not isinstance(facts, dict):
        raise _damaged(what, "was written by another program")
    end = 0
    for begin, stop in sorted((begin, stop) for _, begin, stop in extents.values()):
        if begin != end:
            raise _damaged(what, "has arrays that overlap or leave gaps")
        end = stop
    if end != size - _LENGTH_BYTES - len(raw):
        raise _damaged(what, "is cut short, or holds more or less than its header says")
    shapes = {name: shape for name, (shape, _, _) in extents.items()}
    return TensorHeader(shapes, cast(dict[str, Fact], facts)), entry


def _extent(value: Any) -> tuple[tuple[int, ...], int, int]:
    """An array's shape, and where its bytes begin and stop; a ValueError unless they fit each other."""
    shape, (begin, stop) = value["shape"], value["data_offsets"]
    if value.keys() != {"dtype", "shape", "data_offsets"} or value["dtype"] != "F32" or not isinstance(shape, list):
        raise ValueError
    if any(type(n) is not int or n < 0 for n in (*shape, begin, stop)) or stop - begin != 4 * math.prod(shape):
        raise ValueError
    return tuple(shape), begin, stop


def _parse(text: str | bytes) -> Any:
    return json.loads(text, object_pairs_hook=_without_doubles)


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A name given twice would show one reader this and another that."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _seal(body: str, arrays: Parameters) -> str:
    return hashlib.sha256(f"{body}\n{parameters_digest(arrays)}".encode()).hexdigest()


def _damaged(what: str, how: str) -> DataError:
    return DataError(
        f"the {what} {how}",
        expected="a safetensors file as FedPhantom wrote it",
        remedy="Copy it again from where it was made, or make it again.",
    )
