"""What a recipe's ranges draw, how a variant depends on its seed, and recipes that do not fit a study."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from little_brain import (
    brain_study,
    healthy_brain,
    recipe_of,
    terms_of,
    tumour_state,
)

from fedphantom.common.edits.draw import draw_operation, grouped
from fedphantom.common.edits.layered import layered
from fedphantom.common.edits.operations import (
    Insertion,
    Motion,
    apply_operation,
)
from fedphantom.common.edits.plausibility import Implausible
from fedphantom.common.edits.terms import edit_terms
from fedphantom.common.edits.variant import ATTEMPTS, draw_variant, edited
from fedphantom.common.errors import ConfigError
from fedphantom.common.labels.lesion import LesionParameters

TERMS = terms_of()


MOVING = '[[edit]]\noperation = "move"\nmm = [-6, 6]\n[[edit]]\noperation = "scale"\nfactor = [0.8, 1.2]\n'


def test_motions_of_one_body_that_follow_each_other_are_one() -> None:
    recipe = recipe_of(MOVING + '[[edit]]\noperation = "scale"\nfactor = 1.1\n[[edit]]\noperation = "remove"\n')
    assert [[edit.operation for edit in group] for group in grouped(recipe.edit)] == [
        ["move", "scale"],
        ["scale"],
        ["remove"],
    ]
    other = recipe_of(MOVING.replace('"scale"', '"scale"\nlesion = "all"'))
    assert len(list(grouped(other.edit))) == 2


def test_draws_stay_in_their_ranges() -> None:
    state, terms = tumour_state(), terms_of(MOVING)
    (group,) = grouped(recipe_of(MOVING).edit)
    drawn = [draw_operation(np.random.default_rng(seed), group, state, terms) for seed in range(200)]
    shifts = np.array([operation.shift_mm for operation in drawn if isinstance(operation, Motion)])
    factors = np.array([operation.factor for operation in drawn if isinstance(operation, Motion)])
    assert len(shifts) == 200
    assert 5.5 < np.abs(shifts).max() <= 6
    assert 0.8 <= factors.min() < 0.82
    assert 1.18 < factors.max() <= 1.2


def test_moves_by_voxels_are_whole_and_reach_both_ends() -> None:
    recipe = recipe_of('[[edit]]\noperation = "move"\nvoxels = [[-1, 1], 2, 0]\n')
    state, terms = tumour_state(), terms_of()
    drawn = [draw_operation(np.random.default_rng(seed), recipe.edit, state, terms) for seed in range(40)]
    assert {operation.shift_mm for operation in drawn if isinstance(operation, Motion)} == {
        (step * 2.0, 4.0, 0.0) for step in (-1, 0, 1)
    }


def test_a_named_place_is_taken_as_it_is_and_an_unnamed_one_drawn_at_its_depth() -> None:
    state, terms = layered(healthy_brain(), TERMS), terms_of('[[edit]]\noperation = "insert"\n')

    def centre(keys: str, seed: int) -> tuple[float, float, float]:
        (group,) = grouped(recipe_of('[[edit]]\noperation = "insert"\n' + keys).edit)
        drawn = draw_operation(np.random.default_rng(seed), group, state, terms)
        assert isinstance(drawn, Insertion)
        return drawn.lesion.centre_mm

    assert centre("centre_voxels = [13, 31, 29]\n", 0) == (-29.0, 7.0, 3.0)
    assert centre("centre_mm = [-30, 6, 3]\n", 1) == (-30.0, 6.0, 3.0)
    for seed in range(10):
        assert 54 - 24 < np.linalg.norm(centre("depth_mm = [16, 20]\n", seed)) < 54 - 12


def test_an_insertion_outside_the_brain_or_in_a_ventricle_is_refused() -> None:
    terms = terms_of('[[edit]]\noperation = "insert"\n')
    lesion = LesionParameters(
        centre_mm=(-56, 0, 0), radius_mm=12, core_share=0.6, necrosis_share=0.5, irregularity=0.1, seed=1
    )
    for place, reason in (((-56.0, 0.0, 0.0), "outside"), ((-6.0, 0.0, 0.0), "forbidden")):
        with pytest.raises(Implausible) as refused:
            apply_operation(layered(healthy_brain(), terms), Insertion(lesion=replace(lesion, centre_mm=place)), terms)
        assert refused.value.reason == reason


def test_an_edits_probability_is_the_share_of_variants_it_is_made_in() -> None:
    recipe = recipe_of('[[edit]]\noperation = "remove"\nprobability = 0.3\n')
    state, terms = tumour_state(), terms_of()
    drawn = [draw_operation(np.random.default_rng(seed), recipe.edit, state, terms) for seed in range(100)]
    assert 0.15 < sum(operation is not None for operation in drawn) / 100 < 0.45


def test_a_variant_depends_on_its_seed_alone_and_another_seed_gives_another() -> None:
    recipe, terms, state = recipe_of(MOVING), terms_of(MOVING), tumour_state()
    once, again, other = (edited(state, recipe, terms, seed)[0].labels for seed in (4, 4, 5))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_implausible_draws_are_repeated_and_counted() -> None:
    text = '[[edit]]\noperation = "move"\nmm = [[-40, 0], 0, 0]\n'
    recipe, terms = recipe_of(text), terms_of(text)
    outcomes = [draw_variant(tumour_state(), recipe, terms, (0, 0, k)) for k in range(6)]
    assert all(made is not None for made, _ in outcomes)
    rejected = [(one.operation, one.reason) for _, refused in outcomes for one in refused]
    assert ("move", "outside") in rejected
    assert all(len(refused) < ATTEMPTS for _, refused in outcomes)


def test_a_hopeless_recipe_is_given_up_after_a_bounded_number_of_draws() -> None:
    text = '[[edit]]\noperation = "move"\nmm = [[-90, -60], 0, 0]\n'
    made, refused = draw_variant(tumour_state(), recipe_of(text), terms_of(text), (0, 0, 0))
    assert made is None
    assert [(one.operation, one.reason) for one in refused] == [("move", "outside")] * ATTEMPTS
    fixed = text.replace("[-90, -60]", "-60")
    made, refused = draw_variant(tumour_state(), recipe_of(fixed), terms_of(fixed), (0, 0, 0))
    assert made is None
    assert [(one.operation, one.reason) for one in refused] == [("move", "outside")]


def test_of_a_healthy_map_all_lesions_are_no_lesion() -> None:
    text = '[[edit]]\noperation = "remove"\nlesion = "all"\n'
    after, step = edited(layered(healthy_brain(), TERMS), recipe_of(text), terms_of(text), 0)
    assert np.array_equal(after.labels, healthy_brain())
    assert step.parameters == {"operations": [], "beneath": "known"}


UNFIT = {
    "an unknown structure": ('[[edit]]\noperation = "scale"\nfactor = 1.1\nstructure = ["liver"]\n', "'liver'"),
    "an unknown part": ('[[edit]]\noperation = "grow"\npart = "rim"\nmm = 1\n', "'rim'"),
    "an unknown lesion label": ('[labels]\nlesion = ["mass"]\n[[edit]]\noperation = "remove"\n', "'mass'"),
    "an unknown host": ('[labels]\nhost = ["liver"]\n[[edit]]\noperation = "remove"\n', "'liver'"),
    "a label in two roles": ('[labels]\nhost = ["csf"]\n[[edit]]\noperation = "remove"\n', "two roles"),
    "background as lesion": ('[labels]\nlesion = ["background"]\n[[edit]]\noperation = "remove"\n', "two roles"),
    "no lesion labels": ('[labels]\nlesion = []\n[[edit]]\noperation = "remove"\n', "no label is part"),
    "no hemispheres": ('[labels]\nhemispheres = false\n[[edit]]\noperation = "mirror"\n', "does not mirror"),
    "the background": ('[[edit]]\noperation = "grow"\npart = "background"\nmm = 1\n', "background"),
    "a lesion's part as structure": (
        '[[edit]]\noperation = "scale"\nfactor = 1.1\nstructure = ["oedema", "csf"]\n',
        "part of a lesion",
    ),
    "no host": ('[labels]\nhost = []\n[[edit]]\noperation = "insert"\n', "can hold a lesion"),
    "parts that are no tumour's": ('[labels]\nlesion = ["oedema"]\n[[edit]]\noperation = "insert"\n', "not those"),
}


@pytest.mark.parametrize(("text", "named"), UNFIT.values(), ids=UNFIT.keys())
def test_a_recipe_that_does_not_fit_the_study_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as refused:
        edit_terms(recipe_of(text), brain_study())
    assert refused.value.exit_code == 3
