"""What a page must not hold: voxels, small groups, somebody else's markup; looked at in a real browser."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from report_content import (
    SHA,
    SHAPE,
    a_control,
    a_curve,
    a_sample,
    a_study,
    an_attack,
    an_audit,
    content,
    images_in,
    is_checkerboard,
    words_of,
)

from fedphantom.common.labels.chain import LabelSource
from fedphantom.privacy.report.content import (
    ReleaseOutcome,
    ReportContent,
    ReportEvaluation,
    ReportRound,
)
from fedphantom.privacy.report.page import render_report

HOSTILE = '"><script>document.title="ran"</script><img src="http://127.0.0.1:{port}/x.png">'


class Elements(HTMLParser):
    """Every element as (tag, attribute names)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


# --- what it must not hold


def test_the_internal_page_shows_real_neighbours_and_says_so() -> None:
    page = render_report(content(), "internal")
    assert sum(map(is_checkerboard, images_in(page))) == 2 * (3 + SHAPE[2]), (
        "in three planes, and in the film slice by slice"
    )
    assert "INTERNAL: this page shows scans of real patients" in words_of(page)


def test_the_shareable_page_holds_no_real_voxel() -> None:
    page = render_report(content(), "shareable")
    images = images_in(page)
    assert len(images) == 2 * 3
    assert not any(map(is_checkerboard, images))
    assert "real patient" not in re.sub(r"<p>.*?</p>", "", page[page.index('id="slices"') : page.index('id="limits"')])
    without = replace(content(), synthetic=a_sample(a_study(), real=False))
    assert page == render_report(without, "shareable"), "real voxels change nothing of the page"


HOSPITALS = ("St-Anna-Klinik", "UKE-Hamburg", "Zeisigwald")


def test_the_shareable_page_names_no_site_and_nobody_who_dropped_out() -> None:
    rounds = (
        ReportRound(round=1, sites=HOSPITALS, metrics={"fake_mean": 0.5}),
        ReportRound(round=2, sites=HOSPITALS[:2], left_out={HOSPITALS[2]: "too slow"}, metrics={"fake_mean": 0.4}),
        ReportRound(round=3, sites=HOSPITALS[1:], left_out={HOSPITALS[0]: "too slow"}, metrics={"fake_mean": 0.4}),
    )
    internal, shareable = (render_report(content(rounds=rounds), one) for one in ("internal", "shareable"))
    assert all(name in internal for name in HOSPITALS)
    assert not any(name in shareable for name in HOSPITALS)
    told = words_of(shareable)
    assert "3 sites, 3 rounds. In 2 of them a site or more was left out." in told
    assert "Which site took part" not in told


def test_the_shareable_page_draws_no_curve_of_a_handful_of_patients() -> None:
    assert "A1/outliers: 25 members, 6 holdout" in render_report(content(), "internal")
    page = render_report(content(), "shareable")
    assert "A1/outliers: 25 members, 6 holdout" not in page
    assert "A1: 25 members, 24 holdout" in page
    assert "nearly be a list of them: A1/outliers." in words_of(page)


def test_the_shareable_page_tells_no_number_of_patients_under_twenty() -> None:
    few = [row | {"n_member": 17, "n_holdout": 13} for row in (an_attack("A1", "G", 0.52), an_attack("A3", "S", 0.51))]
    audit = an_audit(
        attacks=few,
        controls=[
            a_control(name) | {"got": "AUC 1.00, L95 0.79 on 13 patients"} for name in ("positive-model", "blind")
        ],
        counts={"member": 17, "holdout": 13, "control": 6, "audited_patients": 30, "sites": 3, "synthetic": 12},
        reasons=["The copy rate of 17 members could be 16.2%."],
    )
    figure = {"mean": 0.8, "ci": [0.7, 0.9], "n_test": 11}
    evaluation = ReportEvaluation.read(
        {"arms": [{"name": "real", "scans": 18, "dice": figure, "per_label": {"a": figure}}]}
    )
    internal = words_of(render_report(content(audit=audit, evaluation=evaluation), "internal"))
    assert "17 members were compared with 13 holdout patients" in internal
    assert "on 11 real patients" in internal

    shared = words_of(render_report(content(audit=audit, evaluation=evaluation), "shareable"))
    assert "fewer than 20 members were compared with fewer than 20 holdout patients" in shared
    assert "fewer than 20" in shared[shared.index("control patients") :][:120]
    assert "synthetic volumes 12" in shared
    assert "this audit had fewer than 20" in shared
    assert "computed on fewer than 20 patients" in shared
    assert "the real training patients (18 scans)" in internal
    assert "18 scans" not in shared
    assert "Fewer than 20 holdout patients: no attack statistic means anything." in shared
    assert "figures are told in steps of 0.05" in shared
    assert "0.50 (0.35 to 0.70) 0.650 0.65 – 0.00 0.050" in shared
    for gone in ("17 members", "13 holdout", "13 patients", "of 17", "16.2", "0.79", " 30 ", "12%"):
        assert gone in internal or gone == "of 17", gone
        assert gone not in shared, gone


def test_the_same_content_gives_the_same_bytes() -> None:
    assert render_report(content(), "internal") == render_report(content(), "internal")


