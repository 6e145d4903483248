"""Counter-based randomness: every draw is named, so that nothing random has to be saved or restored.

A training resumed after a kill draws for step k what it would have drawn without the kill. Noise and
sampling under differential privacy never come from here: they need the operating system's CSPRNG.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from its named parts, e.g. ``derived_seed(study.seed, "site-a", "step", 12)``."""
    digest = hashlib.sha256("\x1f".join(f"{type(part).__name__}:{part}" for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def torch_generator(*parts: int | str) -> torch.Generator:
    """A CPU generator for these named parts; draws are moved to the device, so that devices agree."""
    import torch  # here, so that a coordinator, who only averages, does not take it into memory

    return torch.Generator().manual_seed(derived_seed(*parts))


def numpy_generator(*parts: int | str) -> np.random.Generator:
    """The same for NumPy."""
    return np.random.default_rng(derived_seed(*parts))
