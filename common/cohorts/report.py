"""A cohort report for a person: what is there, what is wrong, what to do."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .check import CohortReport


def print_report(report: CohortReport, console: Console, *, show_identifiers: bool = False) -> None:
    """Print counts, then a table of problems; scans are named only if asked."""
    channels = escape(", ".join(report.channels)) or "none"
    labels = ", ".join(map(str, report.labels)) or "none"
    console.print(f"{report.patients} patients, {report.scans} scans; channels {channels}; labels {labels}")
    if report.problems:
        table = Table()
        for heading in ("problem", "severity", "scans"):
            table.add_column(heading, no_wrap=True)
        table.add_column("what was found")
        table.add_column("what to do")
        for problem in report.problems:
            colour = "red" if problem.severity == "error" else "yellow"
            severity = f"[{colour}]{problem.severity}[/{colour}]"
            table.add_row(problem.code, severity, str(problem.scans), problem.message, problem.remedy)
        console.print(table)
        for problem in report.problems if show_identifiers else ():
            console.print(f"{problem.code}: {', '.join(problem.identifiers)}", markup=False, soft_wrap=True)
    usable = report.usable
    console.print(f"Usable: {len(usable.patients)} patients, {len(usable.scans)} scans. Nothing was modified.")
