"""A deployed site's commands. Heavy imports wait inside, so that ``--help`` answers at once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ...common.printed import print_made

site_app = typer.Typer(no_args_is_help=True)

_Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@site_app.callback()
def site() -> None:
    """Take part in a study as a hospital: keys made here, images that stay here."""


@site_app.command("init")
def site_init(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder; given again, it is finished.")],
    invitation: Annotated[Path, typer.Option(metavar="FILE", help="From the coordinator.")],
    cohort: Annotated[Path, typer.Option(help="This site's patients.")],
    ledger: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the privacy ledger outlives this folder, under the site's name."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The public start that the study names under training.start."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Make a site from an invitation: look through the cohort, make keys here, write the request to send back."""
    from ...common.progress import stages
    from .setup import init_site

    with stages() as stage:
        made = init_site(out, invitation, cohort, ledger, start, datetime.now(UTC), stage)
    print_made(made, as_json=as_json)


@site_app.command("join")
def site_join(
    folder: _Folder,
    roster: Annotated[Path, typer.Argument(metavar="ROSTER", help="From the coordinator, once the site is enrolled.")],
    fingerprint: Annotated[str, typer.Option(metavar="XXXXX-...", help="As the coordinator read it out by telephone.")],
    as_json: _Json = False,
) -> None:
    """Check the coordinator's roster, find this site's keys on it, and go by it; exit 5 for an older or foreign one."""
    from .joining import join

    joined = join(folder, roster, fingerprint, datetime.now(UTC))
    print_made(joined, as_json=as_json)


@site_app.command("renew")
def site_renew(folder: _Folder, as_json: _Json = False) -> None:
    """Make new keys and a request for them that the present ones sign; they are used once they stand on a roster."""
    from .joining import renew_keys

    made = renew_keys(folder, datetime.now(UTC))
    print_made(made, as_json=as_json)
