"""The study: what is trained, on which grid, under which privacy promise (``study.toml``).

Parsed once at the edge, frozen, and passed inward. Its hash (:func:`Study.digest`) names it in
checkpoints, audits and releases.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from .errors import ConfigError, about
from .federation import FederationTable as FederationTable
from .labels.remapping import Remapping, remapping_problem
from .misfit import first_misfit
from .one_line import ONE_LINE
from .promise import PromiseTable, Start
from .study_table import Fraction, LabelName, Positive, StudyTable, without_nothing
from .toml_text import parse_toml
from .volumes.grid import Grid

LARGEST_GRID = 512**3
"""Voxels; no scan that a network could hold has more."""

Interval = tuple[float, float]

SMALLEST_AXIS = 8
"""Voxels; the networks halve an axis up to three times."""


class GridTable(StudyTable):
    """The grid that every scan is brought to."""

    shape: tuple[Positive, Positive, Positive]
    """Voxels (X, Y, Z), 8 or more each, one of them 16 or more; whatever the networks' halvings need they add and take
    away themselves."""
    spacing_mm: tuple[float, float, float]
    resample_labels: bool = False
    """Whether a folder of label maps on another grid is brought to this one; otherwise it is refused."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(n < SMALLEST_AXIS for n in self.shape):
            raise ValueError(f"grid.shape {self.shape}: every axis must have {SMALLEST_AXIS} voxels or more")
        if math.prod(self.shape) > LARGEST_GRID:
            raise ValueError(f"grid.shape {self.shape}: more than {LARGEST_GRID} voxels")
        if any(not 0 < mm < 50 for mm in self.spacing_mm):
            raise ValueError(f"grid.spacing_mm {self.spacing_mm}: every axis must lie in (0, 50)")
        return self


class LesionTable(StudyTable):
    """Uniform ranges [low, high] from which the sampler draws its tumours, and ``insert`` in a recipe."""

    radius_mm: Interval = (14.0, 22.0)
    """Of the whole tumour, oedema included."""
    core_share: Interval = (0.55, 0.7)
    """Radius of rim and necrosis over the whole radius."""
    necrosis_share: Interval = (0.5, 0.65)
    """Radius of the necrosis over that of the rim."""
    irregularity: Interval = (0.1, 0.25)
    """Standard deviation of the logarithm of the radius."""
    depth_mm: Interval = (18.0, 45.0)
    """Distance of the centre from the brain's surface; where none lies so deep, the nearest depth is taken."""
    centre_mm: tuple[Interval, Interval, Interval] = ((-200.0, 200.0), (-200.0, 200.0), (-200.0, 200.0))
    """Where the centre may lie, from the grid's centre along (X right, Y anterior, Z superior)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        limits = {
            "radius_mm": (0.5, 100.0),
            "core_share": (0.05, 0.95),
            "necrosis_share": (0.05, 0.95),
            "irregularity": (0.0, 1.0),
            "depth_mm": (0.0, 200.0),
        }
        for name, (least, most) in limits.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(f"lesion.{name} [{low:g}, {high:g}]: must rise and lie in {least:g} to {most:g}")
        if any(not -1000 <= low <= high <= 1000 for low, high in self.centre_mm):
            raise ValueError("lesion.centre_mm: each of the three ranges must rise and lie in -1000 to 1000")
        return self


class PublicLabelsTable(StudyTable):
    """Where public label maps come from, and how far they are varied (DESIGN §4.5)."""

    source: Literal["atlas", "folder"]
    """``atlas``: MNI152 tissue maps as nilearn ships them. ``folder``: a cohort's label maps."""
    name: Annotated[str, ONE_LINE] = "MNI152 (nilearn)"
    licence: Annotated[str, ONE_LINE] = "see nilearn"
    citation: Annotated[str, ONE_LINE] = ""
    rotation_deg: float = Field(default=6.0, ge=0, le=45)
    scale: float = Field(default=0.08, ge=0, le=0.5)
    """Each axis is scaled by a factor from 1 - scale to 1 + scale."""
    shift_mm: float = Field(default=2.0, ge=0, le=50)
    displacement_mm: float = Field(default=1.0, ge=0, le=20)
    """Standard deviation of the smooth displacement."""
    smoothness_mm: float = Field(default=12.0, gt=0, le=200)
    """Standard deviation of the Gaussian that smooths the displacement."""
    lesion_probability: float = Field(default=1.0, ge=0, le=1)
    """For ``atlas``: the share of label maps with a tumour."""
    lesion: LesionTable = LesionTable()
    """For ``atlas``: sizes and places of the tumours."""


