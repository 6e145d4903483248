"""``python null_scores.py AUDITS PATIENTS TIER [FIRST_SEED]``: how often audits of scores that know nobody say FAIL.

Every attack of a release of weights, all of which bind, draws scores of its own, independent of the others': more ways
to accuse by chance than attacks that look at the same volumes have. Figures, Holm and verdict are the audit's own code.
Counted besides is how often the members named without one false alarm lie beyond the tier's bound by Clopper and
Pearson, which fails nothing alone.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from fedphantom.privacy.attacks.interface import AttackScores
from fedphantom.privacy.audit.judging import judge, with_outliers, with_rejections
from fedphantom.privacy.evidence import ATTACKS, REQUIRED_ATTACKS, REQUIRED_CONTROLS, AuditEvidence, ControlResult
from fedphantom.privacy.policy import TIERS, Tier
from fedphantom.privacy.verdict import decide

TRIED = tuple(name for name in REQUIRED_ATTACKS["weights"] if name in ATTACKS)


@dataclass(frozen=True)
class Said:
    """What an audit said.

    Attributes:
        fails: Whether it is a FAIL.
        rejects: Whether an attack rejects "no leak".
        beyond: Whether one names more members without a false alarm than the tier's bound.
    """

    fails: bool
    rejects: bool
    beyond: bool


def audit(seed: int, patients: int, tier: Tier) -> Said:
    """One, of members and as many holdout patients."""
    rng = np.random.default_rng(seed)
    names = tuple(f"p{i:04d}" for i in range(2 * patients))
    member = np.arange(2 * patients) < patients
    site = ("A",) * (2 * patients)
    whole = [AttackScores(name, ATTACKS[name], names, site, member, rng.normal(size=len(names))) for name in TRIED]
    isolated = rng.permutation(names)[: len(names) // 4].tolist()
    judged = [judge(attack, seed, 1e-3) for attack in with_outliers(whole, isolated)[0]]
    evidence = AuditEvidence(
        release="weights",
        attacks=tuple(with_rejections(judged, ())),
        controls=tuple(ControlResult(name, "to hold", "held", True) for name in REQUIRED_CONTROLS["weights"]),
        n_member=patients,
        n_holdout=patients,
        negative_seeds=3,
        target_steps=1,
        control_steps=1,
        confirmed_copies=0,
    )
    bound = TIERS[tier].tpr_lower_max
    whole_only = [attack for attack in evidence.attacks if attack.no_false_alarm_p_value is not None]
    beyond = bound is not None and any(attack.tpr[0].ci[0] > bound for attack in whole_only)
    verdict = decide(evidence, TIERS[tier])
    return Said(verdict.outcome == "FAIL", any(attack.rejects for attack in evidence.attacks), beyond)


if __name__ == "__main__":
    audits, patients, tier, *first = sys.argv[1:]
    seeds = range(start := int(first[0]) if first else 0, start + int(audits))
    with ProcessPoolExecutor(2) as pool:
        said = list(pool.map(partial(audit, patients=int(patients), tier=tier), seeds))
    counted = {name: sum(getattr(one, name) for one in said) for name in ("fails", "rejects", "beyond")}
    print(json.dumps({"audits": int(audits), "patients_a_side": int(patients), "tier": tier, **counted}))
