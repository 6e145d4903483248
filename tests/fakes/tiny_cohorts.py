"""A study small enough to train in a second, and cohorts for it: a ball with a smaller ball inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedphantom.common.cohorts.bids_writer import BidsWriter
from fedphantom.common.cohorts.preparation import PreparedScans
from fedphantom.common.study import Study, parse_study

SHAPE = (16, 16, 16)
CHANNELS = ("T1", "FLAIR")


def tiny_text(
    *,
    channels: tuple[str, ...] = CHANNELS,
    preset: str = "tiny",
    rounds: int = 2,
    local_steps: int = 4,
    seed: int = 5,
    batch: int = 2,
    roles: str = "",
) -> str:
    return f"""
name = "tiny"
seed = {seed}
channels = {list(channels)}
labels = {{ background = 0, brain = 1, tumour = 4 }}
regions = {{ whole = [1, 4] }}
[grid]
shape = {list(SHAPE)}
spacing_mm = [4.0, 4.0, 4.0]
[public_labels]
source = "folder"
name = "balls"
licence = "CC0-1.0"
[network]
preset = "{preset}"
[training]
rounds = {rounds}
local_steps = {local_steps}
batch = {batch}
[roles]
{roles}
"""


def tiny_study(**options: object) -> Study:
    return parse_study(tiny_text(**options))  # type: ignore[arg-type]  # named as tiny_text's own


def draw_labels(random: np.random.Generator) -> NDArray[np.uint8]:
    """A brain of value 1 with a tumour of value 4 somewhere in it, (X, Y, Z)."""
    points = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"))
    centre = np.asarray(SHAPE).reshape(3, 1, 1, 1) / 2 - 0.5
    brain = np.linalg.norm((points - centre) / random.uniform(0.9, 1.1, (3, 1, 1, 1)), axis=0) < 6.5
    tumour = np.linalg.norm(points - centre - random.uniform(-2, 2, (3, 1, 1, 1)), axis=0) < 2.5
    return np.where(brain & tumour, 4, brain).astype(np.uint8)


def render(labels: NDArray[np.uint8], random: np.random.Generator, channels: int = 2) -> NDArray[np.float32]:
    """Intensities (C, X, Y, Z), exactly 0 outside the brain."""
    tissue = np.stack([100.0 * labels + 200 + 50 * c for c in range(channels)])
    noisy = tissue + random.normal(0, 15, tissue.shape)
    return np.where(labels > 0, np.maximum(noisy, 1), 0).astype(np.float32)


def write_tiny_cohort(
    root: Path, patients: int, seed: int = 0, prefix: str = "p", brighter: frozenset[str] = frozenset()
) -> Path:
    """A BIDS cohort; patients named in ``brighter`` have channels in reversed contrast."""
    study = tiny_study()
    with BidsWriter(root, study.volume_grid(), CHANNELS, study.labels, "balls", synthetic=False) as writer:
        for number in range(patients):
            random = np.random.default_rng([seed, number])
            labels, name = draw_labels(random), f"{prefix}{number:02d}"
            volume = render(labels, random)
            if name in brighter:
                volume = np.where(volume > 0, 1200 - volume, 0).astype(np.float32)
            writer.add(name, volume, labels, {})
    return root


def tiny_scans(patients: int, seed: int = 0, prefix: str = "p", channels: int = 2) -> PreparedScans:
    """Prepared scans in memory, without files."""
    volumes, classes = [], []
    for number in range(patients):
        random = np.random.default_rng([seed, number])
        labels = draw_labels(random)
        volume = render(labels, random, channels)
        volumes.append(np.where(volume > 0, volume / 400 - 1, -1).astype(np.float32).clip(-1, 1))
        classes.append(np.where(labels == 4, 2, labels).astype(np.uint8))
    names = tuple(f"{prefix}{number:02d}" for number in range(patients))
    return PreparedScans(np.stack(volumes), np.stack(classes), names, ("site-a",) * patients, np.zeros((patients, 0)))
