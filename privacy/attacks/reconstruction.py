"""A1: how well the generator paints a scan from the scan's own label map (Shafran et al. 2021, arXiv 2102.07762).

Calibrated: log e_ref - log e_target, large where the target alone paints the scan well. The reference never saw an
audited patient: its error tells how hard the scan is.
"""

from __future__ import annotations

from ..statistics import Floats
from .interface import AttackScores, by_patient
from .knowledge import Knowledge
from .own_map import log_errors
from .target import Attack, Target

_ID = "A1"


def calibrate(known: Knowledge, reference: Target) -> dict[str, Attack]:
    """The attack on any generator."""
    hardness = log_errors(_errors(reference, known))

    def scores(target: Target) -> AttackScores:
        return by_patient(_ID, known.scans, hardness - log_errors(_errors(target, known)))

    return {_ID: scores}


def _errors(target: Target, known: Knowledge) -> Floats:
    return target.own.errors.after(known.draws, target.networks.generator, known.seed)
