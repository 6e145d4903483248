"""The plot of ``sharing_modes.py``: usefulness at the left, what attacks found at the right, a row a way of sharing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROW = 0.42  # inches
SPREAD = 0.55
"""Share of a row that its seeds take."""


def plot(result: Mapping[str, Any], file: Path) -> None:
    """Draw every seed's figures with their 95 % intervals; shapes and fills tell them apart without colour."""
    seeds = result["seeds"]
    names = list(seeds[0]["ways"])
    figure = Figure(figsize=(9.5, 1.9 + ROW * len(names)), layout="constrained")
    dice, attacks = figure.subplots(1, 2, sharey=True)
    for place, one in enumerate(seeds):
        shift = (place - (len(seeds) - 1) / 2) * SPREAD / max(1, len(seeds))
        for row, name in enumerate(names):
            found = one["ways"][name]
            _interval(dice, found["dice"]["mean"], found["dice"]["ci"], row + shift, "o", "black")
            for attack, marker, face, beside in (("A1", "s", "black", -0.06), ("A3", "^", "white", 0.06)):
                if attack in found:
                    _interval(attacks, found[attack]["auc"], found[attack]["ci"], row + shift + beside, marker, face)
    dice.set_yticks(range(len(names)), names)
    dice.set_ylim(len(names) - 0.5, -0.5)
    scored, region = seeds[0]["scored_patients"], seeds[0]["ways"][names[0]]["region"]
    kind = {"mixed": "real and procedural"}.get(seeds[0]["scored_kind"], seeds[0]["scored_kind"])
    dice.set_xlabel(f"Dice of '{region}', {scored} {kind} {result['patients']} patients")
    attacks.set_xlabel("AUC: members against holdout")
    attacks.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    attacks.set_xlim(0, 1)
    for label, marker, face in (("A1, own label map", "s", "black"), ("A3, nearest neighbour", "^", "white")):
        attacks.plot([], [], marker, color="black", markerfacecolor=face, label=label)
    attacks.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    for axes in (dice, attacks):
        axes.grid(axis="x", color="0.85", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        for row in range(len(names) - 1):
            axes.axhline(row + 0.5, color="0.9", linewidth=0.6)
    training = result["study"]["training"]
    dice.set_title(
        f"{len(seeds)} seed{'s' * (len(seeds) > 1)}, {training['rounds']} × {training['local_steps']} steps a site, "
        f"{result['volumes']} synthetic scans each",
        fontsize=9,
        loc="left",
    )
    figure.savefig(file, dpi=130, metadata={"Software": None})


def _interval(axes: Axes, value: float, bounds: tuple[float, float], row: float, marker: str, face: str) -> None:
    axes.plot(bounds, (row, row), color="black", linewidth=1)
    axes.plot([value], [row], marker, color="black", markerfacecolor=face, markersize=5)
