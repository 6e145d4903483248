"""The part of an audit's result that travels with a release: verdict, table and controls.

Only figures about whole groups pass: an entry for each patient, were there one in the result, has no place here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...common.errors import DataError
from ...common.labels.chain import Sha256
from ...common.one_line import ONE_LINE
from ...common.run_result import NamedBy
from ..evidence import BATTERY, ReleaseKind
from ..policy import Tier
from ..verdict import Outcome

Word = Annotated[str, Field(max_length=120), ONE_LINE]
Sentence = Annotated[str, Field(max_length=800), ONE_LINE]
Figure = bool | int | float | None | Word | Annotated[tuple[float | None, ...], Field(max_length=2)]
LARGEST_COUNT = 10**9
"""Of patients, maps or steps: more are nobody's, and a number without an end ends in no figure."""
Number = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Cell = Number | Literal["<20"]
"""How many patients, where they are twenty or more or nobody outside the site reads it."""
Count = Cell | Annotated[dict[Word, Cell], Field(max_length=32)]
_ROUNDING = 0.05
"""How far rounding of a small group's figures may move one past the end of its interval."""
Probability = Annotated[float, Field(ge=0, le=1)]


EarlierPValues = Annotated[dict[Word, Probability], Field(max_length=200)]


class _Extract(BaseModel):
    # What is not listed is left out, and not an error: the result file holds more than may travel.
    # NaN is neither above a threshold nor below it: no figure is one.
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class TprRow(_Extract):
    """True positives at one rate of false alarms."""

    fpr: Probability
    tpr: Probability
    ci: tuple[Probability, Probability] | None = None
    resolvable: bool | None = None
    fpr_bound: Probability | None = None


class AttackRow(_Extract):
    """One line of the attack table; intervals are (low, high)."""

    id: Word
    threat_model: Word
    auc: Probability | None
    auc_ci: tuple[Probability | None, Probability | None] | None = None
    tpr: Probability | Annotated[tuple[TprRow, ...], Field(max_length=8)] | None = None
    eps_lower_bound: Annotated[float, Field(ge=0)] | None = None
    p_value: Probability | None = None
    no_false_alarm_p_value: Probability | None = None
    auc_lower95: Probability | None = None
    auc_upper95: Probability | None = None
    rejects: bool | None = None
    rejects_alone: bool | None = None
    n_member: Cell | None = None
    n_holdout: Cell | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.auc_ci or (None, None)
        for below, above in ((low, high), (low, self.auc), (self.auc, high), (self.auc_lower95, self.auc_upper95)):
            if below is not None and above is not None and below > above + _ROUNDING:
                raise ValueError("an interval that does not hold its figure")
        return self


class ControlRow(_Extract):
    """One control: what it had to show, and what it showed."""

    id: Word
    required: Figure
    got: Figure
    ok: bool | None


class ReasonRow(_Extract):
    """Why a threshold is not its tier's: the reason, who decided, and on which day."""

    reason: Annotated[Sentence, Field(min_length=1)]
    by: Annotated[Word, Field(min_length=1)]
    on: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]


class PolicyRow(_Extract):
    """The thresholds it was judged by; one other than its tier's counts only with a reason."""

    formal_epsilon_max: float | None = None
    formal_epsilon_binds: bool | None = None
    auc_upper_max: float | None = None
    tpr_lower_max: float | None = None
    outlier_auc_upper_max: float | None = None
    linkage_upper_max: float | None = None
    min_holdout: Number | None = None
    label_carriers_min: Number | None = None
    reasons: Annotated[dict[Word, ReasonRow], Field(max_length=16)] = Field(default_factory=dict)


class EpsilonMeans(_Extract):
    """What every ε of the table is, and is not."""

    kind: Sentence
    delta: Annotated[float, Field(gt=0, lt=1)]
    unit: Word
    adjacency: Word


class CopiedLabelsRow(_Extract):
    """Released label maps that are a patient's own: how many maps, no number of patients."""

    released: Number
    member: Number
    holdout: Number


class AuditExtract(_Extract):
    """``audit.json`` of a release; keys as ``audit run --json`` prints them.

    An audit that does not say which channels it read, or whose parameters, supports no release.

    Raises:
        DataError: on reading, an audit by another battery of attacks than this program's.
    """

    battery: int
    verdict: Outcome
    tier: Tier
    release: ReleaseKind
    generator_sha256: Sha256
    parameters_sha256: Sha256 | None = None
    channels: Annotated[tuple[Word, ...], Field(max_length=64)] = ()
    attacks: tuple[AttackRow, ...] = Field(max_length=200)
    controls: tuple[ControlRow, ...] = Field(max_length=200)
    counts: Annotated[dict[Word, Count], Field(max_length=64)]
    reasons: Annotated[tuple[Sentence, ...], Field(max_length=64)] = ()
    policy: PolicyRow | None = None
    audit_number: Annotated[int, Field(ge=1, le=LARGEST_COUNT)] | None = None
    claim_confidence: float | None = None
    earlier_audits: Annotated[tuple[EarlierPValues | None, ...], Field(max_length=10_000)] = ()
    too_small: Annotated[tuple[Word, ...], Field(max_length=16)] = ()
    not_applicable: Annotated[dict[Word, Sentence], Field(max_length=16)] = Field(default_factory=dict)
    negative_seeds: Number | None = None
    target_steps: Number | None = None
    control_steps: Number | None = None
    confirmed_copies: Number | None = None
    copied_members: Cell | None = None
    copied_labels: CopiedLabelsRow | None = None
    claimed_epsilon: Annotated[float, Field(ge=0)] | None = None
    canary_excess: bool | None = None
    epsilon_means: EpsilonMeans | None = None
    synthetic_sha256: Sha256 | None = None
    code_sha256: Sha256 | None = None
    generator_named_by: NamedBy | None = None
    combined_from: Annotated[tuple[Sha256, ...], Field(max_length=1000)] = ()

    @model_validator(mode="before")
    @classmethod
    def _refuse_other_battery(cls, table: Any) -> Any:
        if isinstance(table, Mapping) and {"verdict", "attacks"} <= table.keys() and table.get("battery") != BATTERY:
            raise DataError(
                "an audit by other attacks than this program's: of an earlier version, or a later one",
                expected=f"the result of battery {BATTERY}",
                remedy="Run 'fedphantom audit run' again, with this version: that audit says nothing of its attacks.",
            )
        return table

    def encode(self) -> bytes:
        """The file's bytes."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n").encode()
