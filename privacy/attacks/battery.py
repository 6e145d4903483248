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
from .interface import AsReleased, AttackScores, AuditedScans, Images, Labels, Networks, Reconstruct, paint
from .knowledge import Knowledge, ShownSet, learn
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
    """

    known: Knowledge
    released_labels: Labels
    as_released: AsReleased
    attacks: Mapping[str, Attack]

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
    ) -> Battery:
        """Measure with a generator that never saw an audited patient how hard each scan is."""
        painted = (as_released(some) for some in paint(reference.networks.generator, released_labels, seed))
        known, released = learn(scans, reference.scans, painted, draws, seed)
        known = replace(known, shadows=shadows)
        uncalibrated = cls(known, released_labels, as_released, {})
        target = replace(uncalibrated.target(reference.networks), show_released=lambda: released)
        known = replace(known, draws=target.own.errors.settled(draws, reference.networks.generator, seed))
        attacks = {id: attack for calibrate in CALIBRATE for id, attack in calibrate(known, target).items()}
        return replace(uncalibrated, known=known, attacks=attacks)

    def target(self, networks: Networks, released: Images | None = None, labels: Labels | None = None) -> Target:
        """What an attacker holds of a generator.

        Args:
            networks: Under audit, or a control's.
            released: The set as released, shape (S, C, X, Y, Z); None: as this generator would paint it from the
                released label maps.
            labels: The label maps released beside it; None: the battery's.
        """
        known, generator = self.known, networks.generator
        return Target(
            networks=networks,
            released_labels=self.released_labels if labels is None else labels,
            show_released=lambda: (
                known.shown(map(self.as_released, paint(generator, self.released_labels, known.seed)))
                if released is None
                else self.shown(released)
            ),
            show_own=lambda: self._own(generator),
        )

    def shown(self, volumes: Images) -> ShownSet:
        """A set at hand, shape (S, C, X, Y, Z), beside the audited scans."""
        return self.known.shown(volumes[i : i + _READ_AT_ONCE] for i in range(0, len(volumes), _READ_AT_ONCE))

    def scores(self, target: Target, only: Collection[str] | None = None) -> dict[str, AttackScores]:
        """Every attack on a target by its identifier, or these alone; without those that ask for what it lacks."""
        wanted = set((*self.attacks, *OF_COINS) if only is None else only)
        guessed = {ATTACKS[id]: id for id in OF_COINS if id in wanted}
        tried = {id: attack(target) for id, attack in self.attacks.items() if id in wanted or ATTACKS[id] in guessed}
        found = {id: scores for id, scores in tried.items() if scores is not None}
        for model, id in guessed.items():
            found[id] = coin_guesses.combined(id, [s for s in found.values() if s.threat_model == model])
        return {id: scores for id, scores in found.items() if id in wanted}

    def outliers(self) -> tuple[str, ...]:
        """The most isolated quartile of audited patients."""
        return most_isolated(self.known.scans, self.known.judged)

    def _own(self, generator: Reconstruct) -> OwnSet:
        known = self.known
        errors = OwnMapErrors(known.scans, known.judged)
        draw = errors.seen(paint(generator, known.scans.labels, known.seed))
        return OwnSet(known.shown(map(self.as_released, draw)), errors)
