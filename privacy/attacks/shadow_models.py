"""A2: a scan's error beside that of shadow generators, some of which saw the patient and some of which did not.

Two attacks on the error of A1. LiRA (Carlini et al. 2022, arXiv 2112.03570, offline): how far it lies below those of
the shadows that never saw the patient. RMIA (Zarifzadeh et al. 2024, arXiv 2312.03262, online): of how many reference
scans it has become likelier under the target, beside the shadows, than they have.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from ..evidence import LIRA, RMIA
from ..statistics import Floats
from .interface import AttackScores, by_patient
from .knowledge import Knowledge
from .own_map import log_errors
from .target import Attack, Target

FEWEST_FOR_SPREAD = 8
"""Shadows without a patient from which the spread of the scan's error is its own; of fewer, the spread of all scans'
together serves, which Carlini et al. found better there."""
GAMMA = 1.0
"""How much likelier than a reference scan's. Not their default of 2: half of the shadows saw each scan, so that even
one that the target knows by heart becomes no more than twice as likely as beside them."""
_SMALLEST_SPREAD = 1e-6


def calibrate(known: Knowledge, reference: Target) -> dict[str, Attack]:
    """Both attacks on any generator; none where no shadows were trained."""
    shadows = known.shadows
    if shadows is None:
        return {}
    of = lru_cache(maxsize=1)(shadows.measure.of)

    def lira(target: Target) -> AttackScores:
        return by_patient(LIRA, known.scans, lira_scores(of(target.networks.generator), shadows.errors, shadows.saw))

    def rmia(target: Target) -> AttackScores:
        return by_patient(RMIA, known.scans, rmia_scores(of(target.networks.generator), shadows.errors, shadows.saw))

    return {LIRA: lira, RMIA: rmia}


def lira_scores(target: Floats, shadows: Floats, saw: NDArray[np.bool_]) -> Floats:
    """(mean without - error) / spread without, of logarithms of errors, shape (N,).

    Args:
        target: Shape (N + R,).
        shadows: Shape (S, N + R).
        saw: Shape (S, N).
    """
    n = saw.shape[1]
    without = np.ma.masked_array(log_errors(shadows[:, :n]), mask=saw)
    mean = without.mean(axis=0).filled(np.nan)
    each = without.std(axis=0, ddof=1).filled(np.nan)
    fewest = int((~saw).sum(axis=0).min())
    spread = each if fewest >= FEWEST_FOR_SPREAD else np.full(n, np.sqrt(np.mean(each**2)))
    return np.asarray((mean - log_errors(target[:n])) / np.maximum(spread, _SMALLEST_SPREAD))


def rmia_scores(target: Floats, shadows: Floats, saw: NDArray[np.bool_]) -> Floats:
    """Share of the reference scans that a scan beats, between 0 and 1, shape (N,).

    A scan's likelihood is exp(-e / τ), τ the median error of the shadows on those they never saw; its ratio is that
    under the target over the mean under the shadows, half of which saw it. It beats a reference scan whose ratio is at
    most 1 / ``GAMMA`` of its own. Arguments as :func:`lira_scores`.
    """
    n = saw.shape[1]
    unseen = np.concatenate([shadows[:, :n][~saw], shadows[:, n:].ravel()])
    scale = max(float(np.median(unseen)), 1e-12)
    # In logarithms: exp of a large error is 0, and 0 would beat 0.
    ratio = -target / scale - (logsumexp(-shadows / scale, axis=0) - np.log(len(shadows)))
    own, others = ratio[:n], ratio[n:]
    return np.asarray((own[:, None] >= np.log(GAMMA) + others[None, :]).mean(axis=1))
