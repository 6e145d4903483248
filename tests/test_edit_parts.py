"""A lesion that is carried off has the parts that it had: none is made up where it lacks one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_brain import PARTS, TISSUES, healthy_brain, order_holds, terms_of, with_tumour
from numpy.typing import NDArray

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


def test_a_part_that_is_not_there_may_still_be_grown() -> None:
    kept = [PARTS[1], PARTS[2]]
    grown = Resizing(target=LARGEST, part=0, distance=4, unit="mm")
    after = apply_operation(layered(with_only(kept), TERMS, healthy_brain()), grown, TERMS)
    assert shown(after.labels) == list(PARTS)
    assert order_holds(after.labels)


def test_where_fluid_had_cut_into_a_lesion_without_a_rim_the_hollow_closes_without_one() -> None:
    kept = [PARTS[0], PARTS[2]]
    healthy = healthy_brain()
    horn = np.zeros(healthy.shape, np.bool_)
    horn[16:25, 29:33, 27:31] = True
    healthy[horn] = TISSUES.csf
    cut = np.where(horn, TISSUES.csf, with_only(kept)).astype(np.uint8)
    after = apply_operation(layered(cut, TERMS, healthy), TURNED, TERMS)
    assert shown(after.labels) == kept