Maps = Literal["labels-to-images", "images-to-labels"]
"""What a study's generator makes of what."""


class NetworkTable(StudyTable):
    """What generator and discriminator are for, and their size."""

    maps: Maps = "labels-to-images"
    """``images-to-labels``: the same networks the other way, for anatomy that a cohort does not label."""
    preset: Literal["tiny", "small", "base"] = "small"
    overlay: tuple[str, ...] = ()
    """For ``images-to-labels``: labels that are never inferred, but laid over what is; tumours that hospitals draw."""


class PatchTable(StudyTable):
    """Training on boxes cut from the scans, for volumes that no memory holds a batch of."""

    shape: tuple[Positive, Positive, Positive]
    """Voxels (X, Y, Z), 16 or more each, none more than the grid's."""
    foreground: float = Field(default=0.67, ge=0, le=1)
    """Share of the boxes centred on a voxel of a label that is drawn first, every label of the scan being as likely:
    small structures are seen as often as large ones. The others lie anywhere."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(n < 2 * SMALLEST_AXIS for n in self.shape):
            raise ValueError(f"training.patch.shape {self.shape}: every axis must have {2 * SMALLEST_AXIS} or more")
        return self


class TrainingTable(StudyTable):
    """Objective and schedule of every site's training."""

    objective: Literal["paired", "adversarial"] = "paired"
    """``paired``: the generator also sees what it is to make, scan by scan. ``adversarial``: it sees public label maps
    and the discriminator's judgement alone, so that what is promised of the discriminator holds for it (PRIVACY §1.1).
    """
    start: Start | None = None
    """The public start file that both networks begin with, trained on public scans alone; ``adversarial`` needs one and
    takes its public label maps from it, ``paired`` may name one."""
    rounds: Positive = 10
    local_steps: Positive = 100
    """Optimiser steps at each site in each round."""
    batch: Positive = 2
    """Scans a step."""
    generator_lr: float = Field(default=4e-3, gt=0)
    """Of the first half of the steps; it then falls linearly to nothing, as the discriminator's does."""
    discriminator_lr: float = Field(default=4e-4, gt=0)
    patch: PatchTable | None = None
    """Whole volumes where it is left out."""
    l1_weight: float = Field(default=10.0, ge=0)
    label_weight: float = Field(default=10.0, ge=0)
    """For ``images-to-labels``: of cross-entropy plus Dice, in place of L1."""
    feature_matching_weight: float = Field(default=2.0, ge=0)

    @model_serializer(mode="wrap")
    def _without_nothing(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_nothing(serialise(self))


class RolesTable(StudyTable):
    """Shares of a site's patients, drawn in this order (PRIVACY §3.1)."""

    test: Fraction = 0.2
    reference: Fraction = 0.0
    control: Fraction = 0.1
    audit: Fraction = 0.4
    """Patients who each get a fair coin: member or holdout."""
    validation: Fraction = 0.1
    """Share of the unaudited members kept for tuning."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.test + self.reference + self.control + self.audit > 0.95:
            raise ValueError("roles: test + reference + control + audit leave under 5 % of the patients as members")
        return self


class PrivacyTable(StudyTable):
    """The study's privacy promise."""

    dp: Literal["none", "patient-level"] = "none"
    """``none`` is said as loudly as any ε: this study makes no differential-privacy promise."""
    promise: PromiseTable | None = None
    """For ``patient-level``."""
    trained_on: Literal["private", "public"] = "private"
    """``public``: every site's patients must be marked public, or the site refuses. Said in the weights file."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dp == "patient-level" and self.promise is None:
            raise ValueError("privacy.promise: is left out; dp = 'patient-level' means nothing without its ε and δ")
        if self.dp == "none" and self.promise:
            raise ValueError("privacy.promise: stands beside dp = 'none', which keeps none; say dp = 'patient-level'")
        if self.promise and self.trained_on == "public":
            raise ValueError("privacy.dp: public patients need no promise; train on them with dp = 'none'")
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_nothing(serialise(self))


class Study(StudyTable):
    """A parsed ``study.toml``."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    channels: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")], ...] = Field(min_length=1)
    """MRI channels in the generator's output order."""
    labels: dict[LabelName, Annotated[int, Field(ge=0, le=255)]]
    """Label name to value in the files; must hold ``background = 0``."""
    regions: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Composite structures for evaluation, e.g. ``whole = [1, 2]``."""
    remapping: Remapping = Field(default_factory=dict)
    """Label name to the values that mean it in the cohorts' files, where those are not the study's own."""
    grid: GridTable
    public_labels: PublicLabelsTable = PublicLabelsTable(source="atlas")
    network: NetworkTable = NetworkTable()
    training: TrainingTable = TrainingTable()
    federation: FederationTable = FederationTable()
    roles: RolesTable = RolesTable()
    privacy: PrivacyTable = PrivacyTable()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.channels)) != len(self.channels):
            raise ValueError("channels: a name is given twice")
        values = list(self.labels.values())
        if self.labels.get("background") != 0 or len(set(values)) != len(values) or len(values) < 2:
            raise ValueError("labels: need 'background = 0', at least one other label, and no value twice")
        patch = self.training.patch
        if patch and any(n > whole for n, whole in zip(patch.shape, self.grid.shape, strict=True)):
            raise ValueError(f"training.patch.shape {patch.shape}: larger than grid.shape {self.grid.shape}")
        if max(self.grid.shape) < 2 * SMALLEST_AXIS and (self.network.preset != "tiny" or self.training.batch == 1):
            # Nothing is left to normalise over where the last halving leaves a single voxel.
            raise ValueError(
                f"grid.shape {self.grid.shape}: one axis must have {2 * SMALLEST_AXIS} voxels or more; below it"
                " network.preset 'tiny' with training.batch 2 or more is the only one that works"
            )
        for name, members in self.regions.items():
            if name in self.labels or not members or not set(members) <= set(values) - {0}:
                raise ValueError(f"regions.{name}: needs its own name and one or more foreground label values")
        self._check_sharing()
        self._check_objective()
        if self.remapping and (problem := remapping_problem(self.remapping, self.labels)):
            raise ValueError(problem)
        self._check_overlay()
        return self

    def _check_sharing(self) -> None:
        sharing = self.federation.sharing
        if self.federation.alone and self.training.rounds != 1:
            raise ValueError(
                f"training.rounds: sites that share {sharing} train in one round, of training.local_steps steps"
            )
        if sharing == "volumes" and self.network.maps == "images-to-labels":
            raise ValueError("federation.sharing = 'volumes': a network that maps images to labels paints none")

    def _check_objective(self) -> None:
        adversarial, promised = self.training.objective == "adversarial", self.privacy.promise is not None
        if self.privacy.promise:
            self.privacy.promise.refuse_endless(self.training.rounds, self.training.local_steps)
        if promised and not adversarial:
            raise ValueError(
                "training.objective = 'paired': its losses compare the generator's volumes with patients' scans, so no"
                " differential privacy is possible; with privacy.dp = 'patient-level' it must be 'adversarial'"
            )
        if adversarial and not promised:
            raise ValueError(
                "training.objective = 'adversarial': is the way to privacy.dp = 'patient-level', and needs it"
            )
        if adversarial and self.network.maps == "images-to-labels":
            raise ValueError("network.maps = 'images-to-labels': such a network is trained on paired scans alone")
        if self.training.start and self.network.maps == "images-to-labels":
            raise ValueError("training.start: a network that maps images to labels goes out from no public start")

    def _check_overlay(self) -> None:
        overlay = set(self.network.overlay)
        if overlay and self.network.maps == "labels-to-images":
            raise ValueError("network.overlay: only a network that maps images to labels leaves labels out")
        if not overlay <= self.labels.keys() - {"background"} or len(self.labels) - len(overlay) < 2:
            raise ValueError("network.overlay: needs names of [labels], not all of them, and not background")

    def volume_grid(self) -> Grid:
        """The grid of every prepared and generated volume."""
        return Grid(self.grid.shape, self.grid.spacing_mm)

    @property
    def from_public_start(self) -> bool:
        """Whether its networks begin as a public start left them: where it names one, and where it has to."""
        return self.training.objective == "adversarial" or self.training.start is not None

    @property
    def label_values(self) -> tuple[int, ...]:
        """Label values in file, ascending; position in this tuple is the class index."""
        return tuple(sorted(self.labels.values()))

    @property
    def inferred_labels(self) -> tuple[int, ...]:
        """Label values that a network from images to labels infers, ascending: all that are not laid over."""
        overlay = {self.labels[name] for name in self.network.overlay}
        return tuple(value for value in self.label_values if value not in overlay)

    @property
    def stored_values(self) -> frozenset[int]:
        """Label values that a cohort's files may hold."""
        return frozenset(v for values in self.remapping.values() for v in values) or frozenset(self.label_values)

    def paired(self) -> Study:
        """The study as networks are trained for which nothing is promised: the audit's controls, public generators."""
        training = self.training.model_copy(update={"objective": "paired", "start": None})
        privacy = self.privacy.model_copy(update={"dp": "none", "promise": None})
        return self.model_copy(update={"training": training, "privacy": privacy})

    def without_remapping(self) -> Study:
        """The study as it reads what FedPhantom itself wrote: label maps that hold the study's own values already."""
        return self.model_copy(update={"remapping": {}})

    @property
    def evaluation_regions(self) -> dict[str, tuple[int, ...]]:
        """Name to label values: every foreground label alone, then the composite regions."""
        single = {name: (value,) for name, value in sorted(self.labels.items(), key=lambda kv: kv[1]) if value}
        return single | dict(self.regions)

    def canonical(self) -> str:
        """The study as JSON, one text for one study."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def digest(self) -> str:
        """SHA-256 (hex) of the study's canonical JSON."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()


