"""Whether a study holds, and whether the promise it makes leaves anything to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..common.errors import ConfigError
from ..common.study import Study
from ..privacy.dp.accounting import Mechanism
from ..privacy.dp.cross_checks import CrossChecks, cross_checks
from ..privacy.dp.feasibility import Feasibility, feasibility, refuse_noise
from ..privacy.dp.plan import asked_plan


@dataclass(frozen=True)
class StudyCheck:
    """A study that parses.

    Attributes:
        digest: Of the study.
        feasibility: Of its promise, at a site of so many patients; None where nothing is promised or nobody asked.
        promises: Whether it makes a promise.
        agreement: What other accountants say of the same steps; None where nobody asked.
    """

    digest: str
    feasibility: Feasibility | None
    promises: bool
    agreement: CrossChecks | None = None

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        found = self.feasibility
        ok = found is None or found.outlook != "refused"
        told: dict[str, Any] = {"ok": ok, "digest": self.digest}
        if found:
            told["feasibility"] = found.to_json()
        if self.agreement:
            told["accountants"] = {"pld": self.agreement.pld, "prv": self.agreement.prv, "rdp": self.agreement.rdp}
        return told

    def to_text(self) -> str:
        """For a terminal."""
        lines = [f"the study holds. Digest: {self.digest}"]
        if self.feasibility and self.agreement:
            lines += [self.feasibility.text(), f"  Accountants agree: {self.agreement.told}."]
        elif self.promises:
            lines.append(
                "Whether its promise is feasible, and its δ below 1/n, depends on a site's patients: neither was"
                " judged. Ask with --patients N."
            )
        return "\n".join(lines)

    def refuse(self) -> None:
        """Raise PolicyRefused where every noised step would be pure noise."""
        if self.feasibility:
            refuse_noise(self.feasibility)


def check_study(study: Study, patients: int | None) -> StudyCheck:
    """Check a parsed study.

    Args:
        study: What was read.
        patients: Training patients of a site, for the promise's feasibility.

    Raises:
        VerificationFailed: another accountant contradicts the official one.
        ConfigError: patients for a study that promises nothing, or a promise that no noise keeps or δ forbids.
    """
    promises = study.privacy.promise is not None
    if patients is not None and not promises:
        raise ConfigError(
            "--patients for a study with dp = 'none'",
            expected="a study that makes a promise",
            remedy="Leave it out; it would have no effect.",
        )
    if patients is None or study.privacy.promise is None:
        return StudyCheck(study.digest(), None, promises)
    found = feasibility(asked_plan(study, patients))
    steps = Mechanism(found.plan.sampling_rate, found.noise_multiplier, found.plan.steps)
    return StudyCheck(study.digest(), found, promises, cross_checks([steps], found.plan.delta))
