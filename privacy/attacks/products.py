"""Matrix products on one thread, for workers of which each core has one: BLAS would ask for every core again.

By torch, whose threads ``common.parallel`` sets to one in a worker. Measured on two cores, a search for copied label
maps took half as much processor time again with BLAS's own threads.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Real = TypeVar("Real", np.float32, np.float64)


def product(left: NDArray[Real], right: NDArray[Real]) -> NDArray[Real]:
    """Of (N, V) and (V, S), or a column (V,): shape (N, S), or (N,)."""
    return np.asarray((torch.from_numpy(left) @ torch.from_numpy(right)).numpy())
