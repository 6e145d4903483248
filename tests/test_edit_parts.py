"""A lesion that is carried off has the parts that it had: none is made up where it lacks one."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_brain import PARTS, TISSUES, healthy_brain, terms_of, with_tumour
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from fedphantom.common.edits.layered import layered
from fedphantom.common.edits.operations import (
    Motion,
    Operation,
    Reflection,
    Resizing,
    Target,
    Transplantation,
    apply_operation,
)
from fedphantom.common.edits.plausibility import Implausible

TERMS = terms_of()
LARGEST = Target(lesion=0)
SOME = [list(kept) for size in (1, 2) for kept in combinations(PARTS, size)]
TURNED = Motion(target=LARGEST, factor=1.1, rotation_deg=(20, -35, 15), shift_mm=(2.3, -4.1, 1.7))


def with_only(kept: list[int]) -> NDArray[np.uint8]:
    """A tumour whose missing parts became the next one that is there, inwards if it can."""
    out = with_tumour(healthy_brain())
    for value in set(PARTS) - set(kept):
        inner = [other for other in kept if PARTS.index(other) > PARTS.index(value)]
        out[out == value] = inner[0] if inner else kept[-1]
    return out


def shown(labels: NDArray[np.uint8]) -> list[int]:
    return [value for value in PARTS if (labels == value).any()]


@pytest.mark.parametrize("kept", SOME, ids=str)
@pytest.mark.parametrize(
    "operation", [TURNED, Reflection(target=LARGEST)], ids=lambda operation: type(operation).__name__
)
def test_a_lesion_carried_off_shows_the_parts_that_it_had(kept: list[int], operation: Operation) -> None:
    before = with_only(kept)
    after = apply_operation(layered(before, TERMS, healthy_brain()), operation, TERMS)
    assert shown(before) == shown(after.labels) == kept


@settings(max_examples=12, deadline=None)
@given(turn=st.tuples(*(st.floats(-180, 180),) * 3), shift=st.tuples(*(st.floats(-9, 9),) * 3))
def test_no_motion_gives_an_enhancing_rim_to_a_lesion_without_one(
    turn: tuple[float, float, float], shift: tuple[float, float, float]
) -> None:
    kept = [PARTS[0], PARTS[2]]
    before = layered(with_only(kept), TERMS, healthy_brain())
    try:
        after = apply_operation(before, Motion(target=LARGEST, factor=1.0, rotation_deg=turn, shift_mm=shift), TERMS)
    except Implausible:
        return
    assert shown(after.labels) == kept


def test_a_donor_without_an_enhancing_rim_gives_none() -> None:
    kept = [PARTS[0], PARTS[2]]
    here = Transplantation(target=LARGEST, centre_mm=(29.3, 5.1, 3.7))
    after = apply_operation(layered(healthy_brain(), TERMS), here, TERMS, with_only(kept))
    assert shown(after.labels) == kept


@pytest.mark.parametrize("missing", PARTS)
@pytest.mark.parametrize("mm", [4, -2])
def test_a_part_that_is_not_there_is_neither_grown_nor_shrunk(missing: int, mm: float) -> None:
    before = layered(with_only([value for value in PARTS if value != missing]), TERMS, healthy_brain())
    with pytest.raises(Implausible) as refused:
        apply_operation(before, Resizing(target=LARGEST, part=PARTS.index(missing), distance=mm, unit="mm"), TERMS)
    assert refused.value.reason == "no such part"
    assert refused.value.measured == f"0 voxels of label {missing}; at least 1"


@pytest.mark.parametrize("part", range(3))
def test_a_part_that_a_small_step_leaves_as_it_is_was_not_edited(part: int) -> None:
    """Of voxels of 2 mm; a bare side of the rim, which nobody named, is no reason to cover it either."""
    before = layered(bare_on_one_side(), TERMS, healthy_brain())
    with pytest.raises(Implausible) as refused:
        apply_operation(before, Resizing(target=LARGEST, part=part, distance=0.05, unit="mm"), TERMS)
    assert refused.value.reason == "unchanged"
    assert re.fullmatch(
        r"0 voxels beside the \d+ voxels of label \d gained or lost; at least 1", refused.value.measured
    )


def bare_on_one_side() -> NDArray[np.uint8]:
    """A rim that touches white matter where a slice of its oedema is missing, as in some patients."""
    out = with_tumour(healthy_brain())
    out[:9][out[:9] == PARTS[0]] = TISSUES.white
    return out


def test_only_what_a_grown_part_pushes_against_gives_way() -> None:
    before = bare_on_one_side()
    grown = Resizing(target=LARGEST, part=2, distance=2, unit="mm")
    after = apply_operation(layered(before, TERMS, healthy_brain()), grown, TERMS).labels
    assert ((after == PARTS[2]) & (before != PARTS[2])).any()
    new_rim = binary_dilation((after != before) & np.isin(after, PARTS[1:]))
    assert not ((after == PARTS[0]) & (before != PARTS[0]) & ~new_rim).any()


def test_a_part_grown_inside_a_lesion_without_a_rim_makes_none() -> None:
    kept = [PARTS[0], PARTS[2]]
    grown = Resizing(target=LARGEST, part=2, distance=2, unit="mm")
    after = apply_operation(layered(with_only(kept), TERMS, healthy_brain()), grown, TERMS)
    assert shown(after.labels) == kept


def test_where_fluid_had_cut_into_a_lesion_without_a_rim_the_hollow_closes_without_one() -> None:
    kept = [PARTS[0], PARTS[2]]
    healthy = healthy_brain()
    horn = np.zeros(healthy.shape, np.bool_)
    horn[16:25, 29:33, 27:31] = True
    healthy[horn] = TISSUES.csf
    cut = np.where(horn, TISSUES.csf, with_only(kept)).astype(np.uint8)
    after = apply_operation(layered(cut, TERMS, healthy), TURNED, TERMS)
    assert shown(after.labels) == kept
