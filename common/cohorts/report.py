"""A cohort report for a person: what is there, what is wrong, what to do."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..counted import counted
from .check import CohortReport, in_words

_LAYOUTS = {
    "bids": "BIDS (sub-*/[ses-*/]anat)",
    "brats": "BraTS (*_flair, *_t1, *_seg, ... or *-t2f, *-t1n, *-seg, ...)",
    "decathlon": "Decathlon (imagesTr, labelsTr)",
    "table": "a table (one row a scan)",
}


def print_report(report: CohortReport, console: Console, *, show_identifiers: bool = False) -> None:
    """Print counts, then a table of problems; scans are named only if asked."""
    channels = escape(", ".join(report.channels)) or "none"
    labels = ", ".join(map(str, report.labels)) or "none"
    found = f"{counted(report.patients, 'patient')}, {counted(report.scans, 'scan')}"
    console.print(f"{found}; channels {channels}; labels {labels}")
    console.print(f"layout: {escape(_LAYOUTS[report.layout])}", highlight=False, soft_wrap=True)
    console.print(f"sites: {escape(_sites(report))}", highlight=False, soft_wrap=True)
    console.print(f"voxels: {in_words(report.spacings) or 'unknown'}", highlight=False, soft_wrap=True)
    if report.problems:
        table = Table()
        for heading in ("problem", "severity", "scans"):
            table.add_column(heading, no_wrap=True)
        table.add_column("what was found")
        table.add_column("what to do")
        for problem in report.problems:
            colour = "red" if problem.severity == "error" else "yellow"
            severity = f"[{colour}]{problem.severity}[/{colour}]"
            table.add_row(problem.code, severity, str(problem.scans), escape(problem.words), problem.remedy)
        console.print(table)
        for problem in report.problems if show_identifiers else ():
            for line in problem.whereabouts:
                console.print(f"{problem.code}: {line}", markup=False, highlight=False, soft_wrap=True)
    usable = report.usable
    left = f"{counted(len(usable.patients), 'patient')}, {counted(len(usable.scans), 'scan')}"
    console.print(f"Usable: {left}. Nothing was modified.")


def _sites(report: CohortReport) -> str:
    named = [f"{name} ({counted(patients, 'patient')})" for name, patients in report.sites.items() if name]
    without = report.sites.get("", 0)
    if not named:
        return f"none named; a column 'site' in {'it' if report.layout == 'table' else 'participants.tsv'} would"
    return ", ".join(named) + (f"; {counted(without, 'patient')} of no site" if without else "")
