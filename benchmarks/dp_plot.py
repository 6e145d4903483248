"""The plot of ``dp_utility.py``: usefulness over ε, between public material alone and no promise at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

ROW = 0.42  # inches
SPREAD = 0.55
"""Share of a row that its seeds take."""


def plot(result: Mapping[str, Any], file: Path) -> None:
    """Draw every arm's Dice with its 95 % interval, a row an arm, its seeds side by side."""
    seeds = result["seeds"]
    names = sorted(seeds[0]["dice"], key=_place)
    figure = Figure(figsize=(7.5, 1.7 + ROW * len(names)), layout="constrained")
    axes = figure.subplots()
    for place, one in enumerate(seeds):
        shift = (place - (len(seeds) - 1) / 2) * SPREAD / max(1, len(seeds))
        for row, name in enumerate(names):
            found, promised = one["dice"][name], name in one["statements"]
            axes.plot(found["ci"], (row + shift,) * 2, color="black", linewidth=1)
            face = "black" if promised else "white"
            axes.plot([found["mean"]], [row + shift], "o", color="black", markerfacecolor=face, markersize=5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(f"Dice of '{seeds[0]['region']}', {seeds[0]['scored_patients']} {result['patients']} patients")
    axes.grid(axis="x", color="0.85", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    for row in range(len(names) - 1):
        axes.axhline(row + 0.5, color="0.9", linewidth=0.6)
    deltas = {statement["delta"] for one in seeds for statement in one["statements"].values()}
    number, delta = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}", f"{max(deltas):.2g}"
    title = f"{number}; bars: 95 % over patients; filled: patient-level promise at δ ≤ {delta}"
    axes.set_title(title, fontsize=9, loc="left")
    figure.savefig(file, dpi=130, metadata={"Software": None})


def _place(name: str) -> tuple[int, float]:
    """Public material first, then by ε, then what promises nothing."""
    order = ("public scans", "public generator", "nobody asked", "ε", "no promise", "real")
    kind = next(i for i, start in enumerate(order) if name.startswith(start))
    return kind, float(name.split("=")[1].replace("∞", "inf")) if name.startswith("ε") else 0.0
