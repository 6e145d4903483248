"""Sites' own audits as extracts, of simulated scores or of figures that would please any policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tiny_release import NO_TROUBLE, TRIED, a_control, an_attack

from fedphantom.common.randomness import numpy_generator
from fedphantom.privacy.audit.extract import AttackRow, AuditExtract
from fedphantom.privacy.audit.small_cells import travelling
from fedphantom.privacy.evidence import BATTERY, OUTLIERS, REQUIRED_CONTROLS
from fedphantom.privacy.intervals import auc_interval, permutation_p_value
from fedphantom.privacy.statistics import Floats, Scores, no_false_alarm_p_value, tpr_at_fpr

MODELS = {name: model for name, model in TRIED.items() if model != "W"}


def drawn(rng: np.random.Generator, member: int, holdout: int, effect: float = 0.0) -> tuple[Floats, Floats]:
    """Scores of a site's members and holdout patients; ``effect`` is Cohen's d."""
    return rng.normal(size=member) + effect, rng.normal(size=holdout)


def pooled(sites: Sequence[tuple[Floats, Floats]]) -> Scores:
    """As where all scores lie on one machine."""
    names = [f"s{i}" for i in range(len(sites))]
    member_sites = [n for n, (m, _) in zip(names, sites, strict=True) for _ in m]
    holdout_sites = [n for n, (_, h) in zip(names, sites, strict=True) for _ in h]
    return Scores.of(*(np.concatenate([s[i] for s in sites]) for i in (0, 1)), member_sites, holdout_sites)


def figures(scores: Scores, name: str = "A3", model: str = "S", seed: int = 0, replicates: int = 2000) -> AttackRow:
    """An attack's line as an audit of these scores writes it."""
    rng = numpy_generator(seed, "judging", name)
    found = auc_interval(scores, rng, replicates)
    at_none = tpr_at_fpr(scores, 0.0)
    return AttackRow.model_validate(
        {
            "id": name,
            "threat_model": model,
            "auc": found.auc,
            "auc_ci": found.ci,
            "auc_lower95": found.lower95,
            "auc_upper95": found.upper95,
            "tpr": [
                {"fpr": 0.0, "tpr": at_none.tpr, "ci": at_none.ci, "resolvable": True, "fpr_bound": at_none.fpr_bound}
            ],
            "eps_lower_bound": 0.0,
            "p_value": permutation_p_value(scores, rng, replicates),
            "no_false_alarm_p_value": no_false_alarm_p_value(scores),
            "rejects": False,
            "rejects_alone": False,
            "n_member": scores.n_member,
            "n_holdout": scores.n_holdout,
        }
    )


def a_site_audit(member: int = 60, holdout: int = 60, outliers: int = 15, **changes: Any) -> AuditExtract:
    """As a site shares it: fewer than twenty are told as such."""
    sizes = {n: (outliers, outliers) if n.endswith(OUTLIERS) else (member, holdout) for n in MODELS}
    content = {
        "battery": BATTERY,
        "verdict": "INCONCLUSIVE",
        "tier": "controlled",
        "release": "volumes",
        "generator_sha256": "a" * 64,
        "synthetic_sha256": "b" * 64,
        "attacks": [wide(an_attack(n, m, n_member=sizes[n][0], n_holdout=sizes[n][1])) for n, m in MODELS.items()],
        "controls": [a_control(name) for name in REQUIRED_CONTROLS["volumes"]],
        "counts": {
            "member": member,
            "holdout": holdout,
            "training": 40,
            "audited_patients": member + holdout,
            "sites": 1,
            "synthetic": 12,
        },
        **NO_TROUBLE,
        "generator_named_by": "the coordinator's signature",
        "epsilon_means": {"kind": "lower", "delta": 1e-3, "unit": "patient", "adjacency": "add or remove one"},
    }
    return travelling(AuditExtract.model_validate(content | changes))


def wide(row: dict[str, Any]) -> dict[str, Any]:
    """With an interval as so few patients give: too wide for one site to pass by itself."""
    half = 0.5 / np.sqrt(min(row["n_member"], row["n_holdout"])) * 1.9
    low, high = max(0.0, row["auc"] - half), min(1.0, row["auc"] + half)
    return row | {"auc_ci": [low, high], "auc_lower95": low, "auc_upper95": high, "rejects_alone": False}


def changed(audit: AuditExtract, name: str, **changes: Any) -> AuditExtract:
    """With another line for one attack."""
    rows = [AttackRow.model_validate(vars(row) | changes) if row.id == name else row for row in audit.attacks]
    return audit.model_copy(update={"attacks": tuple(rows)})
