"""How label maps were made is counted from their chains: every scan once under each source or recipe that made it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_content import content, empty, words_of

from fedphantom.common.errors import DataError
from fedphantom.common.labels.chain import EditStep, LabelChain, LabelSource, LabelStep
from fedphantom.common.labels.recipe import Recipe, parse_recipe
from fedphantom.privacy.label_making import EditedMaps, LabelMaking, SampledMaps
from fedphantom.privacy.report.page import render_report
from fedphantom.privacy.synthetic_cohort import label_chains


def recipe(name: str, factor: float = 1.1, citation: str = "chosen by hand") -> Recipe:
    head = f'name = "{name}"\ncitation = "{citation}"\n'
    return parse_recipe(head + f'[[edit]]\noperation = "scale"\nlesion = "all"\nfactor = {factor}\n')


RECIPES = [recipe("grow"), recipe("grow", 1.2), recipe("shrink", 0.8, "Shin et al. 2018"), recipe("other", 1.5)]


def chain(source: str, recipes: list[Recipe], donor: LabelChain | None = None) -> LabelChain:
    edits = [EditStep(name="edit", recipe=one, seed=1, parameters={}, donor=donor) for one in recipes]
    sampled = LabelStep(name="affine", parameters={}, seed=0)
    found = LabelSource(kind="public", name=source, licence="CC0-1.0", sha256="0" * 64)
    return LabelChain(source=found, steps=(sampled, *edits))


PLAIN = st.builds(chain, st.sampled_from(["atlas", "open maps"]), st.lists(st.sampled_from(RECIPES), max_size=3))
CHAINS = st.lists(st.builds(chain, st.just("atlas"), st.lists(st.sampled_from(RECIPES), max_size=2), PLAIN) | PLAIN)


@given(CHAINS, st.randoms())
def test_every_scan_counts_once_under_its_source_or_each_of_its_recipes(
    chains: list[LabelChain], random: object
) -> None:
    making = LabelMaking.of(chains)
    assert making.scans == len(chains)
    unedited = [one for one in chains if not one.recipes()]
    assert {row.source: row.scans for row in making.sampled} == {
        name: n for name in ("atlas", "open maps") if (n := sum(one.source.name == name for one in unedited))
    }
    expected = sorted(
        (one.name, one.citation, n) for one in RECIPES if (n := sum(one in found.recipes() for found in chains))
    )
    assert [(row.recipe, row.citation, row.scans) for row in making.edited] == expected
    assert making.overlaps == any(len(set(one.recipes())) > 1 for one in chains)
    shuffled = list(chains)
    random.shuffle(shuffled)
    assert LabelMaking.of(shuffled) == making
    assert LabelMaking.model_validate_json(making.model_dump_json()) == making


def test_a_recipe_that_made_only_the_donor_of_a_lesion_had_a_part_too() -> None:
    making = LabelMaking.of([chain("atlas", [RECIPES[0]], donor=chain("open maps", [RECIPES[2]]))])
    assert [(row.recipe, row.scans) for row in making.edited] == [("grow", 1), ("shrink", 1)]
    assert not making.sampled
    assert making.overlaps


def test_the_page_lists_recipes_with_citation_and_scans_and_where_the_rest_was_sampled_from() -> None:
    making = LabelMaking(
        scans=20,
        sampled=(SampledMaps(source="Public hippocampi", scans=12),),
        edited=(EditedMaps(recipe="move", citation="Shin <i>et al.</i> 2018", scans=8),),
    )
    page = words_of(render_report(content(label_making=making), "shareable"))
    assert "sampled from Public hippocampi, not edited – 12" in page
    assert "edited by the recipe ‘move’ Shin <i>et al.</i> 2018 8" in page
    assert "counted under each" not in page
    twice = making.model_copy(update={"scans": 14})
    assert "counted under each" in words_of(render_report(content(label_making=twice), "shareable"))
    assert "How the label maps" not in words_of(render_report(empty(), "internal"))


@pytest.mark.parametrize("sidecar", ["{}", "[]", "", '{"LabelChain": {}}'])
def test_a_cohort_with_a_label_map_of_unknown_making_is_not_counted(tmp_path: Path, sidecar: str) -> None:
    (tmp_path / "sub-1_dseg.json").write_text(sidecar)
    with pytest.raises(DataError, match="no readable chain"):
        label_chains(tmp_path)
