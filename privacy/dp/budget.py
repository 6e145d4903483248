"""A site's budget as it is told: every reservation, what it counts, ε so far, what is left; a table, JSON, a plot."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from ...common.atomic import write_atomic
from ...common.counted import counted
from ...common.errors import ConfigError
from ...common.promise import PromiseTable
from .accounting import ACCOUNTANT, ADJACENCY, SAMPLING, UNIT, Mechanism, epsilon, most_steps, told
from .meaning import meaning
from .spending import Reservation, Spending

_MANY = 1_000_000
_NOTHING = "dp: none. No noised step was ever reserved here: nothing that this site trained makes a promise."

Progress = Callable[[int, int], None]
"""(reservations composed, in all)."""


@dataclass(frozen=True)
class AskingSite:
    """The site's folder that a ledger is shown for.

    Attributes:
        budget: ε that its ``site.toml`` allows; None where it says nothing.
        promise: Of its study; None where that promises nothing, or cannot be read.
        study: The study's digest; empty where it cannot be read.
        run: Name of its run in the ledger; empty before roles are drawn.
    """

    budget: float | None = None
    promise: PromiseTable | None = None
    study: str = ""
    run: str = ""

    def owns(self, one: Reservation) -> bool:
        """Whether a reservation is of this folder's study."""
        return one.run == self.run or (bool(one.study) and one.study == self.study)


@dataclass(frozen=True)
class StudySpent:
    """What one study has cost the patient for whom it cost most.

    Attributes:
        name: The study's; empty where the ledger's lines do not say.
        study: Its digest; of lines that do not say, empty.
        run: The name of its latest run.
        epsilon: By itself, at the ledger's strictest δ; None beyond any figure.
        steps: Noised steps that count.
        this_folder: Whether it is the study of the site's folder.
    """

    name: str
    study: str
    run: str
    epsilon: float | None
    steps: int
    this_folder: bool

    def called(self) -> str:
        """For a person."""
        if not self.study:
            told = f"run {self.run[:12]}"
        else:
            told = f"'{self.name}' ({self.study[:12]})" if self.name else f"study {self.study[:12]}"
        return f"{told}, this folder's" if self.this_folder else told


