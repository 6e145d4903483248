"""Whether a study holds, and whether the promise it makes leaves anything to learn from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..common.errors import ConfigError
from ..common.promise import PromiseTable
from ..common.study import Study
from ..privacy.dp.accounting import Mechanism, epsilon, told
from ..privacy.dp.cross_checks import CrossChecks, cross_checks
from ..privacy.dp.feasibility import Feasibility, refuse_noise
from ..privacy.dp.meaning import meaning
from ..privacy.dp.plan import asked_feasibility, noised_plan
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
        means: What its ε means, in a sentence without a symbol to look up; empty likewise.
        without_spare: ε where no spare round is needed; None where nothing is promised or no round is spare.
        warnings: What is to be minded of that.
    """

    digest: str
    feasibility: Feasibility | None
    promises: bool
    agreement: CrossChecks | None = None
    startless: bool = False
    asked: str = ""
    warnings: tuple[str, ...] = ()
    means: str = ""
    without_spare: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        found = self.feasibility
        ok = found is None or found.outlook != "refused"
        facts: dict[str, Any] = {"ok": ok, "digest": self.digest, "missing": ["training.start"] * self.startless}
        if self.asked:
            facts |= {"asked_of_patients": self.asked, "warnings": list(self.warnings), "means": self.means}
            facts |= {"epsilon_without_spare_rounds": self.without_spare}
        if found:
            facts["feasibility"] = found.to_json()
        if self.agreement:
            facts["accountants"] = {
                name: figure if figure is None or math.isfinite(figure) else None
                for name, figure in asdict(self.agreement).items()
                if name != "told"
            }
        return facts

    def to_text(self) -> str:
        """For a terminal."""
        lines = [f"{self._holds()}. Digest: {self.digest}"]
        if self.asked:
            lines.append(f"  Asked of every patient: {self.asked}.")
            lines.append(f"  {self.means}")
        if self.without_spare is not None:
            lines.append(f"  Where no spare round is needed it costs less: {told(self.without_spare)} at the same δ.")
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
    promise = study.privacy.promise
    if promise is None:
        return StudyCheck(study.digest(), None, promises, startless=startless)
    checked = StudyCheck(
        study.digest(),
        None,
        promises,
        startless=startless,
        asked=asked_of_patients(study),
        warnings=promise_warnings(study),
        means=meaning(promise.epsilon, promise.delta, "the generator"),
        without_spare=_without_spare(study, promise) if promise.spare_rounds else None,
    )
    if patients is None:
        return checked
    found = asked_feasibility(study, patients)
    steps = Mechanism(found.plan.sampling_rate, found.noise_multiplier, found.plan.steps)
    return replace(checked, feasibility=found, agreement=cross_checks([steps], found.plan.delta))


def _without_spare(study: Study, promise: PromiseTable) -> float:
    plan, training = noised_plan(study), study.training
    _, needed = promise.model_copy(update={"spare_rounds": 0}).noised_steps(training.rounds, training.local_steps)
    return epsilon([Mechanism(plan.sampling_rate, plan.noise_multiplier, needed)], promise.delta)
