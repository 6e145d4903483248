"""Control networks kept until their audit ends, so that one that was broken off after hours goes on.

They saw private patients without differential privacy: they lie in the audit's folder at the site, for its owner alone,
and the audit removes them with its last line. Their seeds follow from the study, so that the audit that goes on finds
them, or the next one where something else has changed meanwhile.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...common.atomic import for_owner_alone, write_atomic
from ...common.errors import DataError
from ...common.randomness import derived_seed
from ...common.tensor_file import decode, encode

CONTROLS = "controls"
"""Their folder, in the audit's own."""
WORTH_KEEPING_S = 5.0
"""Seconds of a training below which it is sooner repeated than read."""

T = TypeVar("T")


@dataclass(frozen=True)
class KeptNetworks:
    """Where they lie, and what all of them depend on.

    Attributes:
        folder: Of the audit's own.
        key: Names generator under audit, coins, every scan's content, and the program's code.
    """

    folder: Path
    key: str

    def of(
        self,
        what: tuple[str, NDArray[np.intp], int, int],
        fresh: Callable[[], T],
        train: Callable[[], T],
        parts: Callable[[T], Mapping[str, nn.Module]],
    ) -> T:
        """What an earlier call kept, or what is trained now, and kept.

        Args:
            what: Kind of training, rows of the scans that it sees, steps, and seed.
            fresh: Networks of the right shapes, where they are to live.
            train: Trains them.
            parts: The networks in either by name.

        Raises:
            StorageError: the disk is full, read-only or forbidden.
        """
        kind, rows, steps, seed = what
        name = derived_seed(self.key, kind, rows.astype(np.int64).tobytes().hex(), steps, seed)
        file = self.folder / f"{name:016x}.safetensors"
        found = _read(file, fresh, parts)
        if found is not None:
            return found
        begun = time.monotonic()
        made = train()
        if time.monotonic() - begun >= WORTH_KEEPING_S:
            tensors = {
                f"{part}.{n}": t for part, network in parts(made).items() for n, t in network.state_dict().items()
            }
            arrays = {name: tensor.detach().float().cpu().contiguous().numpy() for name, tensor in tensors.items()}
            self.folder.mkdir(parents=True, exist_ok=True)
            for_owner_alone(self.folder)
            write_atomic(file, encode(arrays, {}), mode=0o600)
        return made

    def forget(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _read(file: Path, fresh: Callable[[], T], parts: Callable[[T], Mapping[str, nn.Module]]) -> T | None:
    try:
        arrays, _ = decode(file.read_bytes(), "control network")
        made = fresh()
        for part, network in parts(made).items():
            own = {n.removeprefix(f"{part}."): a for n, a in arrays.items() if n.startswith(f"{part}.")}
            network.load_state_dict({name: torch.from_numpy(array) for name, array in own.items()})
    except (OSError, DataError, RuntimeError):
        return None  # none there, or a damaged one: it is trained again
    return made
