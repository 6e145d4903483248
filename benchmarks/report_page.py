"""How fast Chromium opens the page of a large audit from disk, and how large it is; both as the tests make them."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fakes"))

from chromium import browser
from report_content import a_large_page

from fedphantom.privacy.report.page import render_report

SHAPE = (96, 96, 96)
OPENED = 5


def main() -> None:
    """Print ``seconds``, the median of five openings, each drawn to the end, and ``megabytes``."""
    folder = Path(sys.argv[1])
    page = folder / "page.html"
    page.write_text(render_report(a_large_page(SHAPE), "internal"), encoding="utf-8")
    with browser(folder / "profile") as chromium:
        seconds = statistics.median(chromium.open(page) for _ in range(OPENED))
    print(json.dumps({"seconds": seconds, "megabytes": page.stat().st_size / 1e6}))


if __name__ == "__main__":
    main()
