"""A recipe is read strictly, refused by name, and written back to the same recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_brain import brain_study, terms_of, tumour_state

from fedphantom.common.edits.draw import draw_operation, grouped
from fedphantom.common.errors import ConfigError
from fedphantom.common.labels.recipe import Recipe, parse_recipe, read_recipe

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "docs" / "recipes").glob("*.toml"))
GOLDEN = Path(__file__).parent / "golden"

HEAD = 'name = "r"\ncitation = "by hand"\n'
SCALE = HEAD + '[[edit]]\noperation = "scale"\nfactor = 1.2\n'

MM = st.floats(-50, 50, allow_nan=False)
ABOVE = st.floats(0.01, 50, allow_nan=False)


def ranges(values: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    return values | st.tuples(values, values).map(lambda pair: tuple(sorted(pair)))


def vectors(values: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    return st.tuples(values, values).map(sorted) | st.tuples(ranges(values), ranges(values), ranges(values))


NAMES = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9 _-]{0,31}\Z")
WHICH = {"lesion": st.sampled_from(["largest", "random", "all"]), "probability": st.floats(0.01, 1)}
PLACE = st.one_of(
    st.just({}), st.builds(lambda v: {"centre_mm": v}, vectors(MM)), st.builds(lambda v: {"depth_mm": v}, ranges(ABOVE))
)


def edits() -> st.SearchStrategy[dict[str, Any]]:
    def of(operation: str, **keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
        return st.fixed_dictionaries({"operation": st.just(operation)} | keys, optional=WHICH)

    structure = st.lists(NAMES, max_size=2)
    return st.one_of(
        of("move", mm=vectors(MM), structure=structure),
        of("move", voxels=st.tuples(*(st.integers(-9, 9),) * 3)),
        of("scale", factor=ranges(st.floats(0.01, 10)), structure=structure),
        of("rotate", degrees=vectors(MM)),
        of("mirror"),
        of("remove"),
        of("grow", part=NAMES, mm=ranges(ABOVE)),
        of("shrink", part=NAMES, voxels=ranges(ABOVE)),
        st.builds(dict.__or__, st.fixed_dictionaries({"operation": st.just("insert")}), PLACE),
        st.builds(dict.__or__, of("transplant"), PLACE),
        st.fixed_dictionaries(
            {
                "operation": st.just("deform"),
                "displacement_mm": ranges(st.floats(0, 20)),
                "smoothness_mm": ranges(ABOVE),
            }
        ),
    )


@settings(max_examples=80, deadline=None)
@given(
    content=st.fixed_dictionaries(
        {
            "name": st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,62}\Z"),
            "citation": st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
            "edit": st.lists(edits(), min_size=1, max_size=4),
        },
        optional={
            "plausible": st.fixed_dictionaries({"volume_ml": ranges(ABOVE), "lost": st.floats(0, 0.9)}),
            "labels": st.fixed_dictionaries({"lesion": st.lists(NAMES, max_size=3), "hemispheres": st.booleans()}),
        },
    )
)
def test_any_recipe_written_as_toml_or_json_reads_back_the_same(content: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(content)
    assert parse_recipe(recipe.to_toml()) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_one_structure_needs_no_list() -> None:
    one, listed = (
        parse_recipe(f'{HEAD}[[edit]]\noperation = "scale"\nstructure = {name}\nfactor = 1.1\n')
        for name in ('"white"', '["white"]')
    )
    assert one == listed


REFUSED = {
    "not TOML": ("name =", "not valid TOML"),
    "a negative size": (SCALE.replace("1.2", "-1.2"), r"edit 1 \(scale\), 'factor': must be above 0 \(found -1.2\)"),
    "a size of zero": (SCALE.replace("1.2", "0"), "must be above 0"),
    "a factor that is no number": (SCALE.replace("1.2", "true"), r"'factor': needs a number, or a range \[low, high\]"),
    "a factor that no grid holds": (SCALE.replace("1.2", "30"), r"'factor': must not be more than 10 \(found 30"),
    "a shift out of this world": (HEAD + '[[edit]]\noperation = "move"\nmm = [1e300, 0, 0]\n', "not be more than 1000"),
    "a depth that no head has": (HEAD + '[[edit]]\noperation = "insert"\ndepth_mm = 1e300\n', "not be more than 200"),
    "a radius that no head has": (HEAD + '[[edit]]\noperation = "insert"\nradius_mm = 1e300\n', "more than 100"),
    "a warp that tears": (
        HEAD + '[[edit]]\noperation = "deform"\ndisplacement_mm = 1e300\nsmoothness_mm = 6\n',
        "not be more than 20",
    ),
    "a negative length": (HEAD + '[[edit]]\noperation = "grow"\npart = "oedema"\nmm = -2\n', "must not be negative"),
    "a negative radius": (HEAD + '[[edit]]\noperation = "insert"\nradius_mm = [-5, 9]\n', "'radius_mm': must be above"),
    "a falling range": (SCALE.replace("1.2", "[2, 1]"), "must be finite and rise"),
    "infinity": (SCALE.replace("1.2", "inf"), "finite"),
    "two numbers where three are meant": (HEAD + '[[edit]]\noperation = "move"\nmm = [1, 2, 3, 4]\n', "three entries"),
    "a length without a direction": (HEAD + '[[edit]]\noperation = "move"\nmm = 5\n', r"such as \[5, 0, 0\]"),
    "half a voxel": (HEAD + '[[edit]]\noperation = "move"\nvoxels = [0.5, 0, 0]\n', "whole numbers"),
    "no length": (HEAD + '[[edit]]\noperation = "move"\n', "exactly one of mm and voxels"),
    "two lengths": (HEAD + '[[edit]]\noperation = "move"\nmm = [1, 1]\nvoxels = [1, 1]\n', "exactly one of"),
    "two places": (HEAD + '[[edit]]\noperation = "insert"\ndepth_mm = 9\ncentre_mm = [1, 2, 3]\n', "at most one of"),
    "an unknown operation": (SCALE.replace('"scale"', '"melt"'), "'melt'"),
    "an unknown key": (SCALE.replace("factor", "faktor"), "'faktor' is unknown"),
    "an unknown table": (SCALE + "[extra]\n", "'extra' is unknown"),
    "a probability above 1": (SCALE + "probability = 1.5\n", "'probability'"),
    "no edits": (HEAD + "edit = []\n", "'edit'"),
    "no citation": (SCALE.replace('citation = "by hand"', ""), "'citation'"),
    "a name with spaces": (SCALE.replace('"r"', '"my recipe"'), "'name'"),
    "a share above 0.95": (HEAD + '[[edit]]\noperation = "insert"\ncore_share = [0.5, 1.5]\n', "core_share"),
}


@pytest.mark.parametrize(("text", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_a_recipe_that_means_nothing_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as refused:
        parse_recipe(text)
    assert refused.value.exit_code == 3


UNKNOWN = {
    "of an edit": (
        SCALE.replace("factor", "faktor"),
        "one of probability, lesion, structure, operation, factor; nearest is factor",
    ),
    "of another edit": (
        HEAD + '[[edit]]\noperation = "remove"\nlesions = "all"\n',
        "one of probability, operation, lesion; nearest is lesion",
    ),
    "of the labels": (SCALE + "[labels]\nhosts = []\n", "one of lesion, host, forbidden, hemispheres; nearest is host"),
    "of what is plausible": (SCALE + "[plausible]\nvolume = [1, 2]\n", "one of volume_ml, lost; nearest is volume_ml"),
    "of the recipe": (SCALE + "[qqq]\n", "one of name, citation, labels, plausible, edit"),
}


@pytest.mark.parametrize(("text", "expected"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_an_unknown_key_is_told_beside_those_its_table_can_have_and_the_nearest(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match="is unknown") as refused:
        parse_recipe(text)
    assert refused.value.expected == expected


def test_a_missing_file_is_named_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'r\.toml'") as refused:
        read_recipe(tmp_path / "r.toml")
    assert str(tmp_path) not in str(refused.value)


def test_whether_a_recipe_leaves_anything_to_chance_is_known() -> None:
    assert not parse_recipe(SCALE).is_random
    for change in ("factor = [1.1, 1.2]", 'factor = 1.2\nlesion = "random"', "factor = 1.2\nprobability = 0.5"):
        assert parse_recipe(SCALE.replace("factor = 1.2", change)).is_random
    assert parse_recipe(HEAD + '[[edit]]\noperation = "move"\nmm = [0, [1, 2], 0]\n').is_random
    assert parse_recipe(HEAD + '[[edit]]\noperation = "insert"\n').is_random


def test_the_golden_recipe_means_what_it_meant() -> None:
    recipe = read_recipe(ROOT / "docs" / "recipes" / "move-and-resize.toml")
    assert recipe.to_toml() == (GOLDEN / "move-and-resize.toml").read_text(encoding="utf-8")


def test_the_golden_recipe_draws_what_it_drew() -> None:
    """A changed draw would make every recorded chain a foreign one."""
    recipe = read_recipe(ROOT / "docs" / "recipes" / "move-and-resize.toml")
    state, terms, rng = tumour_state(), terms_of(), np.random.default_rng(7)
    assert terms.parts == (4, 5, 6)
    drawn = [draw_operation(rng, group, state, terms) for group in grouped(recipe.edit)]
    assert json.loads(json.dumps([None if o is None else vars(o) | {"target": vars(o.target)} for o in drawn])) == (  # type: ignore[union-attr]  # these have one
        json.loads((GOLDEN / "move-and-resize.json").read_text(encoding="utf-8"))
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_documented_recipe_is_read(path: Path) -> None:
    assert read_recipe(path).name == path.stem
    assert brain_study().labels
