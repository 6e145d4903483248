"""What a recipe's names mean in a study: which values are lesion, host, forbidden; what is plausible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..counted import counted
from ..errors import ConfigError
from ..labels.brain import BrainLabels, brain_labels
from ..labels.lesion import LesionRanges, Range, lesion_ranges
from ..labels.recipe import Grow, Insert, Mirror, Move, Recipe, Rotate, Scale, Shrink, Transplant
from ..study import Study
from ..volumes.grid import Spacing

_LESION = ("oedema", "enhancing", "necrosis")
_TISSUES = ("csf", "grey", "white")


@dataclass(frozen=True, kw_only=True)
class EditTerms:
    """A recipe's terms, in label values.

    Attributes:
        parts: A lesion's parts, outermost first; may be empty.
        host: What a lesion may lie on.
        forbidden: What lesions and growing structures leave as it is.
        hemispheres: Whether left mirrors right.
        is_brain: Whether the study's tissues are a brain's, so that background is what lies outside it.
        volume_ml: Least and largest volume of an edited body.
        lost: Largest share of a body that may be lost where it lands.
        labels: Label name to value.
        spacing_mm: Voxel size along (X, Y, Z).
        brain: Values of the brain's tissues, where the recipe inserts procedural tumours.
        ranges: What those are drawn from, where the recipe does not say.
    """

    parts: tuple[int, ...]
    host: tuple[int, ...]
    forbidden: tuple[int, ...]
    hemispheres: bool
    is_brain: bool
    volume_ml: Range
    lost: float
    labels: Mapping[str, int]
    spacing_mm: Spacing
    brain: BrainLabels | None
    ranges: LesionRanges

    def is_lesion(self, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Where a lesion's parts are."""
        return np.isin(labels, self.parts)

    def millilitres(self, voxels: int) -> float:
        """Volume of so many voxels."""
        x, y, z = self.spacing_mm
        return voxels * x * y * z / 1000

    def volume_in_words(self, voxels: int) -> str:
        """As in "1.25 ml (10 voxels)"."""
        return f"{self.millilitres(voxels):.3g} ml ({counted(voxels, 'voxel')})"


def edit_terms(recipe: Recipe, study: Study) -> EditTerms:
    """The recipe's terms in a study.

    Raises:
        ConfigError: a label that the study does not name; a label in two roles; an edit of lesions where no label
            is one, or an insertion or reflection without the brain it needs.
    """
    names, table = study.labels, recipe.labels
    named = [name for edit in recipe.edit for name in _names_of(edit)]
    for given in (table.lesion, table.host, table.forbidden, named):
        _check_known(given or (), names)
    lesion = table.lesion if table.lesion is not None else (_LESION if set(_LESION) <= set(names) else ())
    forbidden = table.forbidden if table.forbidden is not None else tuple({"csf"} & set(names))
    host = table.host
    if host is None:
        host = tuple(name for name in names if name not in (*lesion, *forbidden, "background"))
    if len({*lesion, *forbidden, *host}) < len(lesion) + len(forbidden) + len(host) or "background" in lesion:
        raise _unfit(
            "a label with two roles in [labels], or background in a lesion",
            "each label at most once among lesion, host and forbidden",
        )
    is_brain = set(_TISSUES) <= set(names)
    inserts = any(isinstance(edit, Insert) for edit in recipe.edit)
    terms = EditTerms(
        parts=tuple(names[name] for name in lesion),
        host=tuple(names[name] for name in host),
        forbidden=tuple(names[name] for name in forbidden),
        hemispheres=is_brain if table.hemispheres is None else table.hemispheres,
        is_brain=is_brain,
        volume_ml=recipe.plausible.volume_ml,
        lost=recipe.plausible.lost,
        labels=names,
        spacing_mm=study.grid.spacing_mm,
        brain=brain_labels(names) if inserts else None,
        ranges=lesion_ranges(study.public_labels.lesion),
    )
    _check_possible(recipe, terms, lesion)
    return terms


def _names_of(edit: object) -> tuple[str, ...]:
    match edit:
        case Move() | Scale() | Rotate():
            return edit.structure
        case Grow() | Shrink():
            return (edit.part,)
        case _:
            return ()


def _check_known(names: Iterable[str], known: Mapping[str, int]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise _unfit(f"a recipe with the unknown label '{unknown[0]}'", f"labels of the study: {', '.join(known)}")


def _check_possible(recipe: Recipe, terms: EditTerms, lesion: tuple[str, ...]) -> None:
    for number, edit in enumerate(recipe.edit, start=1):
        place = f"edit {number} ({edit.operation})"
        named = set(_names_of(edit))
        of_structure = bool(named) and not (isinstance(edit, Grow | Shrink) and named <= set(lesion))
        if not terms.parts and not of_structure and edit.operation != "deform":
            raise _unfit(f"{place} of a lesion where no label is part of one", "[labels] lesion = [outermost, ...]")
        if isinstance(edit, Insert | Transplant) and not terms.host:
            raise _unfit(f"{place} where no label can hold a lesion", "[labels] host = [...]")
        if isinstance(edit, Mirror) and not terms.hemispheres:
            raise _unfit(
                f"{place} where left does not mirror right", "labels of a brain, or [labels] hemispheres = true"
            )
        if of_structure and named & {"background", *lesion}:
            raise _unfit(f"{place} of a structure that is background or part of a lesion", "labels of anatomy")
        if isinstance(edit, Insert) and terms.brain:
            parts = (terms.brain.oedema, terms.brain.enhancing, terms.brain.necrosis)
            if parts != terms.parts:
                raise _unfit(f"{place} where the lesion's parts are not those of a tumour", f"lesion = {list(_LESION)}")


def _unfit(found: str, expected: str) -> ConfigError:
    return ConfigError(found, expected=expected, remedy="Mend the recipe, or edit under the study it was written for.")
