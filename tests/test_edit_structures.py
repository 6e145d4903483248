"""Structures that are no lesion, edited: under a tumour, in a brain and elsewhere, and never over their neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from little_brain import (
    NO,
    TERMS,
    TISSUES,
    healthy_brain,
    recipe_of,
    tumour,
    tumour_state,
)

from fedphantom.common.edits.layered import layered
from fedphantom.common.edits.operations import (
    Motion,
    Operation,
    Resizing,
    Target,
    apply_operation,
)
from fedphantom.common.edits.plausibility import Implausible
from fedphantom.common.edits.terms import edit_terms
from fedphantom.common.study import Study


def structure_grown(value: int, mm: float) -> Resizing:
    return Resizing(target=Target(lesion=0, structure=(value,)), part=0, distance=mm, unit="mm")


def structure_moved(value: int, factor: float = 1.0, shift: tuple[float, float, float] = NO) -> Motion:
    return Motion(target=Target(lesion=0, structure=(value,)), factor=factor, rotation_deg=NO, shift_mm=shift)


def test_a_structure_that_is_no_lesion_can_be_edited_under_a_tumour() -> None:
    before = tumour_state()
    terms = replace(TERMS, volume_ml=(0, 1000))
    wide = Resizing(target=Target(lesion=0, structure=(TISSUES.grey,)), part=0, distance=3, unit="mm")
    after = apply_operation(before, wide, terms)
    assert (after.anatomy == TISSUES.grey).sum() > (before.anatomy == TISSUES.grey).sum()
    assert np.array_equal(tumour(after), tumour(before))
    assert np.array_equal(after.labels == TISSUES.csf, before.labels == TISSUES.csf)


ERASING: dict[str, tuple[Operation, str]] = {
    "all grey under white": (structure_grown(TISSUES.white, 60), "neighbour"),
    "white under grey": (structure_grown(TISSUES.grey, 30), "neighbour"),
    "white scaled over grey": (structure_moved(TISSUES.white, factor=1.2), "neighbour"),
    "grey out of the brain": (structure_moved(TISSUES.grey, shift=(0, 0, 20)), "outside"),
}


@pytest.mark.parametrize(("operation", "reason"), ERASING.values(), ids=ERASING.keys())
def test_a_structure_neither_erases_another_nor_leaves_the_brain(operation: Operation, reason: str) -> None:
    with pytest.raises(Implausible) as refused:
        apply_operation(layered(healthy_brain(), TERMS), operation, replace(TERMS, volume_ml=(0, 5000), lost=0.3))
    assert refused.value.reason == reason


@pytest.mark.parametrize("operation", [structure_grown(TISSUES.grey, 3), structure_grown(TISSUES.white, 2)])
def test_a_growing_structure_stays_in_the_brain_and_loses_nothing_of_itself(operation: Operation) -> None:
    before = healthy_brain()
    after = apply_operation(layered(before, TERMS), operation, replace(TERMS, volume_ml=(0, 5000))).labels
    own = before == operation.target.structure[0]  # type: ignore[union-attr]  # both are resizings
    assert np.array_equal(after != 0, before != 0)
    assert (after[own] == before[own]).all()
    assert (after == operation.target.structure[0]).sum() > own.sum()  # type: ignore[union-attr]  # both are resizings


def test_a_structure_elsewhere_than_in_a_brain_erases_no_neighbour_nor_all_background() -> None:
    study = Study.model_validate({
        "name": "h", "seed": 1, "channels": ["MRI"], "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "grid": {"shape": (32, 48, 32), "spacing_mm": (1, 1, 1)}, "public_labels": {"source": "folder"},
    })  # fmt: skip
    both = np.zeros((32, 48, 32), np.uint8)
    both[12:20, 24:34, 12:20], both[12:20, 12:24, 12:20] = 1, 2
    terms = edit_terms(recipe_of('[[edit]]\noperation = "grow"\npart = "anterior"\nmm = 1\n'), study)
    for labels in (both, np.where(both == 1, both, 0)):
        for operation in (structure_grown(1, 100), structure_moved(1, factor=4)):
            with pytest.raises(Implausible) as refused:
                apply_operation(layered(labels, terms), operation, replace(terms, lost=0.9))
            assert refused.value.reason == "neighbour"
        grown = apply_operation(layered(labels, terms), structure_grown(1, 1.5), terms).labels
        assert (grown == 1).sum() > (labels == 1).sum()
