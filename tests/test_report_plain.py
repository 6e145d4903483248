"""Reasons are told with names and words, and each fact once."""

from __future__ import annotations

import re
from typing import Any

import pytest
from report_content import a_control, an_attack, an_audit, content, words_of

from fedphantom.privacy.audit.report import audit_text
from fedphantom.privacy.evidence import REQUIRED_ATTACKS, TESTS
from fedphantom.privacy.report.cells import Cells
from fedphantom.privacy.report.page import render_report
from fedphantom.privacy.report.plain import plainly
from fedphantom.privacy.report.words import needed

MEMORISER = (
    "The control 'positive-model' does not reach its mark (AUC 1.00, L95 0.72 after 720 steps; needed: A1 AUC >= 0.90"
    " and L95 >= 0.75 on 16-24 members after at least 60 epochs)."
)


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        (
            MEMORISER,
            "The control ‘a generator made to memorise’ does not reach its mark (AUC 1.00, lower bound 0.72 after 720"
            " steps; needed: A1 (reconstruction) AUC at least 0.90 and lower bound at least 0.75 on 16-24 members after"
            " at least 60 epochs).",
        ),
        (
            "Attacks that were not run: A3-WB, A1/outliers, B0.",
            "Attacks that were not run: A3-WB (search of the weights); A1/outliers (reconstruction, on unusual"
            " patients); the blind baseline.",
        ),
        (
            "A weights release needs an attack of threat model W; none was run.",
            "A weights release needs an attack by somebody who has the generator's weights; none was run.",
        ),
        ("A3 (AUC 0.90) rejects 'no leak'.", "A3 (nearest neighbour, AUC 0.90) rejects 'no leak'."),
        ("B0's 95 % interval holds 0.5", "the blind baseline's 95 % interval holds 0.5"),
        (
            "24 holdout patients; the controlled tier asks for 50.",
            "24 holdout patients; the controlled tier asks for 50.",
        ),
    ],
)
def test_codes_become_the_names_that_the_page_has_for_them(sentence: str, told: str) -> None:
    assert plainly(sentence) == told


def test_every_attack_is_named_whole_and_none_within_another() -> None:
    for name in TESTS:
        assert re.fullmatch(rf"Attack {re.escape(name)} \([^()]+\) ran\.", plainly(f"Attack {name} ran."))


@pytest.mark.parametrize("rendition", ["internal", "shareable"])
def test_reasons_and_controls_on_the_page_hold_no_code_that_it_does_not_name(rendition: Any) -> None:
    control = a_control("positive-model", ok=False) | {"required": "A1 AUC >= 0.90 and L95 >= 0.75"}
    audit = an_audit(reasons=[MEMORISER, "Not scored, since few are: A1/outliers, A3/outliers."], controls=[control])
    page = render_report(content(audit=audit), rendition)
    words = words_of(page)
    assert "Why: The control ‘a generator made to memorise’ does not" in words
    assert "A1 (reconstruction) AUC at least 0.90 and lower bound at least 0.75" in words
    assert "A1/outliers (reconstruction, on unusual patients); A3/outliers" in words
    for code in (">=", "L95", "U95", "control 'positive"):
        assert code not in words


def test_the_terminal_names_them_too() -> None:
    result = an_audit(reasons=[MEMORISER]).model_dump(mode="json")
    assert "‘a generator made to memorise’" in audit_text(result)


def test_a_blind_baseline_that_was_not_run_is_told_once() -> None:
    others = [name for name in REQUIRED_ATTACKS["volumes"] if name != "B0"]
    without = an_audit(attacks=[an_attack(name, "S", 0.5) for name in others], controls=[])
    told = " ".join(needed(without, Cells(hide_small=False)))
    assert told.count("guessing without a generator") == 1
    assert "blind baseline" not in told
