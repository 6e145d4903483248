"""A10: whether a released set tells something of a patient that the patient's images alone do not (PRIVACY §3.2).

The partial record is a scan without its label map; what is inferred is the size of one structure in it, the one that
differs most from person to person: where a lesion is labelled, the lesion. Inferred from the released volumes whose
images lie near in the embedding (Hilbert kernel, Devroye, Györfi and Krzyżak 1998: it needs no bandwidth), since their
label maps are released beside them. A set painted by a generator that never saw the patient says how well anybody's
images tell it: what counts is how much nearer to the truth the audited set brings one, and whether for members alone.

Of a label map that carries no such difference, nothing can be inferred, and the attack is not run. Attributes that no
label map shows (sex, age) are not asked for: preparation keeps none of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import softmax

from ..evidence import ATTRIBUTE
from ..statistics import Floats
from .interface import AttackScores, Labels, by_patient
from .knowledge import Knowledge
from .target import Attack, Target

NOTHING_TO_INFER = "no structure differs in size among the reference patients' label maps or the released ones"

_EXACT = 1e-3
"""An error below this share of the spread among people is none."""


@dataclass(frozen=True)
class Attribute:
    """The size of one structure.

    Attributes:
        label: Its value in label maps.
        spread: Standard deviation among people, in voxels.
    """

    label: int
    spread: float

    @classmethod
    def chosen(cls, people: Labels) -> Attribute | None:
        """The structure whose size varies most beside its mean, among people who are not audited; None where none does.

        Args:
            people: Shape (R, X, Y, Z).
        """
        values = [int(v) for v in np.unique(people) if v]
        varying = [(a.spread / a.of(people).mean(), a) for a in (cls._of(v, people) for v in values) if a.spread]
        return max(varying, key=lambda pair: pair[0])[1] if varying else None

    @classmethod
    def _of(cls, label: int, people: Labels) -> Attribute:
        return cls(label, float(cls(label, 0.0).of(people).std()))

    def of(self, labels: Labels) -> Floats:
        """Voxels of the structure in each label map (n, X, Y, Z), shape (n,)."""
        return np.array([np.count_nonzero(one == self.label) for one in labels], dtype=np.float64)


def calibrate(known: Knowledge, reference: Target) -> dict[str, Attack]:
    """The attack on any target's released set; none where there is nothing to infer."""
    attribute = Attribute.chosen(known.reference_labels)
    if attribute is None or np.ptp(attribute.of(reference.released_labels)) == 0:
        return {}
    truth, floor = attribute.of(known.scans.labels), _EXACT * attribute.spread

    def log_error(target: Target) -> Floats:
        told = inferred(target.released.points, attribute.of(target.released_labels), known.points)
        return np.asarray(np.log(np.maximum(np.abs(told - truth), floor)))

    hardness = log_error(reference)

    def scores(target: Target) -> AttackScores:
        return by_patient(ATTRIBUTE, known.scans, hardness - log_error(target))

    return {ATTRIBUTE: scores}


def inferred(points: Floats, values: Floats, places: Floats) -> Floats:
    """The mean of values at points (n, K), weighted by 1 / distance^K to each place (m, K): shape (m,).

    A point at the place itself speaks alone, and however far a place lies, its nearest points speak for it. Points
    without a value, at the end, are left out.
    """
    points = points[: len(values)]
    far = np.log(np.maximum(cdist(places, points), 1e-12))
    return np.asarray(softmax(-points.shape[1] * far, axis=1) @ values)
