"""What an attacker knows before any generator is attacked, and how a set of volumes looks beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ...common.cohorts.disk_rows import let_go
from ...common.errors import DataError
from ..statistics import Floats
from .distances import distances
from .embedding import Embedding, coarse
from .interface import AuditedScans, Images, Labels, foreground
from .once import Arrays, Once, anew
from .shadows import Shadows

_AT_ONCE = 64
"""Volumes beside the scans at once: bounds memory, and keeps the matrix products large."""


@dataclass(frozen=True, eq=False)
class ShownSet:
    """A set of synthetic volumes beside the audited scans: measured once, shared by every attack on it.

    Attributes:
        distance: Scan by volume, shape (N, S), of :func:`~fedphantom.privacy.attacks.distances.distances`.
        points: The volumes embedded, shape (S, K).
    """

    distance: Floats
    points: Floats

    @classmethod
    def found(cls, arrays: Arrays) -> ShownSet:
        """From :meth:`arrays`."""
        return cls(arrays["distance"], arrays["points"])

    def arrays(self) -> Arrays:
        """For whoever keeps it."""
        return {"distance": self.distance, "points": self.points}

    def with_more(self, more: ShownSet) -> ShownSet:
        """Both sets as one."""
        return ShownSet(
            np.concatenate([self.distance, more.distance], axis=1), np.concatenate([self.points, more.points])
        )


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What an attacker knows whatever generator is attacked.

    Attributes:
        scans: Members and holdout; who is which, only the coins know.
        judged: Voxels judged, shape (N, X, Y, Z).
        embedding: Of volumes.
        points: The audited scans embedded, shape (N, K).
        reference_points: The reference patients' scans embedded, shape (R, K).
        reference_labels: Their label maps, shape (R, X, Y, Z).
        draws: Noise draws of an attack that questions a generator, as the reference's own errors ask for.
        most_draws: At most as many, whatever a generator's errors ask for.
        seed: Of the noise.
        shadows: What shadow generators showed, where some were trained.
    """

    scans: AuditedScans
    judged: NDArray[np.bool_]
    embedding: Embedding
    points: Floats
    reference_points: Floats
    reference_labels: Labels
    draws: int
    most_draws: int
    seed: int
    shadows: Shadows | None = None

    def shown(self, volumes: Iterable[Images]) -> ShownSet:
        """Measure a set that comes in batches of any size, each of shape (s, C, X, Y, Z). DataError: not finite."""
        found = _measured(self.scans, self.judged, volumes)
        return ShownSet(found["distance"], self.embedding.points(found["small"]))


def learn(
    scans: AuditedScans,
    reference: AuditedScans,
    painted: Iterable[Images],
    draws: int,
    seed: int,
    once: Once = anew,
) -> tuple[Knowledge, ShownSet]:
    """Look at the audited scans through what a reference has.

    Args:
        scans: Members and holdout.
        reference: Scans of patients who are neither.
        painted: The set that a generator trained on those patients would release, in batches.
        draws: At most.
        seed: See :class:`Knowledge`.
        once: Of the reference.

    Returns:
        What is known, and the painted set as it looks beside the audited scans.
    """
    judged = foreground(scans.images, scans.labels)
    released = once("measured as released", lambda: _measured(scans, judged, painted))
    theirs, small = coarse(reference.images), released["small"]
    embedding = Embedding.fit(theirs, foreground(reference.images, reference.labels), small)
    points = embedding.points(coarse(scans.images))
    known = Knowledge(scans, judged, embedding, points, embedding.points(theirs), reference.labels, draws, draws, seed)
    return known, ShownSet(released["distance"], embedding.points(small))


def _measured(scans: AuditedScans, judged: NDArray[np.bool_], volumes: Iterable[Images]) -> Arrays:
    """Distances (N, S) and the volumes on a coarse grid."""
    parts = [(distances(scans, judged, some), coarse(some)) for some in _gathered(volumes)]
    distance, small = np.concatenate([d for d, _ in parts], axis=1), np.concatenate([small for _, small in parts])
    if not np.isfinite(small).all():
        raise DataError(
            "a synthetic set with non-finite voxels",
            expected="finite intensities",
            remedy="Check the generator; a volume may not be left out of an audit.",
        )
    return {"distance": distance, "small": small}


def _gathered(batches: Iterable[Images]) -> Iterator[Images]:
    """The same volumes in larger batches, so that each is compared with every scan in few products."""
    singly = (batch[i : i + 1] for batch in batches for i in range(len(batch)))
    while some := list(islice(singly, _AT_ONCE)):
        together = np.concatenate(some)
        let_go(some[0])
        yield together
