"""A recipe: how label maps are edited, as a person writes it in TOML and as every edited map's chain carries it.

Every number may be a range: ``factor = [0.7, 1.4]`` is drawn anew for each variant, ``factor = 1.2`` is not. What has
a direction has three, along or about X, Y and Z: ``mm = [5, 0, 0]``, ``degrees = [0, 0, [-30, 30]]``.
Lengths are millimetres, or voxels where the key says so; angles are degrees.
"""

from __future__ import annotations

import math
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ..errors import ConfigError
from ..misfit import first_misfit
from ..study_table import LabelName
from ..toml_text import parse_toml, toml_text

Pair = tuple[float, float]


def _pair(value: object) -> object:
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("needs a number, or a range [low, high]")
    return value, value


def _vector(value: object) -> object:
    """Three ranges from three entries, or from one range that holds for every axis."""
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int | float) for v in value):
        return (tuple(value),) * 3
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError("a direction needs three entries, such as [5, 0, 0], or one range for all axes, [-5, 5]")
    return value


def _names(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _rising(pair: Pair) -> Pair:
    low, high = pair
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError("a range must be finite and rise")
    return pair


def _above_zero(pair: Pair) -> Pair:
    if pair[0] <= 0:
        raise ValueError("must be above 0")
    return pair


def _not_negative(pair: Pair) -> Pair:
    if pair[0] < 0:
        raise ValueError("must not be negative")
    return pair


def _up_to(most: float) -> AfterValidator:
    """No number farther from 0: what is larger than any head is a slip of the pen, and no grid would hold it."""

    def check(value: object) -> object:
        if any(abs(bound) > most for pair in _pairs(value) for bound in pair):
            raise ValueError(f"must not be more than {most:g}")
        return value

    return AfterValidator(check)


Interval = Annotated[Pair, BeforeValidator(_pair), AfterValidator(_rising)]
"""A number, or [low, high]: uniform."""
Size = Annotated[Interval, AfterValidator(_above_zero)]
Length = Annotated[Interval, AfterValidator(_not_negative)]
Vector = Annotated[tuple[Interval, Interval, Interval], BeforeValidator(_vector), _up_to(1000)]
"""One :data:`Interval` for each of (X right, Y anterior, Z superior), or [low, high] for all three alike."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Edit(_Table):
    probability: float = Field(default=1.0, gt=0, le=1)
    """Share of the variants in which this edit is made."""


class _OfBody(_Edit):
    lesion: Literal["largest", "random", "all"] = "largest"
    """Which lesion; ``all`` together as one body."""
    structure: Annotated[tuple[LabelName, ...], BeforeValidator(_names)] = ()
    """Edit these labels, or this one, as one body instead of a lesion."""


class Move(_OfBody):
    """Shift, by ``mm`` or by ``voxels``."""

    operation: Literal["move"]
    mm: Vector | None = None
    voxels: Vector | None = None
    """Whole voxels."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _exactly_one(mm=self.mm, voxels=self.voxels)
        if self.voxels and any(value % 1 for pair in self.voxels for value in pair):
            raise ValueError("voxels must be whole numbers")
        return self


class Scale(_OfBody):
    """Resize by a factor about the body's centroid, all axes alike: the volume changes by its cube."""

    operation: Literal["scale"]
    factor: Annotated[Size, _up_to(10)]


class Rotate(_OfBody):
    """Turn about the body's centroid: about X, then Y, then Z."""

    operation: Literal["rotate"]
    degrees: Vector


class Mirror(_Edit):
    """Reflect a lesion into the other hemisphere."""

    operation: Literal["mirror"]
    lesion: Literal["largest", "random", "all"] = "largest"


class Remove(_Edit):
    """Take a lesion out; ``all`` of a healthy map is none."""

    operation: Literal["remove"]
    lesion: Literal["largest", "random", "all"] = "largest"


class _OfPart(_Edit):
    part: LabelName
    """A part of a lesion, with all that lies inside it; or any other label."""
    lesion: Literal["largest", "random", "all"] = "largest"
    """Whose part."""
    mm: Annotated[Length, _up_to(100)] | None = None
    voxels: Annotated[Length, _up_to(100)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _exactly_one(mm=self.mm, voxels=self.voxels)
        return self


class Grow(_OfPart):
    """Move a part's surface outwards; what lies around it in the lesion gives way, but still surrounds it."""

    operation: Literal["grow"]


class Shrink(_OfPart):
    """Move a part's surface inwards; it still surrounds what lies inside it."""

    operation: Literal["shrink"]


class Insert(_Edit):
    """Put a procedural tumour into a brain; what is left out is drawn from the study's ``[public_labels.lesion]``."""

    operation: Literal["insert"]
    radius_mm: Annotated[Size, _up_to(100)] | None = None
    core_share: Size | None = None
    necrosis_share: Size | None = None
    irregularity: Annotated[Length, _up_to(1)] | None = None
    depth_mm: Annotated[Length, _up_to(200)] | None = None
    """Distance of the centre from the brain's surface."""
    centre_mm: Vector | None = None
    """The centre, from the grid's centre; then no depth is looked for."""
    centre_voxels: Vector | None = None
    """The centre as voxel indices, counted from 0."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _at_most_one(depth_mm=self.depth_mm, centre_mm=self.centre_mm, centre_voxels=self.centre_voxels)
        for name in ("core_share", "necrosis_share"):
            if (getattr(self, name) or (0, 0))[1] > 0.95:
                raise ValueError(f"{name} must be at most 0.95")
        return self


class Transplant(_Edit):
    """Put in a lesion that is taken from a donor map; where no place is named, at its place in the donor."""

    operation: Literal["transplant"]
    lesion: Literal["largest", "random", "all"] = "largest"
    """Of the donor."""
    depth_mm: Annotated[Length, _up_to(200)] | None = None
    """Distance of the lesion's centroid from the brain's surface."""
    centre_mm: Vector | None = None
    centre_voxels: Vector | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _at_most_one(depth_mm=self.depth_mm, centre_mm=self.centre_mm, centre_voxels=self.centre_voxels)
        return self


class Deform(_Edit):
    """Warp the whole map smoothly, lesions included."""

    operation: Literal["deform"]
    displacement_mm: Annotated[Length, _up_to(20)]
    smoothness_mm: Annotated[Size, _up_to(200)]


Edit = Annotated[
    Move | Scale | Rotate | Mirror | Remove | Grow | Shrink | Insert | Transplant | Deform,
    Field(discriminator="operation"),
]


class RecipeLabels(_Table):
    """What the study's labels are to a lesion, by name; what is left out is told from the names of a brain."""

    lesion: tuple[LabelName, ...] | None = None
    """A lesion's parts from the outermost to the innermost; default oedema, enhancing, necrosis."""
    host: tuple[LabelName, ...] | None = None
    """What a lesion may lie on; default everything but background, lesion and ``forbidden``."""
    forbidden: tuple[LabelName, ...] | None = None
    """What a lesion and a growing structure must leave; default csf. A lesion's core fills it where it is narrower
    than 6 mm, as a tumour fills sulci."""
    hemispheres: bool | None = None
    """Whether left mirrors right; default: where csf, grey and white are labelled."""


class Plausible(_Table):
    """What an edited body must be like; a variant that is not is drawn again.

    A warp is judged by each lesion that it leaves. A structure is refused too where it takes more than half of another
    label."""

    volume_ml: Annotated[Interval, AfterValidator(_not_negative), _up_to(5000)] = (0.05, 300.0)
    lost: float = Field(default=0.1, ge=0, lt=1)
    """Share of a body, and of a lesion's core, that may be lost: outside the brain, over what is forbidden, or cut off
    from the rest."""


class Recipe(_Table):
    """A parsed recipe. In an edited map's chain it stands in full."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    citation: Annotated[str, Field(min_length=1, max_length=500)]
    """Where its numbers come from: a public source, or chosen by hand; never private maps (DESIGN §4.5)."""
    labels: RecipeLabels = RecipeLabels()
    plausible: Plausible = Plausible()
    edit: tuple[Edit, ...] = Field(min_length=1)
    """In order. A move, scale and rotation of one body that follow each other are one motion, resampled once."""

    def to_toml(self) -> str:
        """Text that :func:`parse_recipe` reads back to the same recipe."""
        content = self.model_dump(mode="json", exclude_none=True)
        content["edit"] = [{"operation": edit["operation"]} | edit for edit in content["edit"]]
        return toml_text(content)

    @property
    def is_random(self) -> bool:
        """Whether two draws may differ."""
        return any(_is_random(edit) for edit in self.edit)

    @property
    def needs_donor(self) -> bool:
        """Whether a lesion comes from another map."""
        return any(isinstance(edit, Transplant) for edit in self.edit)


def parse_recipe(text: str) -> Recipe:
    """Parse and validate TOML text.

    Raises:
        ConfigError: not TOML, an unknown key or operation, a negative size, or another value that a key cannot
            have; the key is named.
    """
    try:
        return Recipe.model_validate(parse_toml(text))
    except ValidationError as error:
        misfit = first_misfit(error)
        raise ConfigError(
            f"recipe, {_place(misfit.where)}{misfit.found}",
            expected=_known_keys(misfit.where) if misfit.is_unknown_key else misfit.expected,
            remedy="Mend it; docs/recipes holds examples.",
        ) from None
    except ValueError as error:
        raise ConfigError(
            f"the recipe is not valid TOML: {error}", expected="TOML 1.0", remedy="Mend that line."
        ) from None


def read_recipe(path: Path) -> Recipe:
    """Read a recipe's file. Raises ConfigError as :func:`parse_recipe`, also for a missing file."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(
            f"'{path.name}' is not UTF-8 text",
            expected="a TOML file in UTF-8",
            remedy="Save it as UTF-8; docs/recipes holds examples.",
        ) from None
    except OSError:
        raise ConfigError(
            f"no file '{path.name}' at the path given" if not path.exists() else f"'{path.name}' cannot be read",
            expected="a recipe, a TOML file",
            remedy="Check the path and its permissions; docs/recipes holds examples.",
        ) from None
    return parse_recipe(text)


def _is_random(edit: Edit) -> bool:
    if isinstance(edit, Insert | Transplant | Deform) or edit.probability < 1:
        return True
    ranges = [pair for value in dict(edit).values() for pair in _pairs(value)]
    return getattr(edit, "lesion", "") == "random" or any(low < high for low, high in ranges)


def _pairs(value: object) -> list[Pair]:
    """The ranges in an interval or a vector."""
    match value:
        case (int() | float() as low, int() | float() as high):
            return [(low, high)]
        case (tuple() as x, tuple() as y, tuple() as z):
            return [x, y, z]
        case _:
            return []


def _place(where: tuple[int | str, ...]) -> str:
    """``("edit", 0, "scale", "factor")`` as "edit 1 (scale), 'factor'"."""
    match where:
        case ("edit", int(number)):
            return f"edit {number + 1}"
        case ("edit", int(number), str(operation)):
            return f"edit {number + 1} ({operation})"
        case ("edit", int(number), str(operation), key, *_):
            return f"edit {number + 1} ({operation}), '{key}'"
        case ():
            return "as a whole"
        case _:
            return f"'{'.'.join(str(part) for part in where)}'"


def _known_keys(where: tuple[int | str, ...]) -> str:
    """The keys that a table of a recipe can have, and which of them is nearest to the unknown one."""
    match where:
        case ("edit", int(), str(operation), *_):
            table = next(
                t for t in get_args(get_args(Edit)[0]) if operation in get_args(t.model_fields["operation"].annotation)
            )
        case ("labels", _):
            table = RecipeLabels
        case ("plausible", _):
            table = Plausible
        case _:
            table = Recipe
    known = list(table.model_fields)
    nearest = get_close_matches(str(where[-1]), known, n=1)
    return f"one of {', '.join(known)}{f'; nearest is {nearest[0]}' if nearest else ''}"


def _exactly_one(**choices: object) -> None:
    if sum(value is not None for value in choices.values()) != 1:
        raise ValueError(f"give exactly one of {' and '.join(choices)}")


def _at_most_one(**choices: object) -> None:
    if sum(value is not None for value in choices.values()) > 1:
        raise ValueError(f"give at most one of {', '.join(choices)}")
