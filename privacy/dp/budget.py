"""A site's budget as it is told: every reservation, what it counts, ε so far, what is left; a table, JSON, a plot."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from ...common.atomic import write_atomic
from ...common.counted import counted
from ...common.errors import ConfigError
from .accounting import ACCOUNTANT, ADJACENCY, SAMPLING, UNIT, Mechanism, epsilon, most_steps, told
from .spending import Spending

_MANY = 1_000_000
NOTHING = "dp: none. No noised step was ever reserved here: nothing that this site trained makes a promise."

Progress = Callable[[int, int], None]
"""(reservations composed, in all)."""


@dataclass(frozen=True)
class BudgetLine:
    """One reservation.

    Attributes:
        line: Of the ledger.
        time: UTC, when it was reserved.
        run: The run's digest.
        patients: How many took part.
        sampling_rate: q.
        noise_multiplier: σ.
        steps_reserved: T as reserved.
        steps_counted: Those done; all that were reserved where the process that reserved them did not say.
        committed: Whether it said.
        epsilon: Of the dearest patient with everything up to here, as it counts now; None beyond any figure.
    """

    line: int
    time: str
    run: str
    patients: int
    sampling_rate: float
    noise_multiplier: float
    steps_reserved: int
    steps_counted: int
    committed: bool
    epsilon: float | None


@dataclass(frozen=True)
class BudgetSoFar:
    """What a ledger's patients have spent; of the one for whom it is most.

    Attributes:
        epsilon: Of everything; None beyond any figure.
        delta: The strictest that any of them was promised.
        budget: ε that the latest reservation was made under.
        left_steps: How many steps like the latest reservation's that patient could still take.
        lines: Every reservation.
    """

    epsilon: float | None
    delta: float
    budget: float
    left_steps: int
    lines: tuple[BudgetLine, ...]

    def to_json(self) -> dict[str, Any]:
        """For ``--json``: with everything that an ε means nothing without."""
        return {
            "dp": "per patient",
            "unit": UNIT,
            "adjacency": ADJACENCY,
            "sampling": SAMPLING,
            "accountant": ACCOUNTANT,
            **asdict(self),
            "lines": [asdict(line) for line in self.lines],
        }

    def text(self) -> str:
        """For a terminal."""
        rows = [("line", "reserved", "run", "patients", "q", "σ", "steps", "counted", "", "ε so far")]
        rows += [
            (
                str(line.line),
                line.time,
                line.run[:12],
                str(line.patients),
                f"{line.sampling_rate:g}",
                f"{line.noise_multiplier:.4g}",
                str(line.steps_reserved),
                str(line.steps_counted),
                "" if line.committed else "whole",
                _figure(line.epsilon),
            )
            for line in self.lines
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        whole = sum(not line.committed for line in self.lines)
        spent = told(math.inf if self.epsilon is None else self.epsilon)
        return "\n".join(
            [
                *table,
                "",
                f"{spent} of {told(self.budget)} is spent at δ = {self.delta:g}, by the patient for whom it is most."
                f" {counted(self.left_steps, 'step')} like the latest would still fit.",
                f"Unit: {UNIT}; adjacency: {ADJACENCY}; sampling: {SAMPLING}; accountant: {ACCOUNTANT}.",
                *(
                    [f"'whole': {counted(whole, 'reservation')} of which nobody said how much was done; all counts."]
                    if whole
                    else []
                ),
            ]
        )


def budget_so_far(spending: Spending, progress: Progress | None = None) -> BudgetSoFar | None:
    """Compose a ledger, reservation after reservation; None for one without any."""
    if not spending.reservations:
        return None
    delta, lines = spending.delta(), []
    for done, one in enumerate(spending.reservations, start=1):
        found = epsilon(spending.up_to(one.line).dearest(delta), delta)
        kind = one.mechanism
        lines.append(
            BudgetLine(
                one.line,
                one.time,
                one.run,
                len(spending.cohorts[one.cohort]),
                kind.sampling_rate,
                kind.noise_multiplier,
                kind.steps,
                one.steps_counted,
                one.steps_done is not None,
                found if math.isfinite(found) else None,
            )
        )
        if progress:
            progress(done, len(spending.reservations))
    latest = spending.reservations[-1]
    many = Mechanism(latest.mechanism.sampling_rate, latest.mechanism.noise_multiplier, _MANY)
    left = most_steps(latest.budget, delta, many, spending.dearest(delta))
    return BudgetSoFar(lines[-1].epsilon, delta, latest.budget, left, tuple(lines))


def _figure(found: float | None) -> str:
    return "beyond 100" if found is None else f"{found:.3f}"


def draw_budget(budget: BudgetSoFar, file: Path) -> None:
    """Draw ε over time, with the budget, as PNG or SVG; hollow where a reservation counts whole.

    Raises:
        ConfigError: the file's name ends otherwise.
        StorageError: it cannot be written.
    """
    kind = check_picture(file)
    from matplotlib.figure import Figure

    begun = budget.lines[0].time
    unit, length = _unit(_seconds(begun, budget.lines[-1].time))
    shown = [(_seconds(begun, line.time) / length, line.epsilon, line.committed) for line in budget.lines]
    points = [(when, value, committed) for when, value, committed in shown if value is not None]
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([p[0] for p in points], [p[1] for p in points], drawstyle="steps-post", color="black", linewidth=1)
    for when, value, committed in points:
        axes.plot([when], [value], "o", color="black", markerfacecolor="black" if committed else "white", markersize=5)
    axes.axhline(budget.budget, color="black", linewidth=0.8, linestyle="--")
    axes.annotate("budget", (0.01, budget.budget), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
    axes.set_ylim(0, 1.15 * max([budget.budget, *(p[1] for p in points)]))
    axes.set_ylabel(f"ε at δ = {budget.delta:g}, per patient")
    axes.set_xlabel(f"{unit} since {begun}; hollow: nobody said how much was done, all counts")
    axes.grid(axis="y", color="0.85", linewidth=0.6)
    axes.set_axisbelow(True)
    out = BytesIO()
    figure.savefig(out, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else {"Software": None})
    write_atomic(file, out.getvalue())


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _unit(seconds: float) -> tuple[str, float]:
    """The largest unit of which there are two or more, and its seconds."""
    units = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0))
    return next((found for found in units if seconds >= 2 * found[1]), ("seconds", 1.0))


def check_picture(file: Path) -> str:
    """``png`` or ``svg``, by the file's name. Raises ConfigError for another."""
    kind = file.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise ConfigError(
            "a plot that is neither PNG nor SVG by its name",
            expected="a name that ends in .png or .svg",
            remedy="Choose one of them.",
        )
    return kind
