"""What an attacker holds of a generator, and what an attack is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from ..evidence import OWN
from ..statistics import Floats
from .interface import AttackScores, Labels, Networks, by_patient
from .knowledge import Knowledge, ShownSet
from .once import Once, anew
from .own_map import OwnMapErrors


@dataclass(frozen=True, eq=False)
class OwnSet:
    """A set painted from the audited scans' own label maps, one volume a scan, in their order.

    Attributes:
        shown: As it would be released.
        errors: As it was painted, each volume beside its own scan: the first draw of whoever asks for several.
    """

    shown: ShownSet
    errors: OwnMapErrors


@dataclass(frozen=True, eq=False)
class Target:
    """What an attacker holds of one generator. A set is painted and measured when the first attack asks for it.

    Attributes:
        networks: The generator, and where it is at hand its discriminator.
        released_labels: The label maps that are released beside the set, shape (S, X, Y, Z), in its order.
        show_released: Measures the set as it is released.
        show_own: Paints and measures the set from the audited scans' own label maps.
        once: What is found of it, now or in an earlier call.
    """

    networks: Networks
    released_labels: Labels
    show_released: Callable[[], ShownSet]
    show_own: Callable[[], OwnSet]
    once: Once = anew

    @cached_property
    def released(self) -> ShownSet:
        """The set as released: what threat model S holds."""
        return self.show_released()

    @cached_property
    def own(self) -> OwnSet:
        """The set from own label maps: it takes the generator, and each patient's label map."""
        return self.show_own()


Attack = Callable[[Target], AttackScores | None]
"""A calibrated attack; None where the target lacks what it asks for."""
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
        return by_patient(id + OWN, known.scans, measure(target.own.shown, reference.own.shown))

    return {id: released, id + OWN: own}
