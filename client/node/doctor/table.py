"""An examination for a terminal."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .examination import Examination
from .finding import Light

_COLOURS: dict[Light, str] = {"green": "green", "yellow": "yellow", "red": "bold red"}


def print_examination(examination: Examination, console: Console) -> None:
    """Print a line for every finding, and how many there are of each light."""
    table = Table()
    table.add_column("", no_wrap=True)
    table.add_column("check", no_wrap=True)
    table.add_column("what was found, and → what to do")  # side by side they would be two words wide in 80 columns
    for finding in examination.findings:
        colour = _COLOURS[finding.light]
        told = escape(finding.found) + (f"\n→ {escape(finding.fix)}" if finding.fix else "")
        table.add_row(f"[{colour}]{finding.light}[/{colour}]", finding.name, told)
    console.print(table)
    lights = Counter(finding.light for finding in examination.findings)
    counts = ", ".join(f"{lights[light]} {light}" for light in _COLOURS)
    console.print(f"{examination.site}, {examination.time}: {counts}. Nothing was changed.", highlight=False)
