"""How alike label maps are: among themselves, and to a site's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..counted import counted

MOST_MAPS = 60
"""Of larger sets so many are compared, evenly chosen: 1770 pairs."""
_MOST_VOXELS = 100_000


@dataclass(frozen=True)
class Spread:
    """Of Dice over pairs: least, quartiles, most. Pairs in which neither map has the label do not count.

    Source of Dice: Dice 1945 (doi:10.2307/1932409).
    """

    least: float
    quartile: float
    median: float
    third_quartile: float
    most: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Spread | None:
        """None without a pair that counts."""
        known = values[~np.isnan(values)]
        return cls(*(round(float(q), 4) for q in np.quantile(known, (0, 0.25, 0.5, 0.75, 1)))) if known.size else None

    def words(self) -> str:
        """For a person."""
        return (
            f"median {self.median:.2f}, half of them {self.quartile:.2f} to {self.third_quartile:.2f}, "
            f"all {self.least:.2f} to {self.most:.2f}"
        )


@dataclass(frozen=True)
class Diversity:
    """Pairwise Dice of a set of label maps.

    Attributes:
        compared: How many maps.
        pairs: Of them.
        dice: Label name to the spread of Dice over all pairs.
    """

    compared: int
    pairs: int
    dice: Mapping[str, Spread]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def to_text(self) -> str:
        """A few lines for a person."""
        if not self.dice:
            return "diversity: too few label maps to compare"
        width = max(map(len, self.dice))
        lines = [f"diversity: Dice of {counted(self.pairs, 'pair')} among {self.compared} maps (1: all alike)"]
        return "\n".join([*lines, *(f"  {name:<{width}}  {spread.words()}" for name, spread in self.dice.items())])


class ThinnedMaps:
    """Label maps thinned to every n-th voxel, as many as are added, so that thousands fit into memory."""

    def __init__(self) -> None:
        self._rows: list[NDArray[np.uint8]] = []

    def add(self, labels: NDArray[np.uint8]) -> None:
        """Add a map, shape (X, Y, Z), of one grid for all."""
        step = max(1, math.ceil((labels.size / _MOST_VOXELS) ** (1 / 3)))
        self._rows.append(labels[::step, ::step, ::step].ravel().copy())

    def __len__(self) -> int:
        return len(self._rows)

    def all(self) -> NDArray[np.uint8]:
        """All of them, shape (maps, voxels)."""
        return np.stack(self._rows)

    def evenly(self, most: int) -> NDArray[np.uint8]:
        """At most so many of them, evenly chosen, shape (maps, voxels)."""
        chosen = np.unique(np.linspace(0, len(self._rows) - 1, min(most, len(self._rows))).round().astype(int))
        return np.stack([self._rows[i] for i in chosen])


def dice_between(one: NDArray[np.uint8], other: NDArray[np.uint8], value: int) -> NDArray[np.float64]:
    """Dice of one label between any map of one set and any of the other.

    Args:
        one: Shape (n, voxels).
        other: Shape (m, voxels).
        value: The label.

    Returns:
        Shape (n, m); NaN where neither map has the label.
    """
    a, b = (one == value).astype(np.float32), (other == value).astype(np.float32)
    sizes = a.sum(axis=1, dtype=np.float64)[:, None] + b.sum(axis=1, dtype=np.float64)[None]
    with np.errstate(invalid="ignore"):
        return np.asarray(2.0 * (a @ b.T) / np.where(sizes == 0, np.nan, sizes), dtype=np.float64)


def diversity(maps: ThinnedMaps, labels: Mapping[str, int]) -> Diversity:
    """Pairwise Dice of at most :data:`MOST_MAPS` maps.

    Args:
        maps: Thinned.
        labels: Label name to value; background is left out.
    """
    if len(maps) < 2:
        return Diversity(len(maps), 0, {})
    rows = maps.evenly(MOST_MAPS)
    pairs = np.triu_indices(len(rows), k=1)
    spreads = {name: Spread.of(dice_between(rows, rows, value)[pairs]) for name, value in foreground(labels)}
    return Diversity(len(rows), len(pairs[0]), {name: spread for name, spread in spreads.items() if spread})


def foreground(labels: Mapping[str, int]) -> list[tuple[str, int]]:
    """Labels by value, without background."""
    return sorted(((name, value) for name, value in labels.items() if value), key=lambda item: item[1])