def differing_keys(one: Study, other: Study) -> tuple[str, ...]:
    """Keys whose values differ, as the file names them: ``training.rounds``."""
    ours, theirs = one.model_dump(mode="json"), other.model_dump(mode="json")
    keys = []
    for name, value in ours.items():
        if isinstance(getattr(one, name), StudyTable):
            # A key that holds nothing is left out of its table.
            keys += [f"{name}.{k}" for k in value | theirs[name] if value.get(k) != theirs[name].get(k)]
        elif value != theirs[name]:
            keys.append(name)
    return tuple(keys)


def parse_study(text: str) -> Study:
    """Parse and validate TOML text.

    Raises:
        ConfigError: not TOML, an unknown key, or a value outside its range; the key is named.
    """
    try:
        return Study.model_validate(parse_toml(text))
    except ValidationError as error:
        misfit = first_misfit(error)
        raise ConfigError(
            (f"study key '{misfit.key}'" if misfit.key else "the study") + misfit.found,
            expected=misfit.expected,
            remedy="Mend it; 'fedphantom study new' writes every key explained, 'study check' reads the file again.",
        ) from None
    except ValueError as error:
        raise ConfigError(
            f"the study is not valid TOML: {error}", expected="TOML 1.0", remedy="Mend that line."
        ) from None


def read_study(path: Path) -> Study:
    """Read ``study.toml``. Raises ConfigError as :func:`parse_study`, also for a missing file; it names the file."""
    text = read_study_text(path)
    with about(named_file(path)):
        return parse_study(text)


def named_file(path: Path) -> str:
    """A study file as errors call it: by its own name, without the folders above it."""
    return f"'{(path.name or str(path))[:100]}'"


def read_study_text(path: Path) -> str:
    """The file's text, unparsed. Raises ConfigError where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        why, remedy = "it is not UTF-8 text", "Save it again as UTF-8."
    except OSError as error:
        whys = {FileNotFoundError: "there is none", IsADirectoryError: "it is a folder"}
        why = whys.get(type(error), "it may not be read")
        remedy = "Give the path of a study file, or make one with 'fedphantom study new STUDY.toml'."
    raise ConfigError(f"no readable study file {named_file(path)}: {why}", expected="a UTF-8 TOML file", remedy=remedy)
