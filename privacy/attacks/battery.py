"""Every attack, calibrated once: target, negative, positive and planted controls go through this same code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from ..evidence import ATTACKS, OF_COINS
from . import (
    attribute,
    coin_guesses,
    domias,
    gan_leaks,
    logan,
    monte_carlo,
    reconstruction,
    round_trajectory,
    shadow_models,
    white_box,
)
from .distances import most_isolated
from .interface import (
    AsReleased,
    AttackScores,
    AuditedScans,
    Images,
    Labels,
    Networks,
    Reconstruct,
    of_patients,
    paint,
)
from .knowledge import Knowledge, ShownSet, learn
from .once import Arrays, Once, anew, under
from .own_map import OwnMapErrors
from .shadows import Shadows
from .target import Attack, Calibrate, OwnSet, Target

CALIBRATE: tuple[Calibrate, ...] = (
    reconstruction.calibrate,
    shadow_models.calibrate,
    gan_leaks.calibrate,
    white_box.calibrate,
    monte_carlo.calibrate,
    domias.calibrate,
    logan.calibrate,
    round_trajectory.calibrate,
    attribute.calibrate,
)
"""One a file."""

_READ_AT_ONCE = 8
"""Volumes of a set at hand taken at once."""

REFERENCE = "reference"
"""Under which what is found of the reference generator is kept."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What the attacks are calibrated with.

    Attributes:
        scans: Of patients who are neither members nor holdout, or of others who stand in.
        networks: Trained on those alone, as the ones under audit were.
    """

    scans: AuditedScans
    networks: Networks


@dataclass(frozen=True, eq=False)
class Battery:
    """The audited scans, and every attack on them.

    Attributes:
        known: What an attacker knows before any generator is attacked.
        released_labels: Label maps of the released set, shape (S, X, Y, Z).
        as_released: What a reader of the released files gets for volumes that a generator painted.
        attacks: By identifier, in the order in which they are told.
        once: What is found of any target, now or in an earlier call.
    """

    known: Knowledge
    released_labels: Labels
    as_released: AsReleased
    attacks: Mapping[str, Attack]
    once: Once = anew

    @classmethod
    def calibrate(
        cls,
        scans: AuditedScans,
        reference: Reference,
        released_labels: Labels,
        draws: int,
        seed: int,
        as_released: AsReleased,
        shadows: Shadows | None = None,
        once: Once = anew,
    ) -> Battery:
        """Measure with a generator that never saw an audited patient how hard each scan is."""
        painted = (as_released(some) for some in paint(reference.networks.generator, released_labels, seed))
        known, released = learn(scans, reference.scans, painted, draws, seed, under(REFERENCE, once))
        known = replace(known, shadows=shadows)
        uncalibrated = cls(known, released_labels, as_released, {}, once)
        target = replace(uncalibrated.target(reference.networks, name=REFERENCE), show_released=lambda: released)
        known = replace(known, draws=target.own.errors.settled(draws, reference.networks.generator, seed))
        attacks = {id: attack for calibrate in CALIBRATE for id, attack in calibrate(known, target).items()}
        return replace(uncalibrated, known=known, attacks=attacks)

    def target(
        self, networks: Networks, released: Images | None = None, labels: Labels | None = None, name: str = "generator"
    ) -> Target:
        """What an attacker holds of a generator.

        Args:
            networks: Under audit, or a control's.
            released: The set as released, shape (S, C, X, Y, Z); None: as this generator would paint it from the
                released label maps.
            labels: The label maps released beside it; None: the battery's.
            name: Under which what is found of it is kept: another for every generator and set.
        """
        known, generator, once = self.known, networks.generator, under(name, self.once)

        def as_painted() -> ShownSet:
            painted = map(self.as_released, paint(generator, self.released_labels, known.seed))
            return ShownSet.found(once("measured as released", lambda: known.shown(painted).arrays()))

        return Target(
            networks=networks,
            released_labels=self.released_labels if labels is None else labels,
            show_released=as_painted if released is None else lambda: self.shown(released),
            show_own=lambda: self._own(generator, once),
            once=once,
        )

    def shown(self, volumes: Images) -> ShownSet:
        """A set at hand, shape (S, C, X, Y, Z), beside the audited scans."""
        return self.known.shown(volumes[i : i + _READ_AT_ONCE] for i in range(0, len(volumes), _READ_AT_ONCE))

    def scores(self, target: Target, only: Collection[str] | None = None) -> dict[str, AttackScores]:
        """Every attack on a target by its identifier, or these alone; without those that ask for what it lacks."""
        wanted = set((*self.attacks, *OF_COINS) if only is None else only)
        guessed = {ATTACKS[id]: id for id in OF_COINS if id in wanted}
        tried = {id: self._scored(id, target) for id in self.attacks if id in wanted or ATTACKS[id] in guessed}
        found = {id: scores for id, scores in tried.items() if scores is not None}
        for model, id in guessed.items():
            found[id] = coin_guesses.combined(id, [s for s in found.values() if s.threat_model == model])
        return {id: scores for id, scores in found.items() if id in wanted}

    def outliers(self) -> tuple[str, ...]:
        """The most isolated quartile of audited patients."""
        return most_isolated(self.known.scans, self.known.judged)

    def _scored(self, id: str, target: Target) -> AttackScores | None:
        def found() -> Arrays:
            scores = self.attacks[id](target)
            return {} if scores is None else {"score": scores.score}

        arrays = target.once(id, found)
        return of_patients(id, self.known.scans, arrays["score"]) if arrays else None

    def _own(self, generator: Reconstruct, once: Once) -> OwnSet:
        known = self.known
        errors = OwnMapErrors(known.scans, known.judged, once)

        def painted() -> Arrays:
            draw = errors.seen(paint(generator, known.scans.labels, known.seed))
            shown = known.shown(map(self.as_released, draw))
            return {**shown.arrays(), "errors": errors.each[0]}

        found = once("measured from own label maps", painted)
        errors.each[:] = [found["errors"]]
        return OwnSet(ShownSet.found(found), errors)
