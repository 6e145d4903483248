"""Transport: the precision in which a generator's parameters travel between coordinator and site."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .exchange import Parameters

Transport = Literal["float32", "float16"]
"""``float16`` halves what travels, both ways. Each side rounds what it sends and reckons on in full precision; both
engines round alike, so that a simulation shows what the rounding costs."""

LARGEST = 65504.0
"""Largest number of float16. No layer of these networks needs a parameter anywhere near it."""


def value_bytes(transport: Transport) -> int:
    """Bytes of one value on its way."""
    return np.dtype(transport).itemsize


def as_received(parameters: Parameters, transport: Transport) -> Parameters:
    """What the other side has of parameters that are sent: float32 arrays of values that travel unchanged.

    Args:
        parameters: Float32, none beyond :data:`LARGEST`; larger values become infinite.
        transport: On the way.
    """
    if transport == "float32":
        return parameters
    with np.errstate(over="ignore"):  # infinity is seen, and refused, by whoever checks them
        return {name: np.asarray(a, np.float16).astype(np.float32) for name, a in parameters.items()}


def too_large(array: NDArray[np.float32]) -> bool:
    """Whether a value lies beyond :data:`LARGEST`; without a second array in memory."""
    return array.size > 0 and bool(max(array.max(), -array.min()) > LARGEST)
