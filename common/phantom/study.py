"""The study that procedural patients fit: their channels, their labels, the atlas that they are warps of."""

from __future__ import annotations

from ..study import GridTable, PublicLabelsTable, Study, TrainingTable
from ..volumes.grid import Grid
from .patients import PHANTOM_CHANNELS, PHANTOM_LABELS


def phantom_study(name: str, seed: int, grid: Grid, training: TrainingTable | None = None) -> Study:
    """A study of four channels on the labels of procedural patients, with public label maps from the atlas.

    Args:
        name: Of the study.
        seed: Of everything drawn.
        grid: Of every volume.
        training: Schedule; a study's own by default.
    """
    return Study(
        name=name,
        seed=seed,
        channels=PHANTOM_CHANNELS,
        labels=dict(PHANTOM_LABELS),
        grid=GridTable(shape=grid.shape, spacing_mm=grid.spacing_mm),
        public_labels=PublicLabelsTable(source="atlas"),
        training=training or TrainingTable(),
    )
