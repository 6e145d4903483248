"""``fedphantom budget``: what a site's patients have spent of their privacy budget. Heavy imports wait inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ...common.site_folder import SiteFolder
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
        Path | None,
        typer.Option(metavar="FILE", help="Also draw ε over time: a new .png or .svg file.", dir_okay=False),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Print every reservation, ε so far and what is left, after all of it was verified; exit 5 if it is broken."""
    from ...common.errors import about
    from ...common.output_place import refuse_taken_file
    from ...common.progress import progress_bar
    from .asking_site import asking_site
    from .budget import budget_so_far, check_picture, draw_budget, nothing_spent, nothing_to_json

    if plot:
        check_picture(plot)
        with about("--plot"):
            refuse_taken_file(plot)
    folder = _opened(site)
    asks = asking_site(folder)
    with progress_bar("budget") as progress:
        found = budget_so_far(_ledger(folder).spending(), asks, progress)
    if plot and found:
        draw_budget(found, plot)
    elif plot:
        typer.echo(
            f"no plot '{plot.name}': no noised step was ever reserved here, so that there is nothing to draw", err=True
        )
    if as_json:
        typer.echo(json.dumps(found.to_json() if found else nothing_to_json(asks)))
    else:
        typer.echo(found.text() if found else nothing_spent(asks))


@budget_app.command()
def verify(
    site: _Site,
    head: Annotated[
        str | None,
        typer.Option(help="A hash noted earlier, which the chain must pass through: only so does an exchange show."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Check ledger, secret and journal against each other; exit 5 and name the first line that is broken."""
    from ...common.counted import counted
    from ...common.journal import torn_bytes
    from ...common.journal_commands import check_head
    from .asking_site import asking_site
    from .budget import nothing_spent

    check_head(head)
    folder = _opened(site)
    ledger = _ledger(folder)
    found, torn = ledger.spending(), torn_bytes(ledger.path)
    if head is not None:
        _refuse_other_head(ledger, found.lines, head)
    told = f"{counted(found.lines, 'line')}, unbroken, and all that the site's journal names. Head: {found.head}"
    if as_json:
        typer.echo(json.dumps({"ok": True, "lines": found.lines, "head": found.head, "torn_bytes": torn}))
        return
    typer.echo(told if found.lines else nothing_spent(asking_site(folder)))
    if torn:
        typer.echo(
            f"{counted(torn, 'byte')} after the last whole line, as a crash leaves of a line that was never confirmed:"
            " counted for nothing; the next reservation removes that and writes a line that says so."
        )


def _refuse_other_head(ledger: Ledger, lines: int, head: str) -> None:
    """Raise VerificationFailed where the ledger never had this head; every one began without a line, with 64 zeros."""
    from ...common.counted import counted
    from ...common.errors import VerificationFailed, about
    from ...common.journal import START, verify_journal

    with about("the privacy ledger"):
        if lines and head != START:
            verify_journal(ledger.path, head=head)
        elif lines:
            raise VerificationFailed(
                f"{counted(lines, 'line')}, and 64 zeros as the head noted earlier: that of a ledger without a line",
                expected="the hash of one of its lines: anything passes through 64 zeros, a ledger written anew too",
                remedy="Either the head was typed or noted wrongly, or it was noted before the first line and shows"
                " nothing: give one noted later; 'fedphantom budget verify' prints the present one.",
            )
        elif head != START:
            raise VerificationFailed(
                f"no line, and so no head {head[:12]}… noted earlier",
                expected="a chain that passes through it",
                remedy="Either the head was typed or noted wrongly, or is another ledger's, or every line was removed"
                " since: then restore the ledger from a backup.",
            )


def _opened(path: Path) -> SiteFolder:
    """The site's folder. Raises DataError for a path that is something else, and says what."""
    from ...common.errors import DataError, about
    from ...common.site_folder import SITE_FILE, SiteFolder
    from .ledger import LEDGER

    def no_site(what: str, remedy: str) -> DataError:
        return DataError(what, expected="a site's folder, as in RUN/sites/NAME", remedy=remedy)

    with about("SITE_FOLDER"):
        if not path.exists():
            raise no_site("nothing at the path given", "Check the path.")
        if not path.is_dir():
            raise no_site("a file", "Give the folder of the site whose budget is asked for.")
        if (path / SITE_FILE).exists():
            return SiteFolder.open(path)
        if names := sorted(found.parent.name for found in path.glob(f"sites/*/{SITE_FILE}")):
            raise no_site("a run's folder", f"Give one of its sites': {', '.join(f'sites/{name}' for name in names)}.")
        if (path / LEDGER).exists():
            raise no_site(
                "a ledger's folder, and not the site's",
                f"Give the folder of a site whose {SITE_FILE} names this ledger; its journal knows every line.",
            )
        raise no_site(
            f"a folder without {SITE_FILE}",
            f"Give a site's. If it is one, put its {SITE_FILE} back from a copy: keys, journal and ledger beside it are"
            " the site's.",
        )


def _ledger(folder: SiteFolder) -> Ledger:
    from .ledger import Ledger

    return Ledger(folder.ledger, folder.journal)
