"""The coordinator's commands once sites are enrolled; nothing heavy is imported here."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...common.errors import about
from ...common.interrupt import say_when_interrupted
from ...common.printed import print_made
from .commands import server_app as server_app

if TYPE_CHECKING:
    from ..simulation import MakeInitial
    from .folder import CoordinatorFolder

_Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@server_app.command("start")
def server_start(folder: _Folder) -> None:
    """Let enrolled sites reach this coordinator, until Ctrl-C: SuperLink on loopback, nginx in front."""
    from .coordinator import Coordinator
    from .serving import serve

    coordinator = Coordinator.open(folder).folder
    place = shlex.quote(str(folder))
    say_when_interrupted(
        f"stopped: no site reaches this coordinator until 'fedphantom server start {place}' is typed again; sites keep"
        f" trying. A run that was under way ended with it: 'fedphantom server resume {place}' goes on from its last"
        " finished round"
    )
    serve(coordinator, _say_aside)


@server_app.command("run")
def server_run(folder: _Folder, as_json: _Json = False) -> None:
    """Do the study's rounds over the enrolled sites; run again, it goes on from the last."""
    _run(folder, as_json=as_json, resumed=False)


@server_app.command("resume")
def server_resume(folder: _Folder, as_json: _Json = False) -> None:
    """Go on with a run whose ServerApp, SuperLink or machine was stopped, from its last round."""
    _run(folder, as_json=as_json, resumed=True)


@server_app.command("export")
def server_export(
    folder: _Folder,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write it there too; it always lies in DIR/round-files.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Write the next round's signed request, to be carried to sites without a network; called again, the same file."""
    from datetime import UTC, datetime

    from .file_rounds import export_request
    from .folder import CoordinatorFolder

    asked = export_request(folder, out, _beginning(CoordinatorFolder(folder)), datetime.now(UTC))
    print_made(asked, as_json=as_json)


@server_app.command("import")
def server_import(
    folder: _Folder,
    reply: Annotated[list[Path] | None, typer.Argument(metavar="FILE", help="Replies of sites, any number.")] = None,
    close: Annotated[
        bool, typer.Option("--close", help="Do the round without the sites that are missing, given the quorum.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Take in replies that sites signed; the round is done once all are here. Called again, nothing counts twice.

    Exit 5: a reply that is not what an enrolled site signed for this round. Exit 4: a second, other reply of a site,
    or a round that is to be done below the study's quorum.
    """
    from datetime import UTC, datetime

    from .file_rounds import import_replies

    found = import_replies(folder, reply or (), datetime.now(UTC), close=close)
    print_made(found, as_json=as_json)


@server_app.command("stop")
def server_stop(folder: _Folder) -> None:
    """End the run that goes on; its checkpoints stand."""
    from .folder import CoordinatorFolder
    from .running import stop_run

    with about("DIR"):
        coordinator = CoordinatorFolder.open(folder)
    ended = stop_run(coordinator)
    typer.echo("the run was stopped; 'server resume' goes on with it" if ended else "no run goes on")


@server_app.command("status")
def server_status(
    folder: _Folder,
    watch: Annotated[bool, typer.Option("--watch", help="Draw it again every few seconds, until Ctrl-C.")] = False,
    as_json: _Json = False,
) -> None:
    """Rounds, over a network or by files, sites, who is connected, what expires when."""
    from ...common.watched_status import show_status
    from .folder import CoordinatorFolder
    from .status import server_facts, status_text

    with about("DIR"):
        coordinator = CoordinatorFolder.open(folder)

    def look() -> str:
        facts = server_facts(coordinator)
        return json.dumps(facts, indent=1) if as_json else status_text(facts)

    show_status(look, watch=watch)


def _run(folder: Path, *, as_json: bool, resumed: bool) -> None:
    from ...common.progress import stages
    from .folder import CoordinatorFolder
    from .running import run_study

    with about("DIR"):
        coordinator = CoordinatorFolder.open(folder)
    place = shlex.quote(str(folder))
    say_when_interrupted(
        "stopped: this command alone. A run that had begun goes on while 'server start' does: 'fedphantom server status"
        f" {place}' shows it, 'fedphantom server stop {place}' ends it. 'fedphantom server resume {place}' follows it"
        " again, the round under way asked anew, and writes the result once all are done"
    )
    with stages() as stage:
        result = run_study(coordinator, _beginning(coordinator), stage("rounds"), _say_aside, resumed=resumed)
    where = str(result.generator) if result.generator else None
    typer.echo(
        json.dumps(
            {
                "rounds": result.rounds,
                "rounds_given_up": list(result.given_up),
                "generator": where,
                "run": str(result.folder.root),
            }
        )
        if as_json
        else result.text()
    )


def _beginning(folder: CoordinatorFolder) -> MakeInitial:
    """Makes the generator that the study's first round starts from."""
    from functools import partial

    from ...common.gan.public_start import first_parameters

    return partial(first_parameters, start=folder.public_start if folder.public_start.exists() else None)


def _say_aside(text: str) -> None:
    typer.echo(text, err=True)
