"""What the report shows: parts that may each be missing, and what of them each rendition may show.

Evaluation and rounds are read from the JSON that the commands write, so that no wing needs another's types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...common.errors import DataError
from ...common.labels.chain import LabelSource
from ...common.study import Study
from ..audit.extract import AuditExtract, PolicyRow
from ..audit.small_cells import travelling
from ..dp.ledger_excerpt import LedgerExcerpt
from ..dp.statement import DpStatement
from ..evidence import SMALLEST_CELL
from ..label_making import LabelMaking
from ..policy import TIERS
from ..power import Power
from ..statistics import Floats
from .people import Kind, PeopleCounts

Rendition = Literal["internal", "shareable"]

_Model = TypeVar("_Model", bound=BaseModel)

Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, eq=False)
class RocCurve:
    """One attack's curve.

    Attributes:
        name: As the attack table names it.
        fpr: Shape (k,), ascending from 0 to 1.
        tpr: Shape (k,), ascending from 0 to 1.
        n_member: Members behind it.
        n_holdout: Holdout patients behind it.
    """

    name: str
    fpr: Floats
    tpr: Floats
    n_member: int
    n_holdout: int

    def __post_init__(self) -> None:
        both = np.stack([self.fpr, self.tpr]) if self.fpr.shape == self.tpr.shape else np.empty((2, 0))
        if both.ndim != 2 or both.shape[1] < 2 or not ((both >= 0) & (both <= 1)).all() or (np.diff(both) < 0).any():
            raise _unfit(f"a ROC curve of shapes {self.fpr.shape} and {self.tpr.shape}", "two ascending rows of shares")
        if self.n_member < 1 or self.n_holdout < 1:
            raise _unfit("a ROC curve of no patients", "one or more on either side")


MOST_LIKE = "the scan most like it"
COPIED = "the scan that the audit found it to be a copy of"


@dataclass(frozen=True)
class SyntheticSample:
    """Volumes to look at.

    Attributes:
        volumes: Shape (n, C, X, Y, Z), any intensity unit; channels in the study's order.
        labels: Shape (n, X, Y, Z), label values as in the study.
        nearest: Shape (n, C, X, Y, Z): beside each volume the scan most like it, or that it copies; internal page only.
        nearest_procedural: Of each of these whether its patient is known to be procedural; unknown counts as real.
        numbers: Of each volume among all, from 1; the first ones where it is left out.
        accused: Of each whether the audit found it a copy of the scan beside it; none where it is left out.
    """

    volumes: NDArray[np.float32]
    labels: NDArray[np.uint8]
    nearest: NDArray[np.float32] | None = None
    nearest_procedural: tuple[bool, ...] = ()
    numbers: tuple[int, ...] = ()
    accused: tuple[bool, ...] = ()

    def number(self, index: int) -> int:
        """Of a volume among all, from 1."""
        return self.numbers[index] if self.numbers else index + 1

    def is_accused(self, index: int) -> bool:
        """Whether the audit found this volume a copy of the scan beside it."""
        return index < len(self.accused) and self.accused[index]

    def beside(self, index: int) -> str:
        """What the scan beside this volume is to it."""
        return COPIED if self.is_accused(index) else MOST_LIKE

    def shows_real(self) -> bool:
        """Whether a scan is among them that a person may have lain in the scanner for."""
        return self.nearest is not None and not all(map(self.nearest_is_procedural, range(len(self.nearest))))

    def nearest_is_procedural(self, index: int) -> bool:
        """Whether no person was scanned for the scan beside this volume."""
        return index < len(self.nearest_procedural) and self.nearest_procedural[index]


class _Read(BaseModel):
    # The files hold more than the page shows.
    model_config = ConfigDict(extra="ignore", frozen=True)


class ReportPolicy(PolicyRow):
    """The thresholds that the audit was judged by, and why any differs from its tier's."""

    auc_upper_max: float | None
    outlier_auc_upper_max: float | None
    min_holdout: int


class ReportAudit(AuditExtract):
    """``audit run --json``: what travels with a release, and what only the page says.

    Attributes:
        policy: None where the file does not say: then the tier's own thresholds.
        power: What its size could show; None where the file does not say.
        reference_stands_in: Who stood in for reference or control patients.
    """

    policy: ReportPolicy | None = None
    power: Power | None = None
    reference_stands_in: str | None = None

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Self:
        """From the parsed JSON. Raises DataError, naming the key."""
        return _read(cls, table, "fedphantom audit run --json")

    def leaving(self) -> Self:
        """What of it may leave the site; what follows from fewer than twenty patients on a side stays."""
        few = self.power is not None and min(self.power.n_member, self.power.n_holdout) < SMALLEST_CELL
        return travelling(self).model_copy(update={"power": None} if few else {})

    def thresholds(self) -> ReportPolicy:
        """What the attacks are held against."""
        return self.policy or ReportPolicy.model_validate(asdict(TIERS[self.tier]))


