"""Named float32 arrays and JSON facts in one safetensors file that is whole or refused.

safetensors itself notices a cut file but not a changed value, so the header also holds a hash of
everything. All facts lie in one header entry: the library keeps entries in no fixed order, and the
same content must give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from .errors import DataError
from .exchange import Parameters
from .gan.parameters import parameters_digest
from .journal import Fact

_ENTRY = "fedphantom"


def encode(arrays: Parameters, facts: Mapping[str, Fact]) -> bytes:
    """The file's bytes; the same arrays and facts give the same bytes."""
    body = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    contiguous = {name: np.ascontiguousarray(arrays[name], dtype=np.float32) for name in sorted(arrays)}
    entry = json.dumps({"facts": body, "sha256": _seal(body, contiguous)}, sort_keys=True)
    return save(contiguous, metadata={_ENTRY: entry})


def decode(data: bytes, what: str) -> tuple[dict[str, NDArray[np.float32]], dict[str, Fact]]:
    """Arrays and facts of :func:`encode`'s bytes.

    Args:
        data: The file's bytes.
        what: What the file is, for the message.

    Raises:
        DataError: cut short, changed, not float32, or not written by :func:`encode`.
    """
    try:
        arrays = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        entry = json.loads(header["__metadata__"][_ENTRY])
        body, seal = entry["facts"], entry["sha256"]
        whole = all(array.dtype == np.float32 for array in arrays.values()) and _seal(body, arrays) == seal
        facts = json.loads(body)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(what, "is cut short, changed, or another kind of file") from None
    if not whole or not isinstance(facts, dict):
        raise _damaged(what, "was changed after it was written")
    return arrays, cast(dict[str, Fact], facts)


def _seal(body: str, arrays: Parameters) -> str:
    return hashlib.sha256(f"{body}\n{parameters_digest(arrays)}".encode()).hexdigest()


def _damaged(what: str, how: str) -> DataError:
    return DataError(
        f"the {what} {how}",
        expected="a safetensors file as FedPhantom wrote it",
        remedy="Copy it again from where it was made, or make it again.",
    )
