"""A8: what a site's rounds betray to the coordinator that sees each of them (PRIVACY §3.2, threat model F).

Round after round a site sends the generator that came out of its own training. Where that paints one of its patients'
scans better than what other sites sent in the same round, the patient trained it: mean over rounds of how far the error
fell in the site's own generator, less how far it fell in the others'. Both fell from the same generator, which all
began the round with, so that it cancels out: what is left is their error less the site's. Of a lone site, who has none
of the others', what the average became stands in for them; a share of its own is in it, which makes the attack weaker.
"""

from __future__ import annotations

import numpy as np

from ..evidence import TRAJECTORY
from ..statistics import Floats
from .interface import AttackScores, AuditedScans, Reconstruct, SentRound, by_patient
from .knowledge import Knowledge
from .own_map import log_errors, own_map_errors
from .target import Attack, Target


def calibrate(known: Knowledge, reference: Target) -> dict[str, Attack]:
    """The attack on any target whose rounds are at hand; the sites calibrate each other, and no reference is asked."""

    def scores(target: Target) -> AttackScores | None:
        rounds = target.networks.rounds
        if not rounds:
            return None
        return by_patient(TRAJECTORY, known.scans, np.mean([_advantage(load(), known) for load in rounds], axis=0))

    return {TRAJECTORY: scores}


def _advantage(sent: SentRound, known: Knowledge) -> Floats:
    """Of each scan in one round (N,): mean log error of what it is compared with, less that of its own site's."""
    out, sites = np.empty(len(known.scans)), np.array(known.scans.sites, dtype=str)
    for site in np.unique(sites).tolist():
        rows = np.flatnonzero(sites == site)
        scans, judged = known.scans.take(rows), known.judged[rows]

        def errors(generator: Reconstruct, scans: AuditedScans = scans, judged: np.ndarray = judged) -> Floats:
            # One draw, and the same noise for all: what differs is what the generators know.
            return log_errors(own_map_errors(generator, scans, judged, 1, known.seed))

        others = np.mean([errors(generator) for generator in sent.beside[site]], axis=0)
        out[rows] = others - errors(sent.own[site])
    return out
