"""A shareable page tells no number of real patients between 1 and 19, and no figure that would give one away."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_content import a_control, an_attack, an_audit, content, words_of

from fedphantom.privacy.report.cells import SMALLEST_CELL, Cells
from fedphantom.privacy.report.content import ReportContent, ReportEvaluation
from fedphantom.privacy.report.page import render_report
from fedphantom.privacy.report.people import PeopleCounts

SHY, OPEN = Cells(hide_small=True), Cells(hide_small=False)


def small_study(**changes: Any) -> ReportContent:
    """Groups of 11, 13, 17 and 19 patients, told in every way that a page tells them."""
    tpr = [{"fpr": 0.0, "tpr": 3 / 13, "ci": [0.05, 0.54], "resolvable": True, "fpr_bound": 0.24}]
    audit = an_audit(
        counts={"reference": 17, "member": 31, "holdout": 11, "training": 19, "audited_patients": 42, "sites": 3},
        reasons=[
            "Only 11 holdout patients: below 20 no attack statistic means anything.",
            "Of 31 members 13 were found copied: the rate could be 58.7% (95 % confidence); to be shown: at most 9%.",
        ],
        attacks=[an_attack("A3", "S", 0.51) | {"n_member": 31, "n_holdout": 11, "tpr": tpr}],
        controls=[a_control("positive-model", ok=False) | {"got": "only 17 members to memorise"}],
        reference_stands_in="16 public patients stand in as reference",
    )
    dice = {"mean": 0.8, "ci": [0.7, 0.9], "n_test": 13}
    arms = [{"name": "real", "scans": 19, "dice": dice}, {"name": "real+synthetic", "scans": 119, "dice": dice}]
    return content(
        audit=audit,
        evaluation=ReportEvaluation.read({"arms": arms, "region": "foreground"}),
        people=PeopleCounts(real=17, procedural=0),
        roc=(),
        # Other numbers would only be in the way.
        **{"created": "today", "generator_sha256": "ab" * 32, "synthetic": None, "label_sources": (), **changes},
    )


def told(page: str) -> set[str]:
    """Every whole number in the page's text; hashes and the number of further reasons left out."""
    return set(re.findall(r"(?<![\w.])\d+(?![\w.]*\w)", re.sub(r"And \d+ more", "", words_of(page))))


def test_a_shareable_page_tells_no_small_group_and_nothing_it_follows_from() -> None:
    page = render_report(small_study(), "shareable")
    assert not {"11", "13", "17", "19", "23", "42", "119"} & told(page), (
        "42 - 31 is 11, 119 - 100 is 19, 23 % of 13 is 3"
    )
    assert "58.7" not in page, "from the rate's upper end its numbers follow"
    text = words_of(page)
    assert "Fewer than 20 holdout patients: no attack statistic means anything." in text
    assert "holdout patients fewer than 20" in text
    assert "computed on fewer than 20 patients: figures about so few stay at the site" in text
    assert "this audit had fewer than 20." in text
    assert "16 public patients stand in" in text, "public patients are no secret"
    assert "members 31" in text


def test_the_internal_page_tells_them() -> None:
    assert {"11", "13", "17", "19", "23", "42"} <= told(render_report(small_study(), "internal"))


def test_nobody_stands_behind_a_procedural_group_so_that_it_is_told() -> None:
    page = render_report(replace(small_study(), people=PeopleCounts(real=0, procedural=17)), "shareable")
    assert {"11", "13", "17", "19"} <= told(page)


def test_no_delta_is_told_that_would_tell_how_many_were_trained_on() -> None:
    means = {"kind": "lower bound", "delta": 1 / 150, "unit": "patient", "adjacency": "add or remove one patient"}
    few = an_audit(counts={"member": 9, "holdout": 25, "training": 6}, epsilon_means=means)
    page = words_of(render_report(content(audit=few), "shareable"))
    assert "0.0067" not in page
    assert "δ = 0.006;" in page, "one digit, downwards: what refutes an ε at some δ refutes it at every smaller one"
    many = an_audit(counts={"member": 29, "holdout": 25, "training": 60}, epsilon_means=means)
    assert "δ = 0.0067" in words_of(render_report(content(audit=many), "shareable"))


@given(st.integers(0, 400), st.sampled_from(["members", "holdout patients", "patients", "member", "control patients"]))
def test_a_number_in_a_sentence_is_told_from_twenty_on(number: int, group: str) -> None:
    sentence = f"The audit had {number} {group}, which is little."
    shown = SHY.sentence(sentence)
    assert (shown == sentence) == (number >= SMALLEST_CELL)
    assert SHY.hides(number) == (shown != sentence) == (f"had {number} {group}" not in shown)
    assert OPEN.sentence(sentence) == sentence


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "Reduced audit: the negative control trained 1 of 3 generators.",
        "A1 AUC >= 0.90 and L95 >= 0.75 on 16-24 members after at least 60 epochs",
        "10 exact, 8 with noise, 9 moved",
        "Of 120 members 0 were found copied: the rate could be 2.5% (95 % confidence); to be shown: at most 9%.",
    ],
)
def test_numbers_of_other_things_stay(sentence: str) -> None:
    assert SHY.sentence(sentence) == sentence


def evaluated(*n_test: int, people: PeopleCounts | None = None) -> ReportContent:
    """An arm for each of these numbers of test patients, with a structure, and a ratio to the first."""
    figure = [{"mean": 0.8, "ci": [0.7, 0.9], "n_test": n} for n in n_test]
    names = ["real", "synthetic", "public"][: len(n_test)]
    arms = [{"name": a, "dice": f, "per_label": {"tumour": f}} for a, f in zip(names, figure, strict=True)]
    ratios = dict(zip(names[1:], figure[1:], strict=True))
    return content(evaluation=ReportEvaluation.read({"arms": arms, "ratio_to_real": ratios}), people=people)


@pytest.mark.parametrize("number", [1, 19])
def test_a_mean_over_fewer_than_twenty_real_patients_is_not_shared_and_that_is_said(number: int) -> None:
    made = evaluated(number, number)
    shared = words_of(render_report(made, "shareable"))
    assert "stay at the site" in shared
    assert "0.80" not in shared[shared.index("Usefulness") : shared.index("Training")]
    assert "0.80 (0.70" in words_of(render_report(made, "internal"))  # its owner's own


def test_only_the_arms_and_structures_over_enough_patients_are_shared() -> None:
    made = evaluated(20, 19, 29).shareable().evaluation
    assert made is not None
    assert [arm.name for arm in made.arms] == ["real", "public"]
    assert set(made.ratio_to_real) == {"public"}


def test_figures_of_procedural_patients_are_shared_however_few() -> None:
    nobody = PeopleCounts(real=0, procedural=72)
    assert evaluated(1, 1, people=nobody).shareable().evaluation is not None


def test_real_patients_among_procedural_ones_are_not_told_by_what_is_left() -> None:
    page = words_of(render_report(replace(small_study(), people=PeopleCounts(real=3, procedural=40)), "shareable"))
    assert "for most patients no person was scanned" in page
    assert "of 43" not in page
