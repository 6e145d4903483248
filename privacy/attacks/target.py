"""What an attacker holds: a generator as a function, what it paints, and the audited scans beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ..evidence import OWN
from ..statistics import Floats
from .distances import distances
from .interface import AttackScores, AuditedScans, Images, Reconstruct, by_patient

_AT_ONCE = 64
"""Volumes beside the scans at once: bounds memory, and keeps the matrix products large."""


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What an attacker knows before any generator is attacked.

    Attributes:
        scans: Members and holdout; who is which, only the coins know.
        judged: Voxels judged, shape (N, X, Y, Z).
        draws: Noise draws of an attack that questions a generator.
        seed: Of the noise.
    """

    scans: AuditedScans
    judged: NDArray[np.bool_]
    draws: int
    seed: int


@dataclass(frozen=True, eq=False)
class ShownSet:
    """A set of synthetic volumes beside the audited scans: measured once, shared by every attack on it.

    Attributes:
        distance: Scan by volume, shape (N, S), of :func:`~fedphantom.privacy.attacks.distances.distances`.
    """

    distance: Floats

    def with_more(self, more: ShownSet) -> ShownSet:
        """Both sets as one."""
        return ShownSet(np.concatenate([self.distance, more.distance], axis=1))


def shown(known: Knowledge, volumes: Iterable[Images]) -> ShownSet:
    """Measure a set that comes in batches of any size, each of shape (s, C, X, Y, Z)."""
    return ShownSet(np.concatenate([distances(known.scans, known.judged, some) for some in _gathered(volumes)], axis=1))


def _gathered(batches: Iterable[Images]) -> Iterator[Images]:
    """The same volumes in larger batches, so that each is compared with every scan in few products."""
    singly = (batch[i : i + 1] for batch in batches for i in range(len(batch)))
    while some := list(islice(singly, _AT_ONCE)):
        yield np.concatenate(some)


@dataclass(frozen=True, eq=False)
class Target:
    """What an attacker holds of one generator. A set is painted and measured when the first attack asks for it.

    Attributes:
        generator: Answers any label map.
        show_released: Measures the set as it is released.
        show_own: Measures the set painted from the audited scans' own label maps, one volume a scan, in their order.
    """

    generator: Reconstruct
    show_released: Callable[[], ShownSet]
    show_own: Callable[[], ShownSet]

    @cached_property
    def released(self) -> ShownSet:
        """The set as released: what threat model S holds."""
        return self.show_released()

    @cached_property
    def own(self) -> ShownSet:
        """The set from own label maps: it takes the generator, and each patient's label map."""
        return self.show_own()


Attack = Callable[[Target], AttackScores]
"""A calibrated attack."""
Calibrate = Callable[[Knowledge, Target], Mapping[str, Attack]]
"""(what is known, a generator that never saw an audited patient) → attacks by identifier."""


def on_both_sets(
    id: str, known: Knowledge, reference: Target, measure: Callable[[ShownSet, ShownSet], Floats]
) -> dict[str, Attack]:
    """An attack on a set of volumes: on the one released, and on the one from own label maps.

    Args:
        id: As PRIVACY §3.2 numbers it.
        known: What is known.
        reference: Its sets calibrate.
        measure: (set of the target, the like set of the reference) → score of each scan, shape (N,).
    """

    def released(target: Target) -> AttackScores:
        return by_patient(id, known.scans, measure(target.released, reference.released))

    def own(target: Target) -> AttackScores:
        return by_patient(id + OWN, known.scans, measure(target.own, reference.own))

    return {id: released, id + OWN: own}
