"""Whether a study holds, and whether the promise it makes leaves anything to learn from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..common.errors import ConfigError
from ..common.study import Study
from ..privacy.dp.accounting import Mechanism
from ..privacy.dp.cross_checks import CrossChecks, cross_checks
from ..privacy.dp.feasibility import Feasibility, refuse_noise
from ..privacy.dp.plan import asked_feasibility
from ..privacy.dp.promise_warnings import asked_of_patients, promise_warnings


@dataclass(frozen=True)
class StudyCheck:
    """A study that parses.

    Attributes:
        digest: Of the study.
        feasibility: Of its promise, at a site of so many patients; None where nothing is promised or nobody asked.
        promises: Whether it makes a promise.
        agreement: What other accountants say of the same steps, where patients were named.
        startless: Whether the public start that it goes out from is still to be named.
        asked: What its promise asks of patients, in words; empty where it makes none.
        warnings: What is to be minded of that.
    """

    digest: str
    feasibility: Feasibility | None
    promises: bool
    agreement: CrossChecks | None = None
    startless: bool = False
    asked: str = ""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        found = self.feasibility
        ok = found is None or found.outlook != "refused"
        told: dict[str, Any] = {"ok": ok, "digest": self.digest, "missing": ["training.start"] * self.startless}
        if self.asked:
            told |= {"asked_of_patients": self.asked, "warnings": list(self.warnings)}
        if found:
            told["feasibility"] = found.to_json()
        if self.agreement:
            told["accountants"] = {
                name: figure if figure is None or math.isfinite(figure) else None
                for name, figure in asdict(self.agreement).items()
                if name != "told"
            }
        return told

    def to_text(self) -> str:
        """For a terminal."""
        lines = [f"{self._holds()}. Digest: {self.digest}"]
        if self.asked:
            lines.append(f"  Asked of every patient: {self.asked}.")
        lines += [f"  warning: {one}" for one in self.warnings]
        if self.feasibility:
            # What would be feasible stands in the refusal, where there is one.
            lines.append(self.feasibility.text(ways=self.feasibility.outlook != "refused"))
        if self.agreement:
            lines.append(f"  Accountants agree: {self.agreement.told}.")
        if self.promises and not self.feasibility:
            lines.append(
                "Whether its promise is feasible, and its δ below 1/n, depends on a site's patients: neither was"
                " judged. Ask with --patients N."
            )
        return "\n".join(lines)

    def _holds(self) -> str:
        if self.feasibility and self.feasibility.outlook == "refused":
            return "the study can be read, and its promise leaves nothing to learn at such a site"
        if self.startless:
            return (
                "the study can be read, and is not runnable yet: training.start is missing ('fedphantom study pretrain'"
                " makes a public start and prints its line)"
            )
        return "the study holds"

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
    startless = study.training.objective == "adversarial" and study.training.start is None
    if patients is not None and not promises:
        raise ConfigError(
            "--patients for a study with dp = 'none'",
            expected="a study that makes a promise",
            remedy="Leave it out; it would have no effect.",
        )
    asked, warnings = asked_of_patients(study), promise_warnings(study)
    if patients is None or study.privacy.promise is None:
        return StudyCheck(study.digest(), None, promises, startless=startless, asked=asked, warnings=warnings)
    found = asked_feasibility(study, patients)
    steps = Mechanism(found.plan.sampling_rate, found.noise_multiplier, found.plan.steps)
    return StudyCheck(
        study.digest(), found, promises, cross_checks([steps], found.plan.delta), startless, asked, warnings
    )
