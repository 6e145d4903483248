"""Questions of the law: each stands on both pages beside what this audit found, and nothing that it did not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report_content import an_attack, an_audit, content, empty, words_of

from fedphantom.privacy.report.cells import Cells
from fedphantom.privacy.report.content import ReleaseOutcome, ReportAudit
from fedphantom.privacy.report.legal import legal_rows
from fedphantom.privacy.report.page import render_report
from fedphantom.privacy.statistics import clopper_pearson

OPEN, SHY = Cells(hide_small=False), Cells(hide_small=True)


def audited(members: int = 60, copied: int = 0, **changes: Any) -> ReportAudit:
    searched: dict[str, Any] = {
        "counts": {"member": members, "holdout": 50, "synthetic": 40},
        "confirmed_copies": copied,
        "copied_members": copied,
        "copied_labels": {"released": 0, "member": 0, "holdout": 0},
    }
    return an_audit(**(searched | changes))


def found(audit: ReportAudit | None, question: str, cells: Cells = OPEN, release: ReleaseOutcome | None = None) -> str:
    (row,) = [row for row in legal_rows(audit, release, cells) if row.question.startswith(question)]
    return "; ".join(row.found)


@pytest.mark.parametrize("rendition", ["internal", "shareable"])
def test_both_pages_hold_every_question_with_its_rows_and_what_was_found(rendition: Any) -> None:
    page = words_of(render_report(content(audit=audited()), rendition))
    table = page[page.index("What the law asks, and what") : page.index("What this does not protect Attacks")]
    for told in (
        "WP29 05/2014 Singling out: can one person's record be picked out? A3 (nearest neighbour), A7 (likeness to a"
        " copy), A9 (coins guessed); searches for copies A3: AUC 0.51, at most 0.640; A3 on unusual patients: AUC 0.50,"
        " at most 0.630; A7: not run; A9: not run; 0 synthetic volumes found to repeat a patient's scan;"
        " 0 label maps found to be a patient's own.",
        "A1 (reconstruction); share of members copied A1: AUC 0.52, at most 0.650",
        "0 of 60 members found copied: a share of at most 0.049 (95 % confidence); allowed in this audit: 0.09",
        "A10 (attribute) A10: not run.",
        "A3-WB (search of the weights): of 20 steps from the patient's own label map, changing that and the coarse"
        " noise alone; whatever else can be drawn out of weights was not tried A3-WB: not run.",
        "verdict INCONCLUSIVE; 5 tests by attacks; the blind baseline was not run; 4 of 4 controls held.",
        "a release of volumes: INCONCLUSIVE; of weights this verdict says nothing.",
        "HIPAA, 45 CFR 164.514(b)(2) Safe Harbor",
        "no release was packed: see its reasons.",
        "HIPAA, 45 CFR 164.514(b)(1) Expert Determination",
        "EMA policy 0070 and Health Canada",
    ):
        assert told in table, told
    assert "This table is evidence for those who decide, and no legal opinion." in page


def test_figures_are_the_audits_own() -> None:
    told = found(audited(attacks=[an_attack("A3", "S", 0.7), an_attack("A9", "S", 0.61)]), "Singling out")
    assert told.startswith("A3: AUC 0.70, at most 0.830; A3 on unusual patients: not run; A7: not run; A9: AUC 0.61")
    copied = found(audited(copied=25, confirmed_copies=31), "Singling out")
    assert "31 synthetic volumes found to repeat a patient's scan" in copied


@pytest.mark.parametrize(("number", "confidence"), [(1, "95"), (4, "98.75")])
def test_the_copy_rate_is_the_bound_that_the_verdict_judges(number: int, confidence: str) -> None:
    audit = audited(copied=25, audit_number=number, earlier_audits=[None] * (number - 1))
    upper = clopper_pearson(25, 60, 2 * (1 - 0.05 / number) - 1)[1]
    assert f"25 of 60 members found copied: a share of at most {upper:.3f} ({confidence} % confidence)" in found(
        audit, "Linkability"
    )


def test_a_small_group_is_told_by_no_bound() -> None:
    assert "of at most" in found(audited(members=13), "Linkability")
    assert found(audited(members=13), "Linkability", SHY).endswith("no member found copied")
    assert found(audited(copied=3), "Linkability", SHY).endswith("members were found copied")
    page = words_of(render_report(content(audit=audited(members=13)), "shareable"))
    assert "of at most 0.2" not in page, "the upper bound of none of 13"


def test_what_was_not_run_not_scored_or_not_told_is_said_to_be_so() -> None:
    assert found(audited(attacks=[], too_small=["A3/outliers"]), "Singling out").startswith(
        "A3: not run; A3 on unusual patients: not scored, too few patients; A7: not run"
    )
    assert found(audited(not_applicable={"A10": "all alike"}), "Inference") == "A10: nothing to ask, all alike"
    assert "share of members copied: not told" in found(an_audit(), "Linkability")
    assert "copies: not told" in found(an_audit(), "Singling out")
    nothing_painted = audited(counts={"member": 60, "holdout": 50, "synthetic": 0})
    assert "copies: not run, no volume was painted" in found(nothing_painted, "Singling out")
    assert "not run, no volume was painted" in found(nothing_painted, "Is the risk of re-identification")


def test_without_an_audit_nothing_was_found() -> None:
    for question in ("Singling", "Linkability", "Inference", "How likely is it that a", "Is resistance", "Weights"):
        assert "not run: there is no audit" in found(None, question)
    assert "not run: there is no audit" in words_of(render_report(empty(), "shareable"))


def test_safe_harbor_is_said_of_a_release_that_was_checked_and_of_no_other() -> None:
    assert "‘fedphantom release pack’ and ‘release approve’ run them" in found(audited(), "Safe Harbor")
    packed = ReleaseOutcome(True, "controlled", "volumes")
    assert "the release was packed" in found(audited(), "Safe Harbor", release=packed)
    assert "no release was packed" in found(audited(), "Safe Harbor", release=replace(packed, packed=False))
