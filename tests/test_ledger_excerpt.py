"""What a report shows of a ledger: every line with ε after it for the site, totals and the head for everybody else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from ledgered_site import OTHER_RUN, cost, people, run_named, steps
from promised import DELTA, promised_site, promised_text
from report_content import a_study, content, words_of
from tiny_cohorts import tiny_text

from fedphantom.common.cohorts.roles import load_roles
from fedphantom.common.errors import VerificationFailed
from fedphantom.common.site_folder import SiteFolder, site_material
from fedphantom.common.study import Study, parse_study
from fedphantom.privacy.dp import ledger_excerpt
from fedphantom.privacy.dp.ledger import Ledger
from fedphantom.privacy.dp.ledger_excerpt import ExcerptLine, LedgerExcerpt, ledger_excerpts
from fedphantom.privacy.dp.limits import Budget
from fedphantom.privacy.dp.run_spent import run_name
from fedphantom.privacy.dp.statement import DpStatement, Spent
from fedphantom.privacy.report.content import ReportContent
from fedphantom.privacy.report.page import render_report

BUDGET = Budget(8.0, DELTA)


@pytest.fixture(scope="module")
def spent(tmp_path_factory: pytest.TempPathFactory) -> SiteFolder:
    """A site that took part in another study before this one, and whose last round nobody told the end of."""
    folder = promised_site(tmp_path_factory.mktemp("site"))
    study = folder.study()
    site_material(folder, study)
    name = run_name(study, load_roles(folder.coins).cohort_digest)
    run = run_named(name, study.digest())
    ledger = Ledger(folder.ledger, folder.journal)
    ledger.reserve(OTHER_RUN, people("abc"), steps(20), BUDGET).commit(20)
    ledger.reserve(run, people("abc"), steps(40), BUDGET).commit(30)
    ledger.reserve(run, people("abc"), steps(10), BUDGET)
    return folder


def test_every_line_stands_with_epsilon_as_the_ledger_knew_it_then(spent: SiteFolder) -> None:
    (excerpt,) = ledger_excerpts([spent], spent.study())
    told = [(line.what, line.of_line, line.steps, line.this_study) for line in excerpt.lines]
    first, second, third = (line.line for line in excerpt.lines if line.what == "reserved")
    assert told == [
        ("reserved", first, 20, False),
        ("done", first, 20, False),
        ("reserved", second, 40, True),
        ("done", second, 30, True),
        ("reserved", third, 10, True),
    ]
    # What was reserved counts whole until somebody says how much of it was done.
    assert [line.epsilon for line in excerpt.lines] == [cost(20), cost(20), cost(60), cost(50), cost(60)]
    assert (excerpt.site, excerpt.delta, excerpt.left_out) == ("site-a", DELTA, 0)
    assert excerpt.reserved == 50
    assert excerpt.spent == Spent(cost(40), 40)
    assert excerpt.head == Ledger(spent.ledger, spent.journal).spending().head


def test_of_a_long_ledger_the_first_and_the_last_lines_are_shown(
    spent: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = ledger_excerpts([spent], spent.study())
    monkeypatch.setattr(ledger_excerpt, "MOST_LINES", 4)
    (short,) = ledger_excerpts([spent], spent.study())
    assert short.lines == (*whole.lines[:2], *whole.lines[-2:])
    assert short.left_out == 1


def test_a_study_that_promises_nothing_has_no_ledger_to_show(spent: SiteFolder) -> None:
    assert ledger_excerpts([spent], parse_study(tiny_text())) == ()


def test_a_ledger_that_was_cut_is_not_shown_but_refused(tmp_path: Path) -> None:
    folder = promised_site(tmp_path)
    site_material(folder, folder.study())
    Ledger(folder.ledger, folder.journal).reserve(OTHER_RUN, people("abc"), steps(20), BUDGET)
    (folder.ledger / "ledger.jsonl").unlink()
    with pytest.raises(VerificationFailed):
        ledger_excerpts([folder], folder.study())


# On the page.


def promising() -> Study:
    privacy = parse_study(promised_text("0" * 64)).privacy
    return a_study().model_copy(update={"privacy": privacy})


def an_excerpt() -> LedgerExcerpt:
    lines = (
        ExcerptLine(3, "2026-11-02T14:05:00Z", "reserved", 3, 40, 1.0, 20.0, True, 1.25),
        ExcerptLine(4, "2026-11-02T14:09:00Z", "done", 3, 30, 1.0, 20.0, True, 1.125),
        ExcerptLine(5, "2026-11-03T09:00:00Z", "reserved", 5, 7, 0.25, 3.5, False, None),
    )
    return LedgerExcerpt("north-clinic", "cd" * 32, 40, Spent(1.125, 30), DELTA, lines)


def promised_content(*ledgers: LedgerExcerpt) -> ReportContent:
    promise = DpStatement(
        epsilon=1.125,
        delta=DELTA,
        sampling_rate=1.0,
        noise_multiplier=20.0,
        clip_norm=1.0,
        steps=30,
        noised="means",
    )
    return content(promising(), promise=promise, ledgers=ledgers)


def test_the_site_reads_its_ledger_line_by_line() -> None:
    page = words_of(render_report(promised_content(an_excerpt()), "internal"))
    ledger = page[page.index("Ledger: what the formal guarantee rests on") :]
    assert "This study reserved 40 noised steps; 30 of them count: ε = 1.13 at δ = 0.005." in ledger
    assert "3 2026-11-02T14:05:00Z 40 steps reserved, this study 1 20 1.25" in ledger
    assert "4 2026-11-02T14:09:00Z 30 of the steps reserved in line 3 done, this study 1 20 1.13" in ledger
    assert "5 2026-11-03T09:00:00Z 7 steps reserved, another study 0.25 3.5 ε beyond 100" in ledger
    assert "ε after it, at δ = 0.005" in ledger
    assert "cd" * 32 in ledger


def test_others_read_totals_and_the_head_and_no_line_of_it() -> None:
    page = words_of(render_report(promised_content(an_excerpt()), "shareable"))
    assert "This study reserved 40 noised steps; 30 of them count: ε = 1.13 at δ = 0.005." in page
    assert "cd" * 32 in page
    for line in ("14:09", "reserved in line", "steps reserved, another study", "beyond 100"):
        assert line not in page


def test_lines_left_out_are_said_to_be() -> None:
    excerpt = replace(an_excerpt(), lines=an_excerpt().lines[::2], left_out=7)
    page = words_of(render_report(promised_content(excerpt), "internal"))
    assert "7 lines between line 3 and line 5 left out." in page


def test_a_promise_without_a_ledger_at_hand_says_so_and_no_promise_says_nothing() -> None:
    assert "no site's ledger was at hand" in words_of(render_report(promised_content(), "shareable"))
    assert "rests on" not in words_of(render_report(content(), "internal"))


@pytest.mark.parametrize("rendition", ["internal", "shareable"])
def test_no_mark_of_a_patient_nor_their_names_reach_the_page(spent: SiteFolder, rendition: str) -> None:
    whole = promised_content(*ledger_excerpts([spent], spent.study()))
    page = render_report(whole, rendition)  # type: ignore[arg-type]
    text = (spent.ledger / "ledger.jsonl").read_text()
    secret = set(re.findall("[0-9a-f]{64}", text)) - {excerpt.head for excerpt in whole.ledgers}
    assert len(secret) > 10
    assert not [mark for mark in secret if mark in page]
    assert "patient-a" not in page


def test_the_shareable_page_numbers_the_ledgers_and_not_in_the_order_of_their_sites() -> None:
    names = ("St-Anna-Klinik", "UKE-Hamburg", "Zeisigwald")
    heads = ("9" * 64, "8" * 64, "7" * 64)
    ledgers = [replace(an_excerpt(), site=name, head=head) for name, head in zip(names, heads, strict=True)]
    internal, shareable = (render_report(promised_content(*ledgers), one) for one in ("internal", "shareable"))
    assert all(name in internal for name in names)
    assert not any(name in shareable for name in names)
    told = words_of(shareable)
    assert [told.index(word) for word in sorted(heads)] == sorted(told.index(head) for head in heads)
    assert all(f"Site {number} " in told for number in (1, 2, 3))
