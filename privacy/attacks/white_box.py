"""A3 on the weights: how near the generator can be brought to a scan (Chen et al. 2020, arXiv 1909.03935, white box).

Whoever holds the weights need not wait for a volume like the scan: they say how to change what the generator is given
so that it paints that scan better. Searched are a few steps from the patient's own label map, of its labels' shares and
the coarse noise alone (``audit.weight_search``); on the generators tested the search told members no better than its
first step, which is A1 with one draw (docs/experiments.md). Calibrated as A1: log e_ref - log e_target, the same search
on a reference that never saw an audited patient telling how hard the scan is.
"""

from __future__ import annotations

from functools import cache

from ..evidence import WHITE_BOX
from ..statistics import Floats
from .interface import AttackScores, Search, by_patient
from .knowledge import Knowledge
from .own_map import log_errors
from .target import Attack, Target


def calibrate(known: Knowledge, reference: Target) -> dict[str, Attack]:
    """The attack on any target whose weights are to be searched; the reference's are, when the first such one comes."""
    of_reference = reference.networks.search
    if of_reference is None:
        return {}

    @cache
    def hardness() -> Floats:
        return reference.once("searched", lambda: {"errors": _errors(of_reference, known)})["errors"]

    def scores(target: Target) -> AttackScores | None:
        of_target = target.networks.search
        if of_target is None:
            return None
        return by_patient(WHITE_BOX, known.scans, hardness() - _errors(of_target, known))

    return {WHITE_BOX: scores}


def _errors(search: Search, known: Knowledge) -> Floats:
    return log_errors(search.errors(known.scans, known.judged, lambda done, total: None))
