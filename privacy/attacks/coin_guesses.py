"""A9: the other attacks' scores put together, to guess how coins fell (Steinke et al. 2023, arXiv 2305.08846).

PRIVACY §3.2 ranks by the best score. Which attack is best, only the coins know, and to ask them would void the bound:
so the mean rank over the attacks counts, and how many patients are guessed about is fixed by their number alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from ..statistics import Floats
from .interface import AttackScores


def combined(id: str, attacks: Sequence[AttackScores]) -> AttackScores:
    """The mean over attacks of each patient's rank within the site, between 0 and 1.

    Args:
        id: Of the combination.
        attacks: At least one, all on the same patients, of one threat model.
    """
    first = attacks[0]
    sites = np.array(first.sites, dtype=str)
    return AttackScores(
        id=id,
        threat_model=first.threat_model,
        patients=first.patients,
        sites=first.sites,
        is_member=first.is_member,
        score=np.mean([_ranks(attack.score, sites) for attack in attacks], axis=0),
        guesses=2 * (len(first.patients) // 4),
    )


def right_guesses(attack: AttackScores) -> int:
    """How many of an attack's guesses are right: the upper half says member, the lower half holdout.

    Ties are cut in the order of the patients' identifiers, of which the coins know nothing.
    """
    order, half = np.argsort(attack.score, kind="stable"), attack.guesses // 2
    called_holdout, called_member = order[:half], order[len(order) - half :]
    return int(attack.is_member[called_member].sum() + (~attack.is_member[called_holdout]).sum())


def _ranks(score: Floats, sites: np.ndarray[tuple[int], np.dtype[np.str_]]) -> Floats:
    out = np.empty(len(score))
    for site in np.unique(sites):
        there = sites == site
        out[there] = (stats.rankdata(score[there]) - 0.5) / there.sum()
    return out
