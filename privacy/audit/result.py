"""The audit's result and its file: what ``audit run --json`` prints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..evidence import BATTERY, AttackResult, AuditEvidence
from ..multiplicity import PValues, claim_confidence, p_values
from ..policy import ReleasePolicy
from ..power import Power
from ..verdict import Verdict, is_binding
from .controls import NegativeRun
from .judging import SiteFigure


@dataclass(frozen=True)
class SuspectRow:
    """A pair to look at.

    Attributes:
        volume: Index among the synthetic volumes, in the order of their names.
        scan: :func:`scan_digest` of the patient's scan: only who has the scan can tell whose it is.
        accused: Whether the volume is a confirmed copy of it, and not only the scan most like it.
    """

    volume: int
    scan: str
    accused: bool


def scan_digest(image: NDArray[np.float32]) -> str:
    """SHA-256 (hex) of a prepared scan's voxels."""
    return hashlib.sha256(np.ascontiguousarray(image, dtype=np.float32).tobytes()).hexdigest()


@dataclass(frozen=True)
class AuditResult:
    """Figures about groups only, and which volumes to look at first: no patient, no coin, no score.

    Attributes:
        verdict: Outcome and reasons.
        evidence: What it rests on.
        policy: By which it was judged.
        power: What this size could show.
        counts: Patients per role, scans, synthetic volumes.
        roc: Attack to corners (FPR, TPR). For the internal report: in a small group steps are single patients.
        by_site: Each attack at each site; for the sites' eyes, since it names them.
        negative_runs: Each attack on each control generator.
        delta: δ of every ε lower bound.
        generator_sha256: Of the generator under audit.
        cohort_digest: Of the coin record.
        synthetic_sha256: Of the audited synthetic set's files; None where it was never on a disk.
        earlier_audits: Test to p-value in each audit of this holdout before this one, the first one first; None where
            one was broken off. Holm spans them all.
        reference_stands_in: What stood in as reference or control patients, or None.
        parameters_sha256: Over the generator's parameters, whatever its file's header says; None where it has no file.
        channels: The study's, which are all that the attacks read of a volume.
        suspects: Volumes in an order of suspicion, each with the scan that it is accused of copying, or that is most
            like it. For the internal report.
        not_applicable: Attacks that are run where there is something to ask, and were not: why, by identifier.
        scans_sha256: Of what the sites' journals note of their scans; None for scans that no journal tells of.
        code_sha256: Of the program that audited (:mod:`fedphantom.common.installed_code`), as it stood at the start;
            None, as above, where no run's folder was audited.
    """

    verdict: Verdict
    evidence: AuditEvidence
    policy: ReleasePolicy
    power: Power
    counts: Mapping[str, int]
    roc: Mapping[str, tuple[tuple[float, float], ...]]
    by_site: tuple[SiteFigure, ...]
    negative_runs: tuple[NegativeRun, ...]
    delta: float
    generator_sha256: str
    cohort_digest: str
    synthetic_sha256: str | None
    earlier_audits: tuple[PValues | None, ...]
    reference_stands_in: str | None
    suspects: tuple[SuspectRow, ...] = ()
    not_applicable: Mapping[str, str] = field(default_factory=dict)
    parameters_sha256: str | None = None
    channels: tuple[str, ...] = ()
    scans_sha256: str | None = None
    code_sha256: str | None = None

    def p_values(self) -> PValues:
        """Of every test; the blind baseline is none. For the journal: later audits of this holdout count them."""
        return p_values(self.evidence.attacks)

    def to_json(self) -> str:
        """The result as text; keys as DESIGN §5. ``tpr`` lists rates of false alarms, 0 first.

        ``claim_confidence`` is that of every ``auc_upper95`` but the blind baseline's, which is 95 % always.
        """
        content = {
            "battery": BATTERY,
            "verdict": self.verdict.outcome,
            "reasons": list(self.verdict.reasons),
            "tier": self.policy.tier,
            "policy": asdict(self.policy),
            "release": self.evidence.release,
            "channels": list(self.channels),
            "parameters_sha256": self.parameters_sha256,
            "attacks": [self._row(attack) for attack in self.evidence.attacks],
            "controls": [asdict(control) for control in self.evidence.controls],
            "counts": dict(self.counts),
            "power": asdict(self.power),
            "by_site": [asdict(figure) for figure in self.by_site],
            "negative_runs": [asdict(run) for run in self.negative_runs],
            "not_applicable": dict(self.not_applicable),
            "confirmed_copies": self.evidence.confirmed_copies,
            "copied_members": self.evidence.copied_members,
            "copied_labels": asdict(self.evidence.copied_labels),
            "suspects": [asdict(row) for row in self.suspects],
            "canary_excess": self.evidence.canary_excess,
            "negative_seeds": self.evidence.negative_seeds,
            "target_steps": self.evidence.target_steps,
            "control_steps": self.evidence.control_steps,
            "claimed_epsilon": self.evidence.claimed_epsilon,
            "epsilon_means": {
                "kind": "lower bound shown by an attack, 95 %; proves no upper bound",
                "delta": self.delta,
                "unit": "patient",
                "adjacency": "add or remove one patient",
            },
            "generator_sha256": self.generator_sha256,
            "cohort_digest": self.cohort_digest,
            "scans_sha256": self.scans_sha256,
            "code_sha256": self.code_sha256,
            "synthetic_sha256": self.synthetic_sha256,
            "audit_number": self.evidence.audit_number,
            "claim_confidence": claim_confidence(self.evidence.audit_number),
            "earlier_audits": [None if audit is None else dict(audit) for audit in self.earlier_audits],
            "too_small": list(self.evidence.too_small),
            "reference_stands_in": self.reference_stands_in,
            "generator_named_by": self.evidence.generator_named_by,
        }
        return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    def _row(self, attack: AttackResult) -> dict[str, object]:
        return {
            "id": attack.id,
            "threat_model": attack.threat_model,
            "binding": is_binding(attack, self.evidence),
            "auc": attack.auc,
            "auc_ci": list(attack.auc_ci),
            "auc_lower95": attack.lower95,
            "auc_upper95": attack.upper95,
            "tpr": [asdict(at) for at in attack.tpr],
            "advantage": attack.advantage,
            "eps_lower_bound": attack.eps_lower_bound,
            "p_value": attack.p_value,
            "no_false_alarm_p_value": attack.no_false_alarm_p_value,
            "rejects": attack.rejects,
            "rejects_alone": attack.rejects_alone,
            "n_member": attack.n_member,
            "n_holdout": attack.n_holdout,
            "roc": [list(corner) for corner in self.roc[attack.id]],
        }
