"""The command line: mounts the wings' commands and hands the client's side to what needs both sides."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import __version__
from .client.commands import evaluate
from .client.node.run_commands import site_app
from .common.commands import cohort_app
from .common.failure_report import FailureReport, report_failure
from .common.interrupt import INTERRUPTED, SAID, end_with, interrupt_the_command, say_when_interrupted, was_interrupted
from .common.journal_commands import journal_app
from .common.labels.commands import labels_app
from .privacy.audit.commands import audit_app
from .privacy.dp.commands import budget_app
from .privacy.generate_command import generate
from .privacy.release.commands import release_app
from .server.commands import study_app
from .server.coordinator.run_commands import server_app

if TYPE_CHECKING:
    from .common.exchange import SiteTrainer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(cohort_app, name="cohort")
app.add_typer(study_app, name="study")
app.add_typer(labels_app, name="labels")
app.add_typer(audit_app, name="audit")
app.add_typer(budget_app, name="budget")
app.add_typer(release_app, name="release")
app.add_typer(journal_app, name="journal")
app.add_typer(site_app, name="site")
app.add_typer(server_app, name="server")
app.command()(generate)
app.command()(evaluate)

_Engine = Annotated[
    Literal["local", "flower"], typer.Option(help="In this process, or real Flower processes on loopback.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedphantom {__version__}")
        raise typer.Exit


@app.callback()
def fedphantom(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show where a failure arose.")] = False,
) -> None:
    """Train one generator of synthetic, labelled MRI across hospitals. Images stay home; audits decide what leaves."""


@app.command()
def simulate(
    study: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="What is trained.")],
    site: Annotated[list[str], typer.Option(metavar="NAME=COHORT", help="A site and its patients; repeatable.")],
    out: Annotated[Path, typer.Option(help="The run's folder; given again, the run goes on.")],
    engine: _Engine = "local",
    preview_every: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="A picture in OUT/previews every K rounds; public label maps."),
    ] = None,
    public: Annotated[
        Path | None, typer.Option(metavar="COHORT", help="Public cohort for previews, where the study's source is one.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The public start that the study names under training.start."),
    ] = None,
    ledgers: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where each site's privacy ledger outlives runs; else in the run's folder."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Run a whole federation on this machine: every site's training, every round, the generator."""
    if public and preview_every is None:
        raise typer.BadParameter("only with --preview-every: it would have no effect", param_hint="--public")
    from functools import partial

    from .client.budget_outlook import budget_outlook
    from .client.site_setup import check_site_cohort, create_site_folder
    from .common.gan.public_start import first_parameters
    from .common.progress import stages
    from .server.commands import run_simulation, simulation_text

    with stages() as stage:
        result = run_simulation(
            study,
            site,
            out,
            engine,
            check_site=check_site_cohort,
            see_budget=partial(budget_outlook, ledgers=ledgers),
            prepare_site=partial(create_site_folder, start=start, ledgers=ledgers),
            open_site=_open_site,
            initial=partial(first_parameters, start=start),
            stage=stage,
            say=_say_aside,
            preview_every=preview_every,
            public=public,
            ledgers=ledgers,
        )
    typer.echo(json.dumps(result) if as_json else simulation_text(result))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The demo's folder; given again, the demo goes on.")] = Path("demo-out"),
    data: Annotated[Path | None, typer.Option(metavar="COHORT", help="Real patients; else procedural ones.")] = None,
    sites: Annotated[int, typer.Option(min=2, help="How many, where the cohort names none.")] = 3,
    tier: Annotated[
        Literal["internal", "controlled", "public"], typer.Option(help="Whom the release is meant for.")
    ] = "internal",
    engine: _Engine = "flower",
    as_json: _Json = False,
) -> None:
    """Go the whole way once: cohort, sites, rounds, synthetic scans, evaluation, audit, release, report."""
    from .client.evaluation.report import evaluate_scans
    from .client.site_setup import create_site_folder
    from .common.gan.generation import initial_parameters
    from .common.progress import stages
    from .server.demo import HospitalSide, run_demo
    from .server.demo_summary import summary_text

    hospital = HospitalSide(create_site_folder, _open_site, initial_parameters, evaluate_scans)
    with stages() as stage:
        summary = run_demo(out, data, sites, tier, engine, hospital, stage, lambda text: typer.echo(text, err=True))
    typer.echo(json.dumps(summary) if as_json else summary_text(summary, out))


def _say_aside(text: str) -> None:
    typer.echo(text, err=True)


def _open_site(root: Path) -> SiteTrainer:
    from .client.local_training import LocalTrainer
    from .client.site_round import Site
    from .common.site_folder import SiteFolder

    return Site(SiteFolder.open(root), LocalTrainer.open)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; every failure of every command ends here."""
    verbose = "--verbose" in arguments
    say_when_interrupted(SAID)
    try:
        app([argument for argument in arguments if argument != "--verbose"], prog_name="fedphantom")
        return 0
    except SystemExit as stopped:  # typer's way out, also from usage errors and Ctrl-C
        if stopped.code != INTERRUPTED:
            return stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
        return _say(report_failure(KeyboardInterrupt()), stopped if verbose else None)
    except (Exception, KeyboardInterrupt) as error:
        return _say(report_failure(KeyboardInterrupt() if was_interrupted() else error), error if verbose else None)


def _say(failure: FailureReport, trace: BaseException | None) -> int:
    if trace is not None:
        traceback.print_exception(trace)
    typer.echo(failure.text, err=True)
    return failure.exit_code


def main() -> None:
    """Run the process's own command line and end the process."""
    interrupt_the_command()
    code = run(sys.argv[1:])
    end_with(code)
    if any(thread.daemon for thread in threading.enumerate()):
        # One still trains, in native code: the interpreter's own end would abort there, and lose the exit code.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
                stream.flush()
        os._exit(code)
    sys.exit(code)
