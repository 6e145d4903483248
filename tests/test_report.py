"""The HTML page: what it says, what it must not hold, and that a browser fetches and runs nothing for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from report_content import (
    SHA,
    SHAPE,
    a_control,
    a_study,
    an_attack,
    an_audit,
    content,
    empty,
    rounds,
    words_of,
)

from fedphantom.common.errors import DataError
from fedphantom.common.labels.chain import UNSTATED, LabelSource
from fedphantom.privacy.dp.statement import DpStatement
from fedphantom.privacy.evidence import REQUIRED_ATTACKS
from fedphantom.privacy.report.cells import Cells
from fedphantom.privacy.report.content import (
    Rendition,
    ReportAudit,
    ReportEvaluation,
    ReportRound,
    RocCurve,
    SyntheticSample,
)
from fedphantom.privacy.report.names import attack_deed, attack_name
from fedphantom.privacy.report.page import render_report
from fedphantom.privacy.report.words import beyond_release, headline, needed

ALL = Cells(hide_small=False)


# --- what it says


def test_a_page_opens_with_verdict_dp_and_release() -> None:
    page = words_of(render_report(content(), "internal"))
    start = page[: page.index("Why this verdict Attacks")]
    assert "INCONCLUSIVE The audit neither found a leak nor ruled one out." in start
    assert "Why: 24 holdout patients" in start
    assert "NONE ( dp: none )" in start
    assert "There is no differential privacy and no ε ." in start
    assert "REFUSED" in start
    assert "audit verdict INCONCLUSIVE; expected PASS." in start


def a_promise(epsilon: float) -> DpStatement:
    return DpStatement(
        epsilon=epsilon,
        delta=0.002,
        sampling_rate=1.0,
        noise_multiplier=0.61,
        clip_norm=1.0,
        steps=2,
        noised="means",
    )


def test_a_promise_is_told_whole_and_never_as_a_bare_epsilon() -> None:
    page = words_of(render_report(content(promise=a_promise(7.314)), "shareable"))
    start = page[: page.index("Why this verdict Attacks")]
    for part in (
        "ε = 7.32 at δ = 0.002",
        "unit: patient",
        "adjacency: add/remove one patient",
        "sampling: Poisson, q = 1",
        "σ = 0.61",
        "2 noised steps of the mean intensities of structures",
        "accountant: pld",
        "An ε above 3 forbids few attacks by itself",
    ):
        assert part in start
    assert "NONE" not in start.partition("Release")[0].partition("Formal guarantee")[2]


@pytest.mark.parametrize(("epsilon", "sign"), [(1.0, "✓"), (3.0, "✓"), (3.1, "–"), (80.0, "–")])
@pytest.mark.parametrize("rendition", ["internal", "shareable"])
def test_a_promise_claims_what_differential_privacy_gives_and_no_more(
    epsilon: float, sign: str, rendition: Rendition
) -> None:
    page = words_of(render_report(content(promise=a_promise(epsilon)), rendition))
    card = page.partition("Formal guarantee")[2].partition("Release")[0]
    assert card.strip().startswith(f"{sign} ε = {epsilon:g}")
    assert "they could do almost as well had this one patient stayed away; ‘almost’ is ε and δ." in card
    assert "It covers this study alone: other studies of the same patients add up" in card
    assert ("this page does not say what they spent" in card) == (rendition == "shareable")
    assert "anyone can learn" not in page
    assert "can tell about one patient" not in page


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        ("PASS", "No attack tested succeeded."),
        ("INCONCLUSIVE", "The audit neither found a leak nor ruled one out."),
        ("INVALID", "The audit proves nothing, in either direction."),
        ("FAIL", "The audit found a leak."),
    ],
)
def test_each_verdict_has_its_plain_sentence_and_a_title_that_says_it(verdict: str, sentence: str) -> None:
    page = render_report(content(audit=an_audit(verdict)), "shareable")
    assert sentence in words_of(page)
    assert f"<title>Three hospitals: {verdict}</title>" in page


@pytest.mark.parametrize("rendition", ["internal", "shareable"])
@pytest.mark.parametrize("verdict", ["PASS", "INCONCLUSIVE", "INVALID", "FAIL"])
def test_no_page_calls_anything_anonymous(verdict: str, rendition: Any) -> None:
    assert "anonym" not in render_report(content(audit=an_audit(verdict)), rendition).lower()


def test_the_page_says_which_attacks_had_nothing_to_ask_and_wants_none_of_them() -> None:
    audit = an_audit(not_applicable={"A10": "all alike"})
    page = words_of(render_report(content(audit=audit), "shareable"))
    assert "Attack A10 (attribute) had nothing to ask: all alike." in page
    assert any("A10" in remedy for remedy in needed(an_audit(), ALL))
    assert not any("A10" in remedy for remedy in needed(audit, ALL))


def test_a_pass_does_not_hide_an_attack_that_needs_more_than_is_released() -> None:
    audit = an_audit("PASS", attacks=[an_attack("A1", "G", 0.8), an_attack("A3", "S", 0.5)])
    assert headline(audit).sentence == (
        "No attack that binds for a volumes release succeeded; A1 (AUC 0.80) did: it needs the patients' own label "
        "maps, which no release holds, and the generator. That nothing of it shows in what is released rests on the "
        "attacks tested alone."
    )
    assert "Attack A1 (reconstruction) does recognise members: AUC 0.80, at least 0.65" in beyond_release(audit)[0]
    assert beyond_release(an_audit("PASS", release="weights", attacks=[an_attack("A1", "G", 0.8)])) == ()


def test_a_pass_inside_the_study_names_the_attack_that_was_not_judged() -> None:
    rejecting = an_attack("A3", "S", 0.9) | {"rejects": True}
    audit = an_audit("PASS", tier="internal", attacks=[an_attack("A1", "G", 0.5), rejecting])
    assert headline(audit).sentence == "Not judged at this tier: A3 (AUC 0.90) rejects 'no leak'."
    assert beyond_release(audit) == ()


def test_an_inconclusive_audit_in_which_an_attack_succeeded_is_not_said_to_have_found_nothing() -> None:
    rejecting = an_attack("A3", "S", 0.9) | {"rejects": True}
    found = headline(an_audit("INCONCLUSIVE", attacks=[an_attack("A1", "G", 0.5), rejecting])).sentence
    assert found.startswith("The audit did not rule a leak out, and it found signs of one.")
    assert "A3 (AUC 0.90)" in found
    quiet = an_audit("INCONCLUSIVE", attacks=[an_attack("A1", "G", 0.5), an_attack("A3", "S", 0.5)])
    assert headline(quiet).sentence == "The audit neither found a leak nor ruled one out."


def test_every_epsilon_is_shown_with_its_delta_unit_and_adjacency() -> None:
    means = {
        "kind": "lower bound shown by an attack, 95 %; proves no upper bound",
        "delta": 0.00079,
        "unit": "patient",
        "adjacency": "add or remove one patient",
    }
    page = words_of(render_report(content(audit=an_audit(epsilon_means=means)), "shareable"))
    assert "lower bound shown by an attack, 95 %; proves no upper bound; 0.00 means that nothing was proved." in page
    assert "δ = 0.00079; unit: patient;" in page
    assert "adjacency (what is compared): add or remove one patient" in page
    assert "does not say of which δ" in words_of(render_report(content(), "shareable"))


def test_a_blind_baseline_that_succeeds_is_no_attack_beyond_the_release() -> None:
    assert beyond_release(an_audit("INVALID", attacks=[an_attack("B0", "none", 0.8)])) == ()


def test_inconclusive_says_what_would_be_needed() -> None:
    told = " ".join(
        needed(an_audit(controls=[a_control("positive-model", ok=False)], attacks=[an_attack("A3", "S", 0.55)]), ALL)
    )
    assert "At least 50 holdout patients for the tier 'controlled'; this audit had 24." in told
    assert "The control 'a generator made to memorise' to hold; in this audit it did not." in told
    assert "The control 'planted copies', which was not run." in told
    assert "Attacks that were not run: A1 (reconstruction); A3/own (nearest neighbour, own label maps); A4" in told
    assert "come to lie below 0.65: for 1 test of attacks" in told


def test_only_inconclusive_says_what_would_be_needed() -> None:
    assert needed(an_audit("PASS"), ALL) == ()
    assert needed(an_audit("FAIL"), ALL) == ()


def test_thresholds_that_a_site_changed_are_shown_with_the_reason() -> None:
    policy = {
        "auc_upper_max": 0.71,
        "outlier_auc_upper_max": 0.75,
        "min_holdout": 20,
        "reasons": {"auc_upper_max": {"reason": "the data are old", "by": "the board", "on": "2026-11-20"}},
    }
    page = words_of(render_report(content(audit=an_audit(policy=policy)), "shareable"))
    assert "auc_upper_max: the data are old (the board, 2026-11-20)" in page
    assert "0.51 (0.36 to 0.66) 0.640 0.71" in page


def test_a_later_audit_says_what_its_finds_and_its_limits_are_held_against() -> None:
    page = words_of(render_report(content(audit=an_audit(audit_number=4, earlier_audits=[None] * 3)), "shareable"))
    assert "This was audit 4 of these holdout patients" in page
    assert "stand out among the figures of all 4 audits" in page
    assert "an upper bound that holds with 98.75 % confidence instead of 95 %" in page


def test_an_attack_on_too_few_unusual_patients_is_said_to_need_more_of_them() -> None:
    audit = an_audit(too_small=["A3/outliers"], attacks=[an_attack("A3", "S", 0.5)])
    told = "too few were unusual enough to score A3/outliers (nearest neighbour, on unusual patients)."
    assert any(words.endswith(told) for words in needed(audit, Cells(hide_small=False)))


def test_the_attack_table_holds_every_figure_with_its_interval() -> None:
    page = words_of(render_report(content(), "shareable"))
    assert "A3: nearest neighbour" in page
    assert "the synthetic volumes 0.51 (0.36 to 0.66) 0.640 0.65 12% (3% to 31%) 0.31 < 0.001" in page
    assert "25 members were compared with 24 holdout patients" in page
    assert "This was audit 1 of these holdout patients" in page


def test_a_control_that_was_not_run_stands_in_the_table_as_not_run() -> None:
    page = words_of(render_report(content(audit=an_audit(controls=[a_control("negative", ok=False)])), "internal"))
    assert page.count("✗ NOT RUN") == 4
    assert page.count("✗ NO ") >= 1
    assert "smoke detector" in page


def test_usefulness_shows_each_arm_its_interval_and_the_ratio_to_real() -> None:
    page = words_of(render_report(content(), "shareable"))
    assert "29 real patients whom none of them had seen" in page
    assert "synthetic volumes only 0.76 (0.74 to 0.78) 0.95" in page
    assert "anterior trained on Dice (95 % interval) real 0.79 (0.77 to 0.81) synthetic 0.71 (0.69 to 0.73)" in page


def test_rounds_say_who_was_left_out_but_not_why() -> None:
    page = render_report(content(), "internal")
    assert "Left out: site-b in 1 of 4 rounds." in words_of(page)
    assert "deadline" not in page


def test_a_round_that_was_given_up_is_shown_as_such_and_nobody_to_have_missed_it() -> None:
    why = "site-b: <no> shares"
    lost = ReportRound(round=2, sites=(), left_out={"site-b": "too slow"}, given_up=why)
    first, _, *rest = rounds()
    run = content(rounds=(first, lost, *rest))
    internal, shareable = words_of(render_report(run, "internal")), words_of(render_report(run, "shareable"))
    assert f"4 rounds. Round 2 was given up, and no site's training of it counts: {why}. Every site took" in internal
    assert "took part in every other round." in internal
    assert "✕ it was left out, ● the round was given up." in internal
    assert "2 sites, 4 rounds. 1 round of them was given up. Every site took part in every other round." in shareable
    assert why not in shareable
    assert "given up" not in words_of(render_report(content(), "internal"))


def test_sources_show_licence_citation_and_how_many_maps() -> None:
    page = words_of(render_report(content(), "shareable"))
    assert "Public hippocampi 16 CC-BY-SA-4.0 Simpson et al., arXiv:1902.09063" in page


def test_label_maps_without_a_licence_are_said_to_be_nobodys_to_pass_on() -> None:
    source = LabelSource(kind="public", name="Found maps", licence=UNSTATED, sha256=SHA)
    page = words_of(render_report(content(label_sources=(source,)), "internal"))
    assert f"Found maps 1 {UNSTATED} Nobody may pass on what was made from these label maps" in page
    assert "Nobody may pass on" not in words_of(render_report(content(), "internal"))


def test_a_run_on_one_machine_does_not_claim_that_images_stayed_in_hospitals() -> None:
    simulated = words_of(render_report(content(simulated=True), "internal"))
    assert "All sites of this run lay on one machine" in simulated
    assert "Images stay at the sites" not in simulated
    assert "Images stay at the sites" in words_of(render_report(content(simulated=False), "internal"))


def test_times_say_what_a_reader_has_to_know_of_them() -> None:
    page = words_of(render_report(content(times_note="The run was stopped once."), "internal"))
    assert "audit 1 h 10 min evaluation 1 min 01 s The run was stopped once." in page


def test_an_attack_on_a_handful_of_patients_is_said_to_mean_nothing() -> None:
    lucky = an_attack("A1/outliers", "G", 1.0, 0) | {"n_member": 1, "n_holdout": 1}
    page = words_of(render_report(content(audit=an_audit(attacks=[lucky, an_attack("A3", "S", 0.5)])), "internal"))
    assert "on 1 member and 1 holdout patient: too few for its figures to mean anything" in page
    assert "on 25 members and 24 holdout patients the synthetic volumes 0.50" in page


def test_a_limit_is_told_only_where_the_tier_sets_one_for_this_release() -> None:
    page = words_of(render_report(content(audit=an_audit(tier="internal")), "internal"))
    assert "0.51 (0.36 to 0.66) 0.640 no limit in this tier" in page
    assert "0.52 (0.37 to 0.67) 0.650 not judged" in page


def test_what_is_missing_is_said_to_be_missing() -> None:
    page = words_of(render_report(empty(), "shareable"))
    assert page.count("Missing:") == 7
    assert "NO AUDIT" in page
    assert "No audit was run." in page
    assert "NONE ( dp: none )" in page


def test_an_audit_of_another_generator_forbids_signing() -> None:
    assert "Do not sign" not in render_report(content(), "internal")
    assert "Do not sign" in render_report(content(generator_sha256="cd" * 32), "internal")


def test_the_paper_to_be_signed_names_what_is_signed_for_and_has_a_line_for_a_reason() -> None:
    signed = content(audit=an_audit(synthetic_sha256="12" * 32), audit_sha256="34" * 32)
    for rendition in ("internal", "shareable"):
        page = words_of(render_report(signed, rendition))
        block = page[page.index("Decision and signature The tool") :]
        for digest in (a_study().digest(), SHA, "12" * 32, "34" * 32):
            assert digest in block
        assert "Decision ☐ approved ☐ refused Reason Name and office" in block
    nothing = words_of(render_report(empty(), "internal"))
    assert "audit's result file not named on this page audited volumes none" in nothing


# --- bad input


@pytest.mark.parametrize(
    "sample",
    [
        SyntheticSample(np.zeros((1, 2, *SHAPE), np.float32), np.zeros((1, *SHAPE), np.uint8)),
        SyntheticSample(np.zeros((1, 1, *SHAPE), np.float32), np.zeros((2, *SHAPE), np.uint8)),
        SyntheticSample(np.full((1, 1, *SHAPE), np.nan, np.float32), np.zeros((1, *SHAPE), np.uint8)),
        SyntheticSample(
            *(np.zeros((1, *c, *SHAPE), t) for c, t in (((1,), np.float32), ((), np.uint8))),
            np.zeros((1, 1, 2, 2, 2), np.float32),
        ),
    ],
    ids=["channels", "labels", "not finite", "real of another shape"],
)
def test_volumes_that_do_not_fit_the_study_are_refused(sample: SyntheticSample) -> None:
    with pytest.raises(DataError, match="volumes to show"):
        content(synthetic=sample)


@pytest.mark.parametrize(
    ("fpr", "tpr"),
    [([0, 1], [0, 0.5, 1]), ([0, 0.6, 0.5, 1], [0, 0.1, 0.2, 1]), ([0, 1.5], [0, 1]), ([0, float("nan")], [0, 1])],
    ids=["lengths", "not ascending", "beyond 1", "not a number"],
)
def test_a_curve_that_is_none_is_refused(fpr: list[float], tpr: list[float]) -> None:
    with pytest.raises(DataError, match="ROC curve"):
        RocCurve("A1", np.array(fpr), np.array(tpr), 5, 5)


@pytest.mark.parametrize(
    "read",
    [
        lambda: ReportEvaluation.read({"arms": []}),
        lambda: ReportRound.read({}),
        lambda: ReportAudit.read({"verdict": "GOOD"}),
    ],
)
def test_a_file_that_is_not_a_result_is_refused_by_its_key(read: Callable[[], object]) -> None:
    with pytest.raises(DataError, match="cannot be shown"):
        read()


@pytest.mark.parametrize("name", REQUIRED_ATTACKS["weights"])
def test_every_attack_has_a_name_and_says_what_it_does(name: str) -> None:
    assert attack_name(name) != name
    assert len(attack_deed(name)) > 20
