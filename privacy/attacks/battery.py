"""A1 and A3 against any generator, calibrated once: target and controls go through this same code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..statistics import Floats
from .gan_leaks import Copies, confirmed_copies, distances, gan_leaks_scores, isolation
from .interface import AsReleased, AttackScores, AuditedScans, Images, Labels, Reconstruct, foreground, paint
from .reconstruction import reconstruction_errors, reconstruction_scores


@dataclass(frozen=True)
class Battery:
    """The audited scans with their calibration.

    Attributes:
        scans: Members and holdout.
        judged: Voxels judged, shape (N, X, Y, Z).
        released_labels: Label maps of the released set, shape (S, X, Y, Z).
        reference_errors: A1's calibration, shape (N,).
        reference_nearest: A3's calibration, shape (N,).
        draws: Noise draws of A1.
        seed: Of the noise.
        as_released: What a reader of the released files gets for volumes that a generator painted.
    """

    scans: AuditedScans
    judged: NDArray[np.bool_]
    released_labels: Labels
    reference_errors: Floats
    reference_nearest: Floats
    draws: int
    seed: int
    as_released: AsReleased

    @classmethod
    def calibrate(
        cls,
        scans: AuditedScans,
        released_labels: Labels,
        reference: Reconstruct,
        draws: int,
        seed: int,
        as_released: AsReleased,
    ) -> Battery:
        """Measure with a generator that never saw an audited patient how hard each scan is."""
        judged = foreground(scans.images, scans.labels)
        return cls(
            scans=scans,
            judged=judged,
            released_labels=released_labels,
            reference_errors=reconstruction_errors(reference, scans, judged, draws, seed),
            reference_nearest=distances(scans, judged, as_released(paint(reference, released_labels, seed))).min(
                axis=1
            ),
            draws=draws,
            seed=seed,
            as_released=as_released,
        )

    def reconstruction(self, target: Reconstruct, patients: Sequence[str] | None = None) -> AttackScores:
        """A1 on all audited patients, or on these."""
        kept = np.arange(len(self.scans)) if patients is None else self.scans.of(patients)
        scans = self.scans.take(kept)
        errors = reconstruction_errors(target, scans, self.judged[kept], self.draws, self.seed)
        return reconstruction_scores(errors, self.reference_errors[kept], scans)

    def distances(self, synthetic: Images) -> Floats:
        """Scan by synthetic volume, shape (N, S)."""
        return distances(self.scans, self.judged, synthetic)

    def gan_leaks(self, distance: Floats) -> AttackScores:
        """A3 from :meth:`distances`."""
        return gan_leaks_scores(distance.min(axis=1), self.reference_nearest, self.scans)

    def release_of(self, generator: Reconstruct) -> Images:
        """The set that this generator would release from the released label maps."""
        return self.as_released(paint(generator, self.released_labels, self.seed))

    def copies(self, distance: Floats) -> Copies:
        """Confirmed copies, from :meth:`distances`."""
        return confirmed_copies(self.scans, self.judged, distance)

    def outliers(self) -> tuple[str, ...]:
        """The most isolated quartile of audited patients, one cut for members and holdout."""
        lonely = isolation(self.scans, self.judged)
        cut = float(np.quantile(list(lonely.values()), 0.75))
        return tuple(sorted(p for p, distance in lonely.items() if distance >= cut))
