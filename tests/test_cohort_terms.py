"""Licence and citation of label maps come from the cohort that states them, or are said to be missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from officers import OFFICERS, policy_text
from tiny_cohorts import tiny_study, write_tiny_cohort
from tiny_release import Releasable, assert_refused, files_of, in_predicate, sign_again

from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.terms import CohortTerms, stated_terms
from fedphantom.common.errors import PolicyRefused
from fedphantom.common.labels.chain import UNSTATED, states_licence
from fedphantom.common.labels.sampler import public_label_maps
from fedphantom.common.study import PublicLabelsTable, Study
from fedphantom.privacy.policy import parse_policy
from fedphantom.privacy.release.pack import ReleaseReport

BIDS, DECATHLON = "dataset_description.json", "dataset.json"
DECATHLON_SAYS = {"name": "Hippocampus", "reference": "Vanderbilt", "licence": "CC-BY-SA 4.0", "relase": "1.0"}


def says(root: Path, file: str, content: Any) -> Path:
    root.mkdir(exist_ok=True)
    (root / file).write_text(json.dumps(content))
    return root


STATED: dict[str, tuple[str, Any, CohortTerms]] = {
    "Decathlon": (DECATHLON, DECATHLON_SAYS, CohortTerms("Hippocampus", "CC-BY-SA 4.0", "Vanderbilt")),
    "nnU-Net": (DECATHLON, {"license": "MIT"}, CohortTerms(licence="MIT")),
    "BIDS": (
        BIDS,
        {"Name": "Open brains", "License": "CC0", "HowToAcknowledge": "Cite\nus.", "ReferencesAndLinks": ["other"]},
        CohortTerms("Open brains", "CC0", "Cite us."),
    ),
    "BIDS with links alone": (
        BIDS,
        {"ReferencesAndLinks": ["doi:1", "", 5, "doi:2", "doi:1"], "DatasetDOI": "doi:3"},
        CohortTerms(citation="doi:1; doi:2; doi:3"),
    ),
    "a placeholder": (BIDS, {"License": " Unknown ", "Name": "  "}, CohortTerms()),
    "another type": (BIDS, {"License": {"name": "CC0"}, "Name": 7, "HowToAcknowledge": ["x"]}, CohortTerms()),
    "no object": (BIDS, ["License", "CC0"], CohortTerms()),
}


@pytest.mark.parametrize(("file", "content", "terms"), STATED.values(), ids=STATED.keys())
def test_what_a_description_states_is_taken_in_the_owners_words(
    file: str, content: Any, terms: CohortTerms, tmp_path: Path
) -> None:
    assert stated_terms(says(tmp_path, file, content)) == terms


def test_what_one_description_leaves_open_may_stand_in_the_other(tmp_path: Path) -> None:
    says(tmp_path, BIDS, {"Name": "As BIDS", "License": "n/a"})
    assert stated_terms(says(tmp_path, DECATHLON, DECATHLON_SAYS)) == CohortTerms(
        "As BIDS", "CC-BY-SA 4.0", "Vanderbilt"
    )


def test_a_cohort_without_a_description_or_with_a_broken_one_states_nothing(tmp_path: Path) -> None:
    assert stated_terms(tmp_path / "absent") == CohortTerms()
    (tmp_path / DECATHLON).write_bytes(b"\xff{")
    assert stated_terms(tmp_path) == CohortTerms()


@settings(max_examples=40, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), max_size=2000))
def test_stated_words_stay_on_one_line_and_within_bounds(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    terms = stated_terms(says(tmp_path_factory.mktemp("c"), BIDS, {"License": text, "HowToAcknowledge": text}))
    for told in (terms.licence, terms.citation):
        assert told is None or (told.isprintable() and told == told.strip() and 0 < len(told) <= 600)


# --- on their way into public-labels.json, the release, and its refusal


def maps_of(root: Path, **table: str) -> list[tuple[str, str]]:
    study = tiny_study().model_copy(update={"public_labels": PublicLabelsTable(source="folder", name="balls", **table)})
    return list({(m.source.licence, m.source.citation) for m in public_label_maps(study, read_cohort(root))})


def test_a_source_carries_what_its_cohort_states_unless_the_study_says_otherwise(tmp_path: Path) -> None:
    root = write_tiny_cohort(tmp_path / "open", 2)
    assert maps_of(root) == [(UNSTATED, "")]
    says(root, DECATHLON, DECATHLON_SAYS)
    assert maps_of(root) == [("CC-BY-SA 4.0", "Vanderbilt")]
    assert maps_of(root, licence="CC0", citation="us") == [("CC0", "us")]


def test_the_atlas_names_its_licence_and_whom_to_cite() -> None:
    labels = {"background": 0, "csf": 1, "grey": 2, "white": 3, "oedema": 4, "enhancing": 5, "necrosis": 6}
    facts = tiny_study().model_dump() | {"labels": labels, "regions": {}, "public_labels": {"source": "atlas"}}
    (atlas,) = public_label_maps(
        Study.model_validate(facts | {"grid": {"shape": (16,) * 3, "spacing_mm": (12,) * 3}}), None
    )
    assert states_licence(atlas.source.licence)
    assert "Fonov" in atlas.source.citation
    assert np.count_nonzero(atlas.labels)


def without_licence(made: Releasable) -> Releasable:
    """As if the public cohort's owner had stated none."""
    for path in (*files_of(made.run), *files_of(made.synthetic)):
        if path.suffix == ".json":
            path.write_text(path.read_text().replace("CC0-1.0", UNSTATED))
    return made