@dataclass(frozen=True)
class BudgetLine:
    """One reservation.

    Attributes:
        line: Of the ledger.
        time: UTC, when it was reserved.
        run: The run's digest.
        study: The study's digest, and its name; empty in a line of an earlier version, which does not say.
        study_name: Likewise.
        this_folder: Whether it is of the study of the site's folder.
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
    study: str
    study_name: str
    this_folder: bool
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
        budget: ε that binds.
        budget_from: Whence: the site's own ``site.toml``, or the smallest that any of its patients was reserved under.
        study_asked: ε that the folder's study promises at most; None where it promises nothing.
        left_epsilon: What of the budget is not spent, or of the folder's study's promise where the latest reservation
            is of that study and less is left of it; 0 where more is spent.
        left_steps: How many steps like the latest reservation's could still be taken, likewise.
        left_rounds: How many reservations like the latest: whole ones.
        round_steps: How many steps such a one has.
        studies: ε of each study by itself; they do not add up to the whole, which is composed.
        lines: Every reservation.
    """

    epsilon: float | None
    delta: float
    budget: float
    budget_from: Literal["site.toml", "studies"]
    study_asked: float | None
    left_epsilon: float
    left_steps: int
    left_rounds: int
    round_steps: int
    studies: tuple[StudySpent, ...]
    lines: tuple[BudgetLine, ...]

    def to_json(self) -> dict[str, Any]:
        """For ``--json``: with everything that an ε means nothing without."""
        return {
            "dp": "patient-level",
            "unit": UNIT,
            "adjacency": ADJACENCY,
            "sampling": SAMPLING,
            "accountant": ACCOUNTANT,
            **asdict(self),
            "studies": [asdict(study) for study in self.studies],
            "lines": [asdict(line) for line in self.lines],
        }

    def text(self) -> str:
        """For a terminal."""
        rows = [("line", "reserved", "study", "patients", "q", "σ", "steps", "counted", "", "ε so far")]
        rows += [
            (
                str(line.line),
                line.time,
                (line.study_name or line.study[:12] or f"run {line.run[:12]}") + (" *" if line.this_folder else ""),
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
        spent = told(_or_beyond(self.epsilon))
        marked = ["* of the study of this folder."] if any(line.this_folder for line in self.lines) else []
        return "\n".join(
            [
                *table,
                *marked,
                "",
                *(
                    f"{one.called()}: {told(_or_beyond(one.epsilon))} by itself, {counted(one.steps, 'noised step')}"
                    for one in self.studies
                ),
                "",
                meaning(_or_beyond(self.epsilon), self.delta, "what they took part in"),
                f"{spent} of {told(self.budget)} is spent at δ = {self.delta:g}, by the patient for whom it is most.",
                f"{self._binds()} {self._left()}",
                f"Unit: {UNIT}; adjacency: {ADJACENCY}; sampling: {SAMPLING}; accountant: {ACCOUNTANT}.",
                *(
                    [f"'whole': {counted(whole, 'reservation')} of which nobody said how much was done; all counts."]
                    if whole
                    else []
                ),
            ]
        )

    def _binds(self) -> str:
        asked = "" if self.study_asked is None else f"this folder's study asked {self.study_asked:g}"
        if self.budget_from == "site.toml":
            return f"What binds is the site's own budget (site.toml: {self.budget:g}{asked and '; ' + asked})."
        smallest = f"the smallest that any of these patients was reserved under: {self.budget:g}"
        return f"What binds is {smallest}, as site.toml names none{asked and '; ' + asked}."

    def _left(self) -> str:
        steps = counted(self.round_steps, "noised step")
        if self.left_rounds:
            rounds = counted(self.left_rounds, "round")
            return f"Left: ε = {_down(self.left_epsilon)}, which {rounds} like the latest ({steps} each) would fit."
        more = f"; {counted(self.left_steps, 'such step')} would" if self.left_steps else ""
        return f"Left: ε = {_down(self.left_epsilon)}; no round like the latest ({steps}) would fit{more}."


def nothing_spent(site: AskingSite) -> str:
    """What is said of a ledger without a reservation: a study that promises something is not called ``none``."""
    if site.promise is None:
        return _NOTHING
    return (
        f"dp: patient-level. ε ≤ {site.promise.epsilon:g} at δ = {site.promise.delta:g} asked by this folder's study;"
        " nothing spent yet: no noised step was ever reserved here."
    )


def nothing_to_json(site: AskingSite) -> dict[str, Any]:
    """The same for ``--json``."""
    if site.promise is None:
        return {"dp": "none", "lines": []}
    asked = {"epsilon": 0.0, "delta": site.promise.delta, "study_asked": site.promise.epsilon}
    about = {"unit": UNIT, "adjacency": ADJACENCY, "sampling": SAMPLING, "accountant": ACCOUNTANT}
    return {"dp": "patient-level", **about, **asked, "lines": []}


def budget_so_far(
    spending: Spending, site: AskingSite = AskingSite(), progress: Progress | None = None
) -> BudgetSoFar | None:
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
                one.study,
                one.study_name,
                site.owns(one),
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
    latest, dearest = spending.reservations[-1].mechanism, spending.dearest(delta)
    # What a reservation was made under is already the least of those before it, where the site said nothing.
    most = site.budget if site.budget is not None else min(one.budget for one in spending.reservations)
    many = Mechanism(latest.sampling_rate, latest.noise_multiplier, _MANY)
    left, left_epsilon = most_steps(most, delta, many, dearest), most - epsilon(dearest, delta)
    if site.promise and site.owns(
        spending.reservations[-1]
    ):  # it spends no more than it promises, whatever else is left
        own = spending.of_study(site.study, site.run).dearest(site.promise.delta)
        left = min(left, most_steps(site.promise.epsilon, site.promise.delta, many, own))
        left_epsilon = min(left_epsilon, site.promise.epsilon - epsilon(own, site.promise.delta))
    return BudgetSoFar(
        epsilon=lines[-1].epsilon,
        delta=delta,
        budget=most,
        budget_from="studies" if site.budget is None else "site.toml",
        study_asked=site.promise.epsilon if site.promise else None,
        left_epsilon=max(0.0, left_epsilon),
        left_steps=left,
        left_rounds=left // latest.steps,
        round_steps=latest.steps,
        studies=_by_study(spending, site, delta),
        lines=tuple(lines),
    )


def _by_study(spending: Spending, site: AskingSite, delta: float) -> tuple[StudySpent, ...]:
    """In the order of their first lines."""
    own: dict[str, list[Reservation]] = {}
    for one in spending.reservations:
        own.setdefault(one.study or one.run, []).append(one)
    found = []
    for parts in own.values():
        spent, latest = replace(spending, reservations=tuple(parts)).dearest(delta), parts[-1]
        cost = epsilon(spent, delta)
        figure = cost if math.isfinite(cost) else None
        steps = sum(part.steps for part in spent)
        found.append(StudySpent(latest.study_name, latest.study, latest.run, figure, steps, site.owns(latest)))
    return tuple(found)


def _or_beyond(found: float | None) -> float:
    return math.inf if found is None else found


def _down(left: float) -> str:
    """What is left, rounded down."""
    return f"{math.floor(100 * left + 1e-9) / 100:g}"


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
    from matplotlib.ticker import MaxNLocator

    begun = budget.lines[0].time
    unit, length = _time_axis(budget)
    shown = [(_seconds(begun, line.time) / length, line.epsilon, line.committed) for line in budget.lines]
    points = [(when, value, committed) for when, value, committed in shown if value is not None]
    times, spent = epsilon_over_time(budget)
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(times, spent, drawstyle="steps-post", color="black", linewidth=1)
    for when, value, committed in points:
        axes.plot([when], [value], "o", color="black", markerfacecolor="black" if committed else "white", markersize=5)
    axes.axhline(budget.budget, color="black", linewidth=0.8, linestyle="--")
    axes.annotate("budget", (0.01, budget.budget), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
    axes.set_xlim(-0.02 * times[-1], 1.02 * times[-1])
    axes.set_ylim(0, 1.15 * max([budget.budget, *(p[1] for p in points)]))
    axes.set_ylabel(f"ε at δ = {budget.delta:g}, per patient")
    if begun != budget.lines[-1].time:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        since = f"{unit} since {begun}"
    else:  # one moment: how long it is held is no matter of the ledger's
        axes.set_xticks([0.0], [begun], ha="left")
        since = "when it was reserved"
    axes.set_xlabel(f"{since}; hollow: nobody said how much was done, all counts")
    axes.grid(axis="y", color="0.85", linewidth=0.6)
    axes.set_axisbelow(True)
    out = BytesIO()
    figure.savefig(out, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else {"Software": None})
    write_atomic(file, out.getvalue())


def epsilon_over_time(budget: BudgetSoFar) -> tuple[list[float], list[float]]:
    """When ε rose, in the plot's unit since the first reservation, and to what: from nothing, held until its end."""
    begun, (_, length) = budget.lines[0].time, _time_axis(budget)
    rises = [(_seconds(begun, line.time) / length, line.epsilon) for line in budget.lines if line.epsilon is not None]
    end = max(_seconds(begun, budget.lines[-1].time) / length, 1.0)
    points = [(0.0, 0.0), *rises, (end, rises[-1][1] if rises else 0.0)]
    return [when for when, _ in points], [epsilon for _, epsilon in points]


def _time_axis(budget: BudgetSoFar) -> tuple[str, float]:
    return _unit(_seconds(budget.lines[0].time, budget.lines[-1].time))


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
