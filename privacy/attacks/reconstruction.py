"""A1: how well the generator paints a scan from the scan's own label map (Shafran et al. 2021, arXiv 2102.07762).

Calibrated: log e_ref - log e_target, large where the target alone paints the scan well. The reference never saw an
audited patient: its error tells how hard the scan is.
"""

from __future__ import annotations

from .interface import AttackScores, by_patient
from .knowledge import Knowledge
from .own_map import log_errors
from .target import Attack, Target

_ID = "A1"


def calibrate(known: Knowledge, reference: Target) -> dict[str, Attack]:
    """The attack on any generator, with as many draws as the reference or it itself needs, whichever needs more.

    One that heeds its noise more than the reference does would else look no harder than the reference: its chance of
    painting a scan well in a draw or two says little (docs/experiments.md, "How many draws an adversarial generator
    needs").
    """

    def scores(target: Target) -> AttackScores:
        generator, own = target.networks.generator, target.own.errors
        draws = max(known.draws, own.settled(known.most_draws, generator, known.seed))
        hardness = reference.own.errors.after(draws, reference.networks.generator, known.seed)
        reached = own.after(draws, generator, known.seed)
        return by_patient(_ID, known.scans, log_errors(hardness) - log_errors(reached))

    return {_ID: scores}
