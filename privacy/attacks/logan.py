"""A6: how real a discriminator finds a scan (Hayes et al. 2019, LOGAN, PoPETs 2019(1), arXiv 1705.07663, white box).

Calibrated: less what the discriminator of the reference says of it, which came out of the same training function. A
federation's discriminators differ; each scan is judged by that of its own site, and compared within its site alone.
"""

from __future__ import annotations

from .interface import AttackScores, by_patient
from .knowledge import Knowledge
from .target import Attack, Target

_ID = "A6"


def calibrate(known: Knowledge, reference: Target) -> dict[str, Attack]:
    """The attack on any target whose discriminator is at hand; none where the reference has no discriminator."""
    judge = reference.networks.logits
    if judge is None:
        return {}
    realness = judge(known.scans)

    def scores(target: Target) -> AttackScores | None:
        logits = target.networks.logits
        return None if logits is None else by_patient(_ID, known.scans, logits(known.scans) - realness)

    return {_ID: scores}