def hostile_content(port: int = 1) -> ReportContent:
    bad = HOSTILE.format(port=port)
    return content(
        title=bad,
        created=bad,
        software=bad,
        facts={bad: bad},
        audit=an_audit(
            reasons=[bad],
            counts={bad[:120]: 1},
            reference_stands_in=bad,
            attacks=[an_attack(bad[:120], bad[:120], 0.5)],
            controls=[a_control(bad[:120])],
        ),
        roc=(a_curve(bad),),
        evaluation=ReportEvaluation.read(
            {"arms": [{"name": bad, "dice": {"mean": 0.5, "ci": [0.4, 0.6], "n_test": 3}}], "region": bad}
        ),
        rounds=(ReportRound(round=1, sites=(bad,), metrics={"fake_mean": 0.5}),),
        release=ReleaseOutcome(False, bad, bad, (bad,)),
        label_sources=(LabelSource(kind="private", name=bad, licence=bad, sha256=SHA),),
        times={bad: 1.0},
    )


def test_hostile_names_stay_text() -> None:
    page = render_report(hostile_content(), "internal")
    elements = Elements()
    elements.feed(page)
    assert not {"script", "img", "iframe", "object", "form", "base"} & {tag for tag, _ in elements.found}
    assert not [
        name for _, attributes in elements.found for name in attributes if name.startswith("on") or name == "style"
    ]
    assert "document.title=" in unescape(page), "it is shown, as text"
    assert "PRIVATE: volumes made from it may not be released" in page


@pytest.mark.parametrize("rendition", ["internal", "shareable"])
def test_nothing_on_the_page_points_outside_it(rendition: Any) -> None:
    page = render_report(content(), rendition)
    for target in re.findall(r'(?:src|href|data|action|poster)="([^"]*)"', page):
        assert target.startswith(("#", "data:image/png;base64,")), target[:60]
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_the_policy_names_the_style_by_its_hash_and_no_element_has_a_style_of_its_own() -> None:
    page = render_report(content(), "internal")
    (style,) = re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page
    assert " style=" not in page


def test_every_link_inside_the_page_has_its_target() -> None:
    page = render_report(content(), "internal")
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_the_page_is_marked_up_for_those_who_do_not_see_it() -> None:
    page = render_report(content(), "internal")
    assert '<html lang="en">' in page
    assert page.count("<svg") == len(re.findall(r'<svg[^>]* role="img" aria-label="[^"]+"', page))
    assert all("scope=" in cell for cell in re.findall(r"<th\b[^>]*>", page))
    assert re.findall(r"<h(\d)", page)[:2] == ["1", "2"]
    assert not re.search(r'tabindex="(?!0")', page), "the keyboard goes through the page as the eye does"
    assert "color-scheme: only light" in page, "a browser that darkens pages would leave the plots' text black on black"
    assert page.count('class="scroll"') == page.count('class="scroll" tabindex="0" role="region" aria-label=')


# --- a real browser

CHROMIUM = shutil.which("chromium")


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to open the page")


class Trap:
    """A server on loopback that notes who asks."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        trap = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the library's name
                trap.asked.append(self.path)
                self.send_response(404)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port


@pytest.fixture
def trap() -> Iterator[Trap]:
    made = Trap()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()


def opened(page: str, tmp_path: Path) -> str:
    """The document after Chromium has opened the page from disk."""
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = f"--disable-component-update --disable-sync --user-data-dir={tmp_path / 'profile'} --dump-dom"
    command = [str(CHROMIUM), *flags.split(), *more.split(), (tmp_path / "report.html").as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@needs_browser
@pytest.mark.network
def test_a_browser_runs_and_fetches_nothing_for_hostile_names(trap: Trap, tmp_path: Path) -> None:
    document = opened(render_report(hostile_content(trap.port), "internal"), tmp_path)
    assert trap.asked == []
    assert "<title>ran</title>" not in document
    assert 'id="signature"' in document


@needs_browser
@pytest.mark.network
@pytest.mark.parametrize("policy", [True, False], ids=["with the page's policy", "policy taken away: the trap works"])
def test_the_content_security_policy_holds_even_where_markup_got_in(trap: Trap, tmp_path: Path, policy: bool) -> None:
    page = render_report(content(), "shareable").replace("</main>", HOSTILE.format(port=trap.port) + "</main>")
    if not policy:
        page = re.sub(r"<meta http-equiv=[^>]*>", "", page)
    document = opened(page, tmp_path)
    assert (trap.asked == []) == policy
    assert ("<title>ran</title>" not in document) == policy


@pytest.mark.parametrize(
    ("synthetic", "low", "told"),
    [
        (0.88, 0.87, "has given nothing that was not public"),
        (0.90, 0.87, "by no more than other patients might have moved the figure"),
        (0.95, 0.93, "The synthetic volumes did better than the public patients' own scans"),
    ],
)
def test_the_page_says_what_the_hospitals_gave_that_was_not_public(synthetic: float, low: float, told: str) -> None:
    def arm(name: str, mean: float, low: float) -> dict[str, object]:
        return {"name": name, "scans": 30, "dice": {"mean": mean, "ci": [low, 0.97], "n_test": 25}, "per_label": {}}

    table = {"arms": [arm("synthetic", synthetic, low), arm("public", 0.89, 0.88)]}
    page = words_of(render_report(content(evaluation=ReportEvaluation.read(table)), "shareable"))
    assert told in page
