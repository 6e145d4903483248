"""What a released set tells of the size of a structure in a patient's scan, beyond what the scan's images do."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learners import audit, make_material

from fedphantom.privacy.attacks.attribute import NOTHING_TO_INFER, Attribute, inferred
from fedphantom.privacy.evidence import ATTRIBUTE, OUTLIERS, REQUIRED_ATTACKS, excused


def test_the_structure_that_differs_most_beside_its_mean_is_asked_for() -> None:
    people = np.zeros((6, 10, 10, 10), np.uint8)
    for i, one in enumerate(people):
        one[:6] = 1
        one[6, :, : 1 + i] = 4  # a lesion of 10 to 60 voxels
        one[7, : 5 + i % 2] = 2
    chosen = Attribute.chosen(people)
    assert chosen is not None
    assert chosen.label == 4
    assert chosen.of(people).tolist() == [10, 20, 30, 40, 50, 60]
    assert chosen.spread == pytest.approx(np.std([10, 20, 30, 40, 50, 60]))


@pytest.mark.parametrize("people", [np.zeros((3, 4, 4, 4), np.uint8), np.ones((3, 4, 4, 4), np.uint8)])
def test_where_everybody_has_every_structure_alike_there_is_nothing_to_ask(people: np.ndarray) -> None:
    assert Attribute.chosen(people) is None


@given(seed=st.integers(0, 10**6), volumes=st.integers(1, 20), axes=st.integers(2, 10))
def test_what_is_inferred_lies_among_the_volumes_and_is_a_volumes_own_at_its_place(
    seed: int, volumes: int, axes: int
) -> None:
    draw = np.random.default_rng(seed)
    points, values = draw.normal(0, 1, (volumes, axes)), draw.normal(0, 1, volumes)
    far = inferred(points, values, 100 * draw.normal(0, 1, (5, axes)))
    assert ((far >= values.min() - 1e-9) & (far <= values.max() + 1e-9)).all()
    np.testing.assert_allclose(inferred(points, values, points), values, atol=1e-6)
    more = np.concatenate([points, draw.normal(0, 1, (3, axes))])
    np.testing.assert_allclose(inferred(more, values, points), values, atol=1e-6)


def test_an_audit_reports_it_and_says_where_there_was_nothing_to_infer() -> None:
    material = make_material(by_heart=True)
    with_sizes = json.loads(audit(material, "internal", release="volumes").to_json())
    (row,) = [row for row in with_sizes["attacks"] if row["id"] == ATTRIBUTE]
    assert (row["threat_model"], row["binding"]) == ("S", True)
    assert ATTRIBUTE not in with_sizes["not_applicable"]
    alike = replace(
        material, labels=np.ones_like(material.labels), synthetic_labels=np.ones_like(material.synthetic_labels)
    )
    without = json.loads(audit(alike, "internal", release="volumes").to_json())
    assert ATTRIBUTE not in {row["id"] for row in without["attacks"]}
    assert without["not_applicable"][ATTRIBUTE] == NOTHING_TO_INFER
    assert not any(ATTRIBUTE in reason for reason in without["reasons"])  # and no release waits for it


def test_a_release_waits_for_it_unless_there_was_nothing_to_infer_and_for_any_other_attack_in_any_case() -> None:
    assert all(ATTRIBUTE in names for names in REQUIRED_ATTACKS.values())
    assert excused([ATTRIBUTE, "A3", "A1"]) == {ATTRIBUTE, ATTRIBUTE + OUTLIERS}
    assert excused([]) == set()