class _Curved(_Read):
    id: str
    n_member: int
    n_holdout: int
    roc: tuple[tuple[float, float], ...]


class _Curves(_Read):
    attacks: tuple[_Curved, ...]


def read_roc(table: Mapping[str, Any]) -> tuple[RocCurve, ...]:
    """The curves in ``audit run --json``. Raises DataError, naming the key."""
    curves = []
    for row in _read(_Curves, table, "fedphantom audit run --json").attacks:
        fpr, tpr = np.array(row.roc, dtype=np.float64).reshape(-1, 2).T
        curves.append(RocCurve(row.id, fpr, tpr, row.n_member, row.n_holdout))
    return tuple(curves)


class ReportFigure(_Read):
    """A mean over test patients with its 95 % interval."""

    mean: Share
    ci: tuple[Share, Share]
    n_test: int


class ReportArm(_Read):
    """One arm of ``evaluate --json``."""

    name: str
    scans: int | None = None
    dice: ReportFigure
    per_label: dict[str, ReportFigure] = Field(default_factory=dict)


class ReportEvaluation(_Read):
    """``evaluate --json``; without ``ratio_to_real`` a ratio is that of the means, and has no interval."""

    arms: tuple[ReportArm, ...] = Field(min_length=1)
    region: str = "foreground"
    ratio_to_real: dict[str, ReportFigure] = Field(default_factory=dict)

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Self:
        """From the parsed JSON. Raises DataError, naming the key."""
        return _read(cls, table, "fedphantom evaluate --json")

    def over_enough(self) -> Self | None:
        """Means over so many test patients that they may be told; None where no arm has one."""

        def told(figures: Mapping[str, ReportFigure]) -> dict[str, ReportFigure]:
            return {name: figure for name, figure in figures.items() if figure.n_test >= SMALLEST_CELL}

        arms = tuple(
            arm.model_copy(update={"per_label": told(arm.per_label)})
            for arm in self.arms
            if arm.dice.n_test >= SMALLEST_CELL
        )
        return self.model_copy(update={"arms": arms, "ratio_to_real": told(self.ratio_to_real)}) if arms else None


class ReportRound(_Read):
    """One entry of ``summary.json``'s ``rounds``.

    Attributes:
        round: 1-based.
        sites: Sites whose replies were averaged.
        left_out: Sites left out, with the reason, which the page does not show; of a round given up, who failed in it.
        metrics: Figures on synthetic volumes alone.
        seconds: How long it took.
        given_up: Why the round's sum could not be had; empty where it was.
        named: Whether ``sites``, ``left_out`` and ``given_up`` hold names; else numbers that mean nothing beyond the
            round, and no reason.
    """

    round: int
    sites: tuple[str, ...]
    left_out: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    seconds: float | None = None
    given_up: str = ""
    named: bool = True

    def without_names(self) -> Self:
        """How many took part and how many did not: nobody can be followed from round to round."""
        there, everyone = len(self.sites), len(self.sites) + len(self.left_out)
        numbers = tuple(map(str, range(1, everyone + 1)))
        left_out = dict.fromkeys(numbers[there:], "")
        given_up = "withheld" if self.given_up else ""
        names = {"sites": numbers[:there], "left_out": left_out, "given_up": given_up, "named": False}
        return self.model_copy(update=names)

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Self:
        """From the parsed JSON. Raises DataError, naming the key."""
        return _read(cls, table, "fedphantom simulate")


