"""The site's commands from approval on; nothing heavy is imported here."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...common.errors import about
from ...common.interrupt import say_when_interrupted
from ...common.printed import print_made
from .commands import site_app as site_app

if TYPE_CHECKING:
    from ...common.exchange import SiteTrainer
    from ...common.site_folder import SiteFolder

_Site = Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@site_app.command("approve")
def site_approve(
    site: _Site,
    seen: Annotated[
        str | None, typer.Option(metavar="WORDS", help="The last line of what was shown; approves exactly that.")
    ] = None,
) -> None:
    """Show a study in plain words, and what would leave; with --seen, approve what was shown."""
    from .approval import approve
    from .approval_text import proposal_of, proposal_text

    folder = _opened(site)
    proposal = proposal_of(folder)
    if seen is None:
        typer.echo(proposal_text(folder, proposal))
    else:
        approve(folder, proposal, seen)
        typer.echo(f"approved for '{folder.name}': now 'fedphantom site start {site}'")


@site_app.command("start")
def site_start(
    site: _Site,
    once: Annotated[bool, typer.Option("--once", help="End after one answered round; for batch queues.")] = False,
) -> None:
    """Answer the coordinator's rounds until Ctrl-C; start it again at any time."""
    from .serving import serve

    folder = _opened(site)
    say_when_interrupted(
        f"stopped: this site answers no rounds until 'fedphantom site start {shlex.quote(str(site))}' is typed again. A"
        " round that was under way here is broken off: the coordinator has a whole reply to it or none, and privacy"
        " budget that it spent stays spent"
    )
    serve(folder, lambda text: typer.echo(text, err=True), once=once)


@site_app.command("train")
def site_train(
    site: _Site,
    request: Annotated[Path, typer.Argument(metavar="REQUEST", help="From the coordinator: 'server export'.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="A new file for the reply.")],
    as_json: _Json = False,
) -> None:
    """Answer one round without a network: train what a signed file asks for, write the signed reply to carry back.

    The same request again gives the same reply, without training. Exit 5: a request that is not the coordinator's.
    """
    from datetime import UTC, datetime

    from ...common.progress import progress_bar
    from .file_round import answer_request

    with progress_bar("training") as report:

        def open_trainer(root: Path) -> SiteTrainer:
            from ..local_training import LocalTrainer  # a refusal need not wait for torch

            return LocalTrainer.open(root, report)

        made = answer_request(site, request, out, open_trainer, datetime.now(UTC))
    print_made(made, as_json=as_json)


@site_app.command("export")
def site_export(
    site: _Site,
    out: Annotated[Path, typer.Option(metavar="FILE", help="A new file for the reply.")],
    as_json: _Json = False,
) -> None:
    """Write the last reply of 'site train' once more."""
    from datetime import UTC, datetime

    from .file_round import export_reply

    made = export_reply(site, out, datetime.now(UTC))
    print_made(made, as_json=as_json)


@site_app.command("pause")
def site_pause(site: _Site) -> None:
    """Answer no round until 'site go-on'; what was trained stays."""
    from .standing import pause

    folder = _opened(site)
    pause(folder)
    typer.echo(f"'{folder.name}' has paused; 'fedphantom site go-on {site}' ends it")


@site_app.command("go-on")
def site_go_on(site: _Site) -> None:
    """End a pause: answer the coordinator's rounds again."""
    from .standing import go_on

    folder = _opened(site)
    go_on(folder)
    typer.echo(f"'{folder.name}' takes part again")


@site_app.command("withdraw")
def site_withdraw(
    site: _Site,
    reason: Annotated[str, typer.Option(help="For the site's own journal; told to nobody.")],
    as_json: _Json = False,
) -> None:
    """Leave a study for good: no further round is answered. What left before cannot be called back.

    A signed notice is written for the coordinator, whose rounds wait for this site until it comes; again, the same.
    """
    from .leaving import leave

    print_made(leave(_opened(site), reason), as_json=as_json)


@site_app.command("status")
def site_status(
    site: _Site,
    watch: Annotated[bool, typer.Option("--watch", help="Draw it again every few seconds, until Ctrl-C.")] = False,
    as_json: _Json = False,
) -> None:
    """How the site stands: approval, rounds answered, what left, until when it is enrolled; no identifiers."""
    from ...common.watched_status import show_status
    from .status import site_facts, site_text

    folder = _opened(site)

    def look() -> str:
        facts = site_facts(folder)
        return json.dumps(facts, indent=1) if as_json else site_text(facts)

    show_status(look, watch=watch)


@site_app.command("doctor")
def site_doctor(
    site: _Site,
    step: Annotated[
        bool, typer.Option("--step", help="Also take one real optimiser step, on made-up scans of the study's size.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Leave out the coordinator's lines: rounds are carried as files.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Look into all that a round needs, each line green, yellow or red with the fix; exit 3 where one is red.

    What it says holds no identifier and no small count: it may be sent to the coordinator.
    """
    from rich.console import Console

    from ...common.progress import progress_bar
    from .doctor.examination import examine
    from .doctor.table import print_examination

    folder = _opened(site)
    with progress_bar("checking scans") as progress:
        examination = examine(folder, step=step, offline=offline, progress=progress)
    if as_json:
        typer.echo(json.dumps(examination.to_json(), indent=1))
    else:
        print_examination(examination, Console())
    raise typer.Exit(0 if examination.ok else 3)


def _opened(site: Path) -> SiteFolder:
    from ...common.site_folder import SiteFolder

    with about("DIR"):
        return SiteFolder.open(site)
