"""What the page says is judged, and what so many patients could show at all."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from report_content import an_attack, an_audit, content, words_of

from fedphantom.privacy.report.page import render_report


def a_power(**changes: Any) -> dict[str, Any]:
    power = an_audit().power
    assert power is not None
    return asdict(power) | changes


def test_the_bound_that_is_judged_is_shown_rounded_upwards_and_with_its_confidence() -> None:
    attacks = [an_attack("A3", "S", 0.51) | {"auc_upper95": 0.6501}, an_attack("B0", "none", 0.49)]
    first = words_of(render_report(content(audit=an_audit(attacks=attacks)), "shareable"))
    assert "bound that is judged (95 %, one-sided) bound allowed up to" in first
    assert "0.51 (0.36 to 0.66) 0.651 0.65" in first, "it does not look as if it met the limit"
    assert "0.49 (0.34 to 0.64) 0.620 0.65" in first, "the blind baseline is held to the limit too"
    later = an_audit(audit_number=2, earlier_audits=[None], attacks=attacks)
    second = words_of(render_report(content(audit=later), "internal"))
    assert "bound that is judged (97.5 %, one-sided)" in second
    assert "0.49 (0.34 to 0.64) 0.620 (95 %) 0.65" in second
    untold = an_audit(attacks=[an_attack("A3", "S", 0.51) | {"auc_upper95": None}])
    assert "0.51 (0.36 to 0.66) – 0.65" in words_of(render_report(content(audit=untold), "internal"))


def test_the_page_says_what_the_audit_was_able_to_see() -> None:
    for rendition in ("internal", "shareable"):
        page = words_of(render_report(content(), rendition))
        assert "a leak with an AUC from 0.70 is found by one attack four times in five." in page
        assert "a perfect attack would prove ε ≥ 1.9, no more." in page
        assert "no false alarm among them still allows a false positive rate of up to 11.7%." in page
        assert "A PASS is out of reach: the controlled tier asks for 50 holdout patients." in page
    enough = a_power(n_member=60, n_holdout=60, joint_power=0.27)
    page = words_of(render_report(content(audit=an_audit(power=enough)), "shareable"))
    assert "passes with a probability of about 27% in the controlled tier" in page
    assert "does not say what so many patients can show" in words_of(
        render_report(content(audit=an_audit(power=None)), "internal")
    )


def test_what_few_patients_could_show_stays_at_the_site_since_it_tells_how_many() -> None:
    few = content(audit=an_audit(power=a_power(n_holdout=11, fpr_bound=0.238)))
    assert "up to 23.8%" in words_of(render_report(few, "internal"))
    shared = words_of(render_report(few, "shareable"))
    assert "23.8" not in shared
    assert "Not told on this page: it follows from the number of patients" in shared
