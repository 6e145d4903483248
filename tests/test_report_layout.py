"""The page is readable on a telephone and on paper, however many structures and arms there are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_content import a_study, content

from fedphantom.privacy.report.content import ReportContent, ReportEvaluation
from fedphantom.privacy.report.figures import Interval, Reference, interval_plot
from fedphantom.privacy.report.page import render_report

REGIONS = ("csf", "grey", "white", "oedema", "enhancing", "necrosis", "cerebellar vermis lobule", "whole")
ARMS = ("real", "synthetic", "real+synthetic", "public", "public generator", "public+synthetic")

CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to open the page")


def many_structures(regions: int = len(REGIONS)) -> ReportContent:
    figure = {"mean": 0.8123, "ci": [0.7512, 0.8731], "n_test": 29}
    arms = [
        {"name": name, "scans": 320, "dice": figure, "per_label": dict.fromkeys(REGIONS[:regions], figure)}
        for name in ARMS
    ]
    evaluation = {"arms": arms, "region": REGIONS[0], "ratio_to_real": dict.fromkeys(ARMS[1:], figure)}
    return content(a_study(labels=REGIONS[:-1]), evaluation=ReportEvaluation.read(evaluation), synthetic=None)


def dice_tables(page: str) -> list[str]:
    section = page[page.index('id="use"') : page.index('id="training"')]
    return re.findall(r"<table.*?</table>", section, flags=re.DOTALL)


def test_no_dice_table_grows_wider_with_structures_or_arms() -> None:
    tables = dice_tables(render_report(many_structures(), "shareable"))
    assert len(tables) == len(REGIONS)
    assert max(table.count('scope="col"') for table in tables) == 3
    few = dice_tables(render_report(many_structures(2), "shareable"))
    assert max(table.count('scope="col"') for table in few) == 3


def test_every_structure_keeps_every_arm_with_its_interval() -> None:
    tables = dice_tables(render_report(many_structures(), "shareable"))
    for table in tables:
        assert table.count("0.81 (0.75 to 0.87)") >= len(ARMS)
        assert all(f">{arm}" in table for arm in ARMS)


def test_a_name_of_any_length_never_runs_into_its_figure() -> None:
    plot = interval_plot([Interval("x" * 200, 0.5, (0.4, 0.6))], [Reference(0.5, "chance", "3 4")], "AUC", "alt")
    rows = {text: float(y) for y, text in re.findall(r'<text [^>]*?y="([\d.]+)"[^>]*>([^<]+)</text>', str(plot))}
    (name,) = [text for text in rows if text.startswith("xx")]
    assert name == "x" * 59 + "…"
    assert rows["0.50  (0.40 to 0.60)"] - rows[name] >= 13, "a line of text below it"


_MEASURE = """<script>
const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest("svg") && (
  e.getBoundingClientRect().right > document.documentElement.clientWidth + 1 || e.scrollWidth > e.clientWidth + 1
    && getComputedStyle(e).overflowX !== "visible"));
document.title = "too wide: " + [...new Set(wide.map(e => e.tagName + "." + e.className))].join(" ");
</script></body>"""


@needs_browser
@pytest.mark.network
@pytest.mark.parametrize("rendition", ["internal", "shareable"])
@pytest.mark.parametrize(("width", "on_paper"), [(400, False), (700, False), (1200, False), (680, True)])
def test_nothing_is_cut_off_or_has_to_be_scrolled_sideways(
    width: int, on_paper: bool, rendition: str, tmp_path: Path
) -> None:
    page = render_report(many_structures(), rendition)  # type: ignore[arg-type]
    page = re.sub(r"<meta http-equiv=[^>]*>", "", page).replace("</body>", _MEASURE)
    if on_paper:  # A4 between its margins, as the rules for print lay it out
        page = page.replace("@media print {", "@media all {").replace("@media screen", "@media speech")
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = f"--disable-component-update --disable-sync --user-data-dir={tmp_path / 'profile'} --window-size={width},900"
    command = [str(CHROMIUM), *flags.split(), *more.split(), "--dump-dom", (tmp_path / "report.html").as_uri()]
    document = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert re.findall(r"<title>(.*?)</title>", document) == ["too wide: "]