@dataclass(frozen=True)
class ReleaseOutcome:
    """What the gate decided.

    Attributes:
        packed: Whether a release was packed.
        tier: Whom it is, or would have been, meant for.
        kind: ``volumes`` or ``weights``.
        reasons: Why it was refused.
    """

    packed: bool
    tier: str
    kind: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ReportContent:
    """Everything the page may show.

    Attributes:
        title: Heading.
        study: What was trained.
        created: When the page was made, as it is to be printed.
        software: Name and version.
        generator_sha256: Of ``generator.safetensors``.
        facts: Name to value, shown in this order in both renditions: no site's name among them.
        audit: None: none was run.
        roc: One curve an attack.
        evaluation: None: none was run, or it is withheld.
        audit_sha256: Of the audit's result file; None where the page was made without one.
        promise: The generator's formal promise; None where there is none.
        ledgers: What the sites' ledgers say of it, of every site whose folder was at hand.
        evaluation_withheld: It was run on too few patients for its figures to be told.
        rounds: In order.
        synthetic: None: none were generated.
        release: None: none was asked for.
        label_sources: Where label maps come from, as ``public-labels.json`` declares.
        label_making: How those of the synthetic volumes were made, by their chains; None where nobody counted.
        simulated: Whether all sites lay on one machine.
        people: How many patients of the study are persons; where nobody counted, all of them.
        times: Stage to seconds, in order.
        times_note: What a reader of the times has to know.
    """

    title: str
    study: Study
    created: str
    software: str
    generator_sha256: str
    facts: Mapping[str, str] = field(default_factory=dict)
    audit: ReportAudit | None = None
    roc: tuple[RocCurve, ...] = ()
    evaluation: ReportEvaluation | None = None
    rounds: tuple[ReportRound, ...] = ()
    synthetic: SyntheticSample | None = None
    release: ReleaseOutcome | None = None
    label_sources: tuple[LabelSource, ...] = ()
    label_making: LabelMaking | None = None
    simulated: bool = False
    people: PeopleCounts | None = None
    times: Mapping[str, float] = field(default_factory=dict)
    times_note: str = ""
    evaluation_withheld: bool = False
    promise: DpStatement | None = None
    audit_sha256: str | None = None
    ledgers: tuple[LedgerExcerpt, ...] = ()

    @property
    def kind(self) -> Kind:
        """Whom the study's scans show."""
        return self.people.kind if self.people else "real"

    def __post_init__(self) -> None:
        sample = self.synthetic
        if sample is None:
            return
        expected = (len(sample.volumes), len(self.study.channels), *self.study.grid.shape)
        beside = sample.volumes if sample.nearest is None else sample.nearest
        if not (
            sample.volumes.shape == beside.shape == expected and sample.labels.shape == expected[:1] + expected[2:]
        ):
            raise _unfit(
                f"volumes to show of shape {sample.volumes.shape} with labels of shape {sample.labels.shape}",
                f"(n, {len(self.study.channels)}, X, Y, Z) and (n, X, Y, Z) on the grid {self.study.grid.shape}",
            )
        if not (np.isfinite(sample.volumes).all() and np.isfinite(beside).all()):
            raise _unfit("volumes to show with non-finite voxels", "finite intensities")

    def shareable(self) -> ReportContent:
        """Without any patient's voxel, any site's name, and a number of real patients under twenty or what tells it.

        A curve of so few patients is nearly a list of them: it is left out, and so is a mean over fewer than twenty, as
        in every file of figures. Nobody stands behind a procedural patient: figures about those are told however few.
        Which hospital took part in a study, or dropped out of it, is for that hospital to tell.
        """
        audit = self.audit if self.kind == "procedural" else self.audit and self.audit.leaving()
        evaluation = self.evaluation if self.kind == "procedural" else self.evaluation and self.evaluation.over_enough()
        return replace(
            self,
            audit=audit,
            evaluation=evaluation,
            evaluation_withheld=self.evaluation is not None and evaluation is None,
            synthetic=self.synthetic and replace(self.synthetic, nearest=None, nearest_procedural=(), accused=()),
            roc=tuple(curve for curve in self.roc if min(curve.n_member, curve.n_holdout) >= SMALLEST_CELL),
            rounds=tuple(entry.without_names() for entry in self.rounds),
            # In an order that has nothing to do with their names.
            ledgers=tuple(
                replace(excerpt.shareable(), site=f"Site {number}")
                for number, excerpt in enumerate(sorted(self.ledgers, key=lambda one: one.head), start=1)
            ),
        )


def _read(kind: type[_Model], table: Mapping[str, Any], writer: str) -> _Model:
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_url=False, include_input=False)[0]["loc"])) or "content"
        raise DataError(
            f"a result whose '{where}' cannot be shown",
            expected=f"what '{writer}' writes",
            remedy="Give that file, or make it again.",
        ) from None


def _unfit(found: str, expected: str) -> DataError:
    return DataError(found, expected=expected, remedy="Make the report from the files of one finished run.")
