"""The Shin protocol's plot, as SVG: Dice and HD95 of every arm by region, and what shares of synthetic scans gain.

Filled markers are with augmentation, hollow ones without; ticks are the seeds. No colour carries a meaning. Panels of
one measure have one axis, so that regions can be held against each other.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.figure import SubFigure

from ...common.counted import counted
from .figures import Figure
from .shin import share_in_words
from .shin_result import ArmResult, RegionResult, ShinResult

INK, GREY = "black", "0.55"
ARM_HEIGHT = 0.27
"""Inches an arm takes."""
HEAD, SWEEP_HEAD, SWEEP_HEIGHT = 0.9, 0.4, 2.3
"""Inches of the text above the panels, of that above the sweep, and of a row of the sweep."""
SWEEP_COLUMNS = 3
DICE_STEP, HD95_STEP_MM, GAIN_STEP = 0.1, 10, 1
"""Axes end at whole multiples of these."""

Limits = tuple[float, float]


def shin_plot(result: ShinResult) -> bytes:
    """The whole SVG; the same result gives the same bytes."""
    with mpl.rc_context({"svg.hashsalt": "fedphantom", "font.size": 9, "axes.titlesize": 9}):
        out = io.BytesIO()
        draw(result).savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def draw(result: ShinResult) -> Canvas:
    """The figure, one row of panels a region, below them the sweep, one panel a region."""
    regions = result.shown_regions
    above = HEAD + len(regions) * (ARM_HEIGHT * len(result.grid_arms) + 0.5)
    below = SWEEP_HEAD + SWEEP_HEIGHT * math.ceil(len(regions) / SWEEP_COLUMNS) if result.sweep else 0.0
    canvas = Canvas(figsize=(9, above + below), layout="constrained")
    parts = canvas.add_gridspec(2 if result.sweep else 1, 1, height_ratios=[above, below] if result.sweep else None)
    _arms(canvas.add_subfigure(parts[0]), result, regions)
    if result.sweep:
        _sweep(canvas.add_subfigure(parts[1]), result, regions)
    return canvas


def _arms(canvas: SubFigure, result: ShinResult, regions: tuple[str, ...]) -> None:
    arms = result.grid_arms
    names = [result.in_words(arm.arm.training) if arm.arm.augmentation else "no augmentation" for arm in arms]
    found = {region: [arm.regions[region] for arm in arms] for region in regions}
    every = [one for each in found.values() for one in each]
    dice, hd95 = _dice_limits(every), _hd95_limits(every)
    panels = canvas.subplots(len(regions), 2, squeeze=False)
    for (left, right), region in zip(panels, regions, strict=True):
        _panel(left, arms, [f.dice for f in found[region]], [f.dice_by_seed for f in found[region]], dice)
        _panel(right, arms, [f.hd95 for f in found[region]], [f.hd95_by_seed for f in found[region]], hd95)
        left.set_yticks(range(len(arms)), names)
        right.set_yticks(range(len(arms)), [""] * len(arms))
        having = result.having(region)
        left.set_title(f"{region}{having and f' ({having})'}: Dice (more is better)", loc="left")
        right.set_title(f"{region}: HD95 in mm (less is better)", loc="left")
    cut = "" if dice[0] == 0 else f", which starts at {dice[0]:.1f} and not at 0"
    canvas.suptitle(
        f"Shin protocol: {result.tested}, {counted(result.plan.full.steps, 'step')} each, {result.seeds_in_words}\n"
        "filled: usual augmentation, hollow: none; bars: 95 % over patients; ticks: seeds\n"
        f"All panels of Dice have one axis{cut}; so have all of HD95."
        + (f"\n{result.absent}" if result.absent else ""),
        fontsize=9,
        x=0.01,
        ha="left",
    )


def _panel(
    axes: Axes, arms: tuple[ArmResult, ...], figures: list[Figure], by_seed: list[tuple[float, ...]], limits: Limits
) -> None:
    for y, (arm, figure, seeds) in enumerate(zip(arms, figures, by_seed, strict=True)):
        axes.plot([figure.low, figure.high], [y, y], color=INK, linewidth=1.2)
        axes.plot(seeds, [y] * len(seeds), linestyle="none", marker="|", color=GREY, markersize=9)
        face = INK if arm.arm.augmentation else "white"
        axes.plot(figure.mean, y, marker="o", markersize=5, color=INK, markerfacecolor=face, clip_on=False)
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.set_xlim(limits)
    _plain(axes, "x")


def _sweep(canvas: SubFigure, result: ShinResult, regions: tuple[str, ...]) -> None:
    """Points of Dice gained over real scans alone, so that regions hard and easy share an axis."""
    points = result.sweep[1:]
    gains = {region: [_gain(point.result, region) for point in points] for region in regions}
    limits, cut = _gain_limits(gain for each in gains.values() for gain in each)
    rows = math.ceil(len(regions) / SWEEP_COLUMNS)
    panels = list(canvas.subplots(rows, SWEEP_COLUMNS, squeeze=False, sharey=True).flat)
    shares = [0.0, *(point.share for point in points)]
    for axes, region in zip(panels, regions, strict=False):
        means = [100 * gain.mean for gain in gains[region]]
        ends = [[100 * (g.mean - g.low) for g in gains[region]], [100 * (g.high - g.mean) for g in gains[region]]]
        axes.axhline(0, color=GREY, linewidth=1)
        axes.plot(range(len(shares)), [0, *means], color=INK, linewidth=1)
        axes.errorbar(range(1, len(shares)), means, yerr=ends, color=INK, fmt="o", markersize=5, capsize=2)
        axes.set_xticks(range(len(shares)), [share_in_words(share) for share in shares])
        axes.set_xlim(-0.3, len(shares) - 0.7)
        axes.set_ylim(limits)
        axes.set_title(region, loc="left")
        _plain(axes, "y")
    for axes in panels[len(regions) :]:
        axes.remove()
    told = " Bars that leave the panel are cut off." if cut else ""
    canvas.suptitle(
        result.in_words("Sweep: Dice × 100 gained over real scans alone, paired by patient; one axis for all.")
        + told
        + result.in_words("\nBelow: synthetic scans per real scan; all training patients, with augmentation"),
        fontsize=9,
        x=0.01,
        ha="left",
    )


def _gain(arm: ArmResult, region: str) -> Figure:
    gain = arm.regions[region].dice_difference
    assert gain is not None  # noqa: S101  # every share but 0 is compared with real scans alone
    return gain


def _dice_limits(found: Iterable[RegionResult]) -> Limits:
    lows, highs = zip(*(_ends(one.dice, one.dice_by_seed) for one in found), strict=True)
    low, high = _outward(min(lows), max(highs), DICE_STEP)
    return max(low, 0.0), min(high, 1.0)


def _hd95_limits(found: Iterable[RegionResult]) -> Limits:
    highest = max(_ends(one.hd95, one.hd95_by_seed)[1] for one in found)
    return 0.0, _outward(0, highest, HD95_STEP_MM)[1]


def _gain_limits(gains: Iterable[Figure]) -> tuple[Limits, bool]:
    """Around 0, every mean and every bootstrapped interval; whether some other interval is longer."""
    every = list(gains)
    ends = [0.0, *(100 * g.mean for g in every)]
    ends += [100 * end for g in every if g.bootstrapped for end in (g.low, g.high)]
    low, high = _outward(min(ends), max(ends), GAIN_STEP)
    return (low, high), any(100 * g.low < low or 100 * g.high > high for g in every)


def _ends(figure: Figure, by_seed: tuple[float, ...]) -> Limits:
    return min(figure.low, *by_seed), max(figure.high, *by_seed)


def _outward(low: float, high: float, step: float) -> Limits:
    """The next multiples of a step around an interval, which has at least one step."""
    first, last = math.floor(low / step), math.ceil(high / step)
    return round(first * step, 6), round(max(last, first + 1) * step, 6)


def _plain(axes: Axes, along: str) -> None:
    axes.grid(axis="x" if along == "x" else "y", color="0.88", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
