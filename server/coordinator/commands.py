"""The deployed coordinator's commands. Heavy imports wait inside, so that ``--help`` answers at once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ...common.printed import print_made

server_app = typer.Typer(no_args_is_help=True)

_Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@server_app.callback()
def server() -> None:
    """Coordinate a study between institutions: who takes part, with which keys."""


@server_app.command("init")
def server_init(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, for this study alone.")],
    study: Annotated[Path, typer.Option(metavar="STUDY.toml", help="What is trained.")],
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where sites will reach the coordinator.")],
    also: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name or IP address of that host; repeatable.")
    ] = None,
    days: Annotated[
        int, typer.Option(min=1, max=825, help="How long server certificates and sites' enrolments hold.")
    ] = 365,
    start: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The public start that the study names under training.start."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Make a coordinator: keys, a certificate authority for this study, server certificates, an empty registry."""
    from .setup import make_coordinator

    made = make_coordinator(out, study, address, also or (), days, start, datetime.now(UTC))
    print_made(made, as_json=as_json)


@server_app.command("invite")
def server_invite(
    folder: _Folder,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The site's public name.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A new file for the invitation; else in DIR/invitations.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=90, help="How long it can be used.")] = 14,
    as_json: _Json = False,
) -> None:
    """Sign an invitation for one site, for one enrolment; an earlier one that is open becomes void."""
    from .enrolling import invite

    sent = invite(folder, name, out, days, datetime.now(UTC))
    print_made(sent, as_json=as_json)


@server_app.command("enroll")
def server_enroll(
    folder: _Folder,
    request: Annotated[Path, typer.Argument(metavar="REQUEST", help="The file that the site sent.")],
    fingerprint: Annotated[
        str, typer.Option(metavar="XXXXX-...", help="As the site engineer read it out by telephone.")
    ],
    as_json: _Json = False,
) -> None:
    """Enrol a site, or exchange its keys for new ones, and sign the roster that every site gets.

    Exit 5: a signature, fingerprint or date that does not hold. Exit 4: an invitation or keys that came before.
    """
    from .enrolling import enroll

    changed = enroll(folder, request, fingerprint, datetime.now(UTC))
    print_made(changed, as_json=as_json)


@server_app.command("revoke")
def server_revoke(
    folder: _Folder,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The site.")],
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="A sentence, for the journal.")] = None,
    notice: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Instead, of a site that withdrew: the notice that it signed.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Take a site's keys and its open invitation out of the study, and sign the roster without it.

    From the next round on nobody waits for it. Exit 5: a notice that the site did not sign, or for another study.
    """
    from .enrolling import revoke, take_notice

    if notice is not None and reason is None:
        changed = take_notice(folder, name, notice, datetime.now(UTC))
    elif reason is not None and notice is None:
        changed = revoke(folder, name, reason, datetime.now(UTC))
    else:
        raise typer.BadParameter("give one of them", param_hint="--reason, --notice")
    print_made(changed, as_json=as_json)


@server_app.command("renew")
def server_renew(folder: _Folder, as_json: _Json = False) -> None:
    """Issue new server certificates by the same authorities, and say what expires when."""
    from .renewal import renew

    found = renew(folder, datetime.now(UTC))
    print_made(found, as_json=as_json)
