"""Patients who are noise around their label maps, and generators that know some of them by heart."""

from __future__ import annotations

import numpy as np

from fedphantom.privacy.attacks.battery import Battery, Reference
from fedphantom.privacy.attacks.copies import Copies, confirmed_copies
from fedphantom.privacy.attacks.interface import (
    AttackScores,
    AuditedScans,
    Images,
    Labels,
    Networks,
    Reconstruct,
    paint,
)

GRID = (8, 8, 8)


def make_scans(patients: int, seed: int = 0, scans_each: int = 1, sites: tuple[str, ...] = ("A", "B")) -> AuditedScans:
    """Patients whose intensities are noise around their labels; every other one is a member."""
    draw = np.random.default_rng(seed)
    n = patients * scans_each
    labels = (draw.random((n, *GRID)) < 0.6).astype(np.uint8)
    images = (labels[:, None] + draw.normal(0, 1, (n, 2, *GRID))).astype(np.float32)
    owner = [i // scans_each for i in range(n)]
    return AuditedScans(
        images,
        labels,
        tuple(f"p{i:03d}" for i in owner),
        tuple(sites[(i // 2) % len(sites)] for i in owner),
        tuple(i % 2 == 0 for i in owner),
    )


class Memory:
    """A generator that learnt some scans by heart and paints the labels for all others."""

    def __init__(self, images: Images, labels: Labels) -> None:
        self.known = {label.tobytes(): image for label, image in zip(labels, images, strict=True)}

    def __call__(self, labels: Labels, noise_seed: int) -> Images:
        rng = np.random.default_rng(noise_seed)
        fresh = [np.stack([label, label]) + rng.normal(0, 0.1, (2, *GRID)) for label in labels]
        return np.stack([self.known.get(m.tobytes(), x) for m, x in zip(labels, fresh, strict=True)]).astype(np.float32)


IGNORANT = Memory(np.zeros((0, 2, *GRID), np.float32), np.zeros((0, *GRID), np.uint8))


def memory_of(scans: AuditedScans, member: bool) -> Memory:
    kept = scans.take(scans.of(scans.side(member)))
    return Memory(kept.images, kept.labels)


def released_labels(n: int = 12) -> Labels:
    return (np.random.default_rng(99).random((n, *GRID)) < 0.6).astype(np.uint8)


STRANGERS = Reference(make_scans(12, seed=50), Networks(IGNORANT))


def battery(scans: AuditedScans) -> Battery:
    return Battery.calibrate(scans, STRANGERS, released_labels(), draws=2, seed=5, as_released=lambda images: images)


def attack_on(tools: Battery, generator: Reconstruct, id: str, released: Images | None = None) -> AttackScores:
    return tools.scores(tools.target(Networks(generator), released), (id,))[id]


def released_by(tools: Battery, generator: Reconstruct) -> Images:
    return np.concatenate(list(paint(generator, tools.released_labels, tools.known.seed)))


def copies(tools: Battery, release: Images) -> Copies:
    return confirmed_copies(tools.known.scans, tools.known.judged, tools.shown(release).distance)
