"""The page's curves can be told apart on paper, and their axes read."""

from __future__ import annotations

import re

import numpy as np
import pytest
from report_content import content

from fedphantom.privacy.evidence import TESTS
from fedphantom.privacy.report.content import RocCurve
from fedphantom.privacy.report.figures import curve_plot, roc_plot
from fedphantom.privacy.report.names import on_whom
from fedphantom.privacy.report.page import render_report


def test_curves_are_drawn_in_three_pictures_and_each_attack_once() -> None:
    roc = tuple(RocCurve(name, np.array([0.0, 1.0]), np.array([0.0, 1.0]), 25, 24) for name in TESTS)
    page = render_report(content(roc=roc), "internal")
    assert len(re.findall('aria-label="ROC curves on', page)) == 3
    for name in TESTS:
        assert page.count(f"{name}: 25 members, 24 holdout") == 1


def test_no_two_curves_of_a_picture_look_alike_without_colour() -> None:
    curves = [RocCurve(name, np.array([0.0, 1.0]), np.array([0.0, 1.0]), 25, 24) for name in TESTS]
    for whom in {on_whom(name) for name in TESTS}:
        together = [curve for curve in curves if on_whom(curve.name) == whom]
        plot = str(roc_plot(together, "alt"))
        dashes = re.findall(r'fill="none" stroke="#[0-9a-f]+" stroke-width="2"(?: stroke-dasharray="([^"]*)")?', plot)
        assert len(dashes) == 2 * len(together), "a curve and its sample in the legend"
        assert len(set(dashes)) == len(together)


@pytest.mark.parametrize("width", [3e-7, 0.004, 0.012, 0.5])
def test_the_numbers_of_an_axis_stand_where_their_ticks_do(width: float) -> None:
    plot = str(curve_plot([(1, 0.512), (2, 0.512 + width)], "Contrast", 0, "alt"))
    low, middle, high = map(float, re.findall(r'text-anchor="end"[^>]*>([\d.]+)<', plot))
    assert [low, middle, high] == pytest.approx([0.512, 0.512 + width / 2, 0.512 + width], abs=width / 20)
