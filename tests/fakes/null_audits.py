"""``python null_audits.py AUDITS PATIENTS [FIRST_SEED]``: whole audits of generators that never saw an audited patient.

What is counted: how often the audit says that it found a leak, and each verdict. PATIENTS members and as many holdout
patients, of two sites; everything from scans to verdict is the audit's own code, on volumes so small that hundreds of
audits take minutes. Beside a generator that knows nobody stands a memoriser, so that the positive controls hold.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from learners import audit, make_material

from fedphantom.privacy.evidence import ReleaseKind


@dataclass(frozen=True)
class NullAudit:
    """What one said.

    Attributes:
        outcome: Its verdict.
        accuses: Whether it says that it found a leak: an attack rejects "no leak" after Holm, or the verdict is FAIL.
        reasons: Its verdict's.
    """

    outcome: str
    accuses: bool
    reasons: tuple[str, ...]


def null_audit(seed: int, patients: int, release: ReleaseKind) -> NullAudit:
    """One audit at the controlled tier of a generator trained on others alone."""
    material = make_material(seed, member=patients, holdout=patients, reference=patients, control=patients)
    result = audit(material, release=release, seed=seed)
    accuses = result.verdict.outcome == "FAIL" or any(attack.rejects for attack in result.evidence.attacks)
    return NullAudit(result.verdict.outcome, accuses, result.verdict.reasons)


def null_audits(seeds: range, patients: int, release: ReleaseKind = "volumes", at_once: int = 2) -> Iterator[NullAudit]:
    """One a seed, in the order of the seeds."""
    many = len(seeds)
    with ProcessPoolExecutor(at_once) as pool:
        yield from pool.map(null_audit, seeds, [patients] * many, [release] * many)


if __name__ == "__main__":
    audits, patients, *first = (int(word) for word in sys.argv[1:])
    start = first[0] if first else 0
    found = list(null_audits(range(start, start + audits), patients))
    print(
        json.dumps(
            {
                "audits": audits,
                "patients_a_side": patients,
                "accusing": sum(one.accuses for one in found),
                "verdicts": Counter(one.outcome for one in found),
                "first_reasons": Counter(one.reasons[0] for one in found if one.outcome != "PASS").most_common(5),
            },
            indent=1,
        )
    )
