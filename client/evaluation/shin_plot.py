"""The Shin protocol's plot, as SVG: Dice and HD95 of every arm by region, and what shares of synthetic scans gain.

Filled markers are with augmentation, hollow ones without; ticks are the seeds. No colour carries a meaning.
"""

from __future__ import annotations

import io

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from ...common.counted import counted
from .figures import Figure
from .shin_result import ArmResult, ShinResult

INK, GREY = "black", "0.55"
ARM_HEIGHT = 0.27
"""Inches an arm takes."""


def shin_plot(result: ShinResult) -> bytes:
    """The whole SVG; the same result gives the same bytes."""
    with mpl.rc_context({"svg.hashsalt": "fedphantom", "font.size": 9, "axes.titlesize": 9}):
        out = io.BytesIO()
        draw(result).savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def draw(result: ShinResult) -> Canvas:
    """The figure, one row of panels a region, below them the sweep."""
    regions, arms = result.shown_regions, result.grid_arms
    names = [result.in_words(arm.arm.training) if arm.arm.augmentation else "no augmentation" for arm in arms]
    heights = [ARM_HEIGHT * len(arms) + 0.5] * len(regions) + ([2.6] if result.sweep else [])
    canvas = Canvas(figsize=(9, sum(heights) + 0.9), layout="constrained")
    grid = canvas.add_gridspec(len(heights), 2, height_ratios=heights)
    for row, region in enumerate(regions):
        left, right = canvas.add_subplot(grid[row, 0]), canvas.add_subplot(grid[row, 1])
        found = [arm.regions[region] for arm in arms]
        _arms(left, names, arms, [f.dice for f in found], [f.dice_by_seed for f in found])
        _arms(right, names, arms, [f.hd95 for f in found], [f.hd95_by_seed for f in found])
        left.set_title(f"{region}: Dice (more is better)", loc="left")
        right.set_title(f"{region}: HD95 in mm (less is better)", loc="left")
        right.set_yticklabels([])
    if result.sweep:
        below = canvas.add_subplot(grid[len(regions), :])
        _sweep(below, result, regions)
    told = f"\n{result.absent}" if result.absent else ""
    canvas.suptitle(
        f"Shin protocol: {result.tested}, {counted(result.plan.full.steps, 'step')} each, seeds"
        f" {', '.join(map(str, result.seeds))}\nfilled: usual augmentation, hollow: none; bars: 95 % over"
        f" patients; ticks: seeds{told}",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    return canvas


def _arms(
    axes: Axes,
    names: list[str],
    arms: tuple[ArmResult, ...],
    figures: list[Figure],
    by_seed: list[tuple[float, ...]],
) -> None:
    for y, (arm, figure, seeds) in enumerate(zip(arms, figures, by_seed, strict=True)):
        axes.plot([figure.low, figure.high], [y, y], color=INK, linewidth=1.2)
        axes.plot(seeds, [y] * len(seeds), linestyle="none", marker="|", color=GREY, markersize=9)
        face = INK if arm.arm.augmentation else "white"
        axes.plot(figure.mean, y, marker="o", markersize=5, color=INK, markerfacecolor=face)
    axes.set_yticks(range(len(arms)), names)
    axes.set_ylim(len(arms) - 0.4, -0.6)
    _plain(axes, "x")


def _sweep(axes: Axes, result: ShinResult, regions: tuple[str, ...]) -> None:
    """Points of Dice gained over real scans alone, so that regions hard and easy share an axis."""
    markers, dashes = "osD^v<>pPX*h", ("-", "--", ":", "-.")
    points = result.sweep
    shares = [point.share for point in points]
    axes.axhline(0, color=GREY, linewidth=1)
    for i, region in enumerate(regions):
        gains = [(p.share, p.result.regions[region].dice_difference) for p in points]
        known = [(share, gain) for share, gain in gains if gain is not None]
        means = [100 * gain.mean for _, gain in known]
        ends = [[100 * (g.mean - g.low) for _, g in known], [100 * (g.high - g.mean) for _, g in known]]
        aside = 1 + 0.04 * (i - (len(regions) - 1) / 2)  # so that intervals of several regions can be told apart
        axes.errorbar(
            [share * aside for share, _ in known],
            means,
            yerr=ends,
            color=INK,
            linestyle=dashes[i % len(dashes)],
            marker=markers[i % len(markers)],
            markerfacecolor="white",
            markersize=5,
            linewidth=1,
            elinewidth=0.7,
            capsize=2,
            label=region,
        )
    axes.set_xscale("symlog", base=2, linthresh=0.5, linscale=0.6)
    axes.set_xticks(shares, [f"{share:.3g}" for share in shares])
    axes.minorticks_off()
    axes.set_xlim(left=0)
    axes.set_xlabel(result.in_words("synthetic scans per real scan, all training patients, with augmentation"))
    axes.set_title(result.in_words("Sweep: Dice × 100 gained over real scans alone, paired by patient"), loc="left")
    axes.legend(frameon=False, ncols=4, fontsize=8, loc="best")
    _plain(axes, "y")


def _plain(axes: Axes, along: str) -> None:
    axes.grid(axis="x" if along == "x" else "y", color="0.88", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