WAIVER = """
[override.formal_epsilon_binds]
value = false
reason = "nobody was scanned"
by = "the board"
on = 2026-11-20
"""


def publish(made: Releasable, **changes: Any) -> ReleaseReport:
    why = {"reason": "nobody was scanned", "by": "the board", "on": "2026-11-20"}
    waived = {"formal_epsilon_binds": False, "reasons": {"formal_epsilon_binds": why}}
    made.write_audit(verdict="PASS", tier="public", policy=waived)
    own = tuple(parse_policy(policy_text(site, 'tier = "public"', WAIVER)) for site in OFFICERS)
    return made.pack(tier="public", policies=own, **changes)


def test_label_maps_without_a_stated_licence_are_not_published(releasable: Releasable) -> None:
    with pytest.raises(PolicyRefused, match="no licence") as caught:
        publish(without_licence(releasable))
    assert caught.value.exit_code == 4
    assert not releasable.release.exists()


def test_with_a_licence_they_are_and_the_readme_says_which_and_whom_to_cite(releasable: Releasable) -> None:
    for path in (*files_of(releasable.run), *files_of(releasable.synthetic)):
        if path.suffix == ".json":
            path.write_text(path.read_text().replace('"citation": ""', '"citation": "Ball et al. 2026"'))
            path.write_text(path.read_text().replace('"citation":""', '"citation":"Ball et al. 2026"'))
    assert publish(releasable).tier == "public"
    readme = (releasable.release / "README.md").read_text()
    assert "- open balls (licence: CC0-1.0). Please cite: Ball et al. 2026\n" in readme
    assert readme.count("- open balls") == 1, "one line a source's name, however many maps"
    assert "No licence is stated" not in readme


def test_weights_hold_no_label_map_that_a_licence_would_have_to_cover(releasable: Releasable) -> None:
    assert publish(without_licence(releasable), kind="weights").kind == "weights"


def test_inside_the_study_a_missing_licence_is_named(releasable: Releasable) -> None:
    without_licence(releasable).pack(tier="internal")
    readme = (releasable.release / "README.md").read_text()
    assert f"- open balls (licence: {UNSTATED})." in readme
    assert "**No licence is stated for: open balls.**" in readme


def test_a_signed_publication_without_a_licence_does_not_verify(releasable: Releasable) -> None:
    publish(releasable)
    source = {"kind": "public", "name": "open balls", "licence": UNSTATED, "citation": "", "sha256": "a" * 64}
    sign_again(releasable.release, in_predicate(label_sources=[source]))
    assert_refused(releasable.release, "states no licence")
