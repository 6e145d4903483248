"""Slices become a volume by their positions alone, and what is no regular stack is refused by name."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_series import turned
from hypothesis import given, settings
from hypothesis import strategies as st

from fedphantom.common.dicom.reasons import REASONS, Faulty
from fedphantom.common.dicom.stack import Slice, Vector, stack

DEGREES = st.floats(-180, 180)
MM = st.floats(0.3, 8.0)


def slices(
    count: int = 9,
    angles: Vector = (0.0, 0.0, 0.0),
    spacing: Vector = (0.9, 1.1, 3.0),
    origin: Vector = (-80.0, -120.0, -40.0),
    decimals: int = 10,
) -> list[Slice]:
    directions = turned(*angles)
    row, column, _ = np.round(directions.T, decimals)
    made = []
    for number in range(count):
        position = np.round(np.array(origin) + directions[:, 2] * spacing[2] * number, decimals)
        made.append(
            Slice(
                path=Path(f"{number}"),
                frame=None,
                rows=20,
                columns=16,
                position=tuple(position.tolist()),
                along_row=tuple(row.tolist()),
                along_column=tuple(column.tolist()),
                between_rows=spacing[1],
                between_columns=spacing[0],
                declared_mm=None,
                slope=1.0,
                intercept=0.0,
            )
        )
    return made


def code(made: list[Slice]) -> str:
    with pytest.raises(Faulty) as caught:
        stack(made)
    assert caught.value.code in REASONS
    return caught.value.code


@settings(deadline=None, max_examples=200)
@given(
    angles=st.tuples(DEGREES, DEGREES, DEGREES),
    spacing=st.tuples(MM, MM, MM),
    origin=st.tuples(*[st.floats(-400, 400)] * 3),
    count=st.integers(2, 60),
    seed=st.integers(0, 2**16),
)
def test_any_oblique_stack_in_any_order_gets_the_affine_of_the_closed_form(
    angles: Vector, spacing: Vector, origin: Vector, count: int, seed: int
) -> None:
    made = slices(count, angles, spacing, origin)
    shuffled = random.Random(seed).sample(made, count)  # noqa: S311  # an order, not a secret
    found = stack(shuffled)
    assert list(found.slices) == made
    directions = turned(*angles)
    to_ras = np.diag([-1.0, -1.0, 1.0])
    np.testing.assert_allclose(found.affine[:3, :3], to_ras @ directions * spacing, atol=1e-6)
    np.testing.assert_allclose(found.affine[:3, 3], to_ras @ np.array(origin), atol=1e-6)


@settings(deadline=None, max_examples=100)
@given(angles=st.tuples(DEGREES, DEGREES, DEGREES), count=st.integers(3, 40))
def test_headers_that_round_to_a_hundredth_of_a_millimetre_and_six_decimals_are_taken(
    angles: Vector, count: int
) -> None:
    rounded = [
        replace(one, position=tuple(round(mm, 2) for mm in one.position))
        for one in slices(count, angles, spacing=(1.0, 1.0, 1.0), decimals=6)
    ]
    np.testing.assert_allclose(stack(rounded).affine, stack(slices(count, angles, (1.0, 1.0, 1.0))).affine, atol=0.02)


@settings(deadline=None, max_examples=100)
@given(count=st.integers(5, 40), data=st.data())
def test_a_missing_inner_slice_is_found_wherever_it_is(count: int, data: st.DataObject) -> None:
    made = slices(count, (10.0, 20.0, 30.0))
    del made[data.draw(st.integers(1, count - 2))]
    assert code(made) == "missing-slice"


@given(count=st.integers(2, 40), data=st.data())
def test_a_doubled_slice_is_found_wherever_it_is(count: int, data: st.DataObject) -> None:
    made = slices(count, (10.0, 20.0, 30.0))
    made.append(made[data.draw(st.integers(0, count - 1))])
    assert code(made) == "doubled-slice"


def test_several_volumes_in_one_series_are_doubled_slices() -> None:
    assert code(slices(10) * 3) == "doubled-slice"


def test_every_second_slice_missing_shows_in_the_distance_that_the_header_declares() -> None:
    made = [replace(one, declared_mm=3.0) for one in slices(12)]
    assert len(stack(made).slices) == 12
    assert code(made[::2]) == "missing-slice"


def moved(made: list[Slice], number: int, by: Vector) -> list[Slice]:
    there = tuple((np.array(made[number].position) + by).tolist())
    return [replace(one, position=there) if one is made[number] else one for one in made]


@pytest.mark.parametrize("by", [0.031, -0.2, 1.2])
def test_a_slice_off_its_place_by_more_than_a_hundredth_of_the_distance_is_refused(by: float) -> None:
    assert code(moved(slices(), 4, (0.0, 0.0, by))) == "unequal-spacing"
    assert code(moved(slices(), 4, (0.0, by, 0.0))) == "unequal-spacing"


def test_a_slice_off_its_place_by_less_is_taken() -> None:
    assert len(stack(moved(slices(), 4, (0.0, 0.0, 0.029))).slices) == 9


def test_a_sheared_stack_is_refused() -> None:
    made = slices(20)
    sheared = [
        replace(one, position=(one.position[0], one.position[1] + 0.03 * number, one.position[2]))
        for number, one in enumerate(made)
    ]
    assert code(sheared) == "skewed"


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 21},
        {"columns": 15},
        {"between_rows": 1.2},
        {"along_row": (0.9998, 0.02, 0.0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_slices_that_differ_are_no_volume(change: dict[str, object]) -> None:
    made = slices()
    made[3] = replace(made[3], **change)  # type: ignore[arg-type]  # one field of several kinds
    assert code(made) == "mixed-images"


@pytest.mark.parametrize(
    "change",
    [
        {"along_row": (0.0, 0.0, 0.0)},
        {"along_row": (2.0, 0.0, 0.0)},
        {"along_column": (0.1, 0.995, 0.0)},
        {"between_columns": 0.0},
        {"between_rows": -1.0},
    ],
    ids=str,
)
def test_impossible_geometry_is_refused(change: dict[str, object]) -> None:
    assert code([replace(one, **change) for one in slices()]) == "no-geometry"  # type: ignore[arg-type]  # as above


def test_one_slice_is_no_volume() -> None:
    assert code(slices(1)) == "single-slice"
    assert code([]) == "single-slice"
