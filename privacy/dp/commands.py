"""``fedphantom budget``: what a site's patients have spent of their privacy budget. Heavy imports wait inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .ledger import Ledger

budget_app = typer.Typer(no_args_is_help=True)

_Site = Annotated[Path, typer.Argument(metavar="SITE_FOLDER", help="A site's folder, as in RUN/sites/NAME.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@budget_app.callback()
def budget() -> None:
    """What a site's patients have spent of their privacy budget, over all runs that share a ledger."""


@budget_app.command()
def show(
    site: _Site,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw ε over time: a .png or .svg file.", dir_okay=False)
    ] = None,
    as_json: _Json = False,
) -> None:
    """Print every reservation, ε so far and what is left, after all of it was verified; exit 5 if it is broken."""
    from ...common.progress import progress_bar
    from .budget import NOTHING, budget_so_far, check_picture, draw_budget

    if plot:
        check_picture(plot)
    with progress_bar("budget") as progress:
        found = budget_so_far(_ledger(site).spending(), progress)
    if plot and found:
        draw_budget(found, plot)
    if as_json:
        typer.echo(json.dumps(found.to_json() if found else {"dp": "none", "lines": []}))
    else:
        typer.echo(found.text() if found else NOTHING)


@budget_app.command()
def verify(site: _Site, as_json: _Json = False) -> None:
    """Check ledger, secret and journal against each other; exit 5 and name the first line that is broken."""
    from ...common.counted import counted
    from .budget import NOTHING

    found = _ledger(site).spending()
    told = f"{counted(found.lines, 'line')}, unbroken, and all that the site's journal names. Head: {found.head}"
    if as_json:
        typer.echo(json.dumps({"ok": True, "lines": found.lines, "head": found.head}))
    else:
        typer.echo(told if found.lines else NOTHING)


def _ledger(site: Path) -> Ledger:
    from ...common.errors import about
    from ...common.site_folder import SiteFolder
    from .ledger import Ledger

    with about("SITE_FOLDER"):
        folder = SiteFolder.open(site)
    return Ledger(folder.ledger, folder.journal)
