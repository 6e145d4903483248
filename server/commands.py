"""The coordinator's commands, ready for ``cli.py`` to mount; nothing heavy is imported here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..common.counted import counted
from ..common.errors import ConfigError, DataError, OutputTaken, about
from ..common.interrupt import say_when_interrupted

if TYPE_CHECKING:
    from ..common.cohort import Cohort
    from ..common.progress import Report
    from ..common.study import Study
    from .budget_check import SeeBudget
    from .simulation import Engine, MakeInitial, OpenSite, PrepareSite

    CheckSite = Callable[[Path, str, Cohort, Study, Report], str]

study_app = typer.Typer(no_args_is_help=True)

_StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.toml", help="A study file.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@study_app.callback()
def study() -> None:
    """What is trained, on which grid, under which privacy promise."""


@study_app.command("new")
def study_new(
    path: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="A file that does not exist yet.")],
    template: Annotated[
        Literal["phantom", "hippocampus", "tiny", "promised", "anatomy", "anatomy-freesurfer"],
        typer.Option(help="What to start from."),
    ] = "phantom",
    approval_key: Annotated[
        list[Path] | None,
        typer.Option(help="Public key of a site's compliance officer; one for every site, of an average. Repeatable."),
    ] = None,
) -> None:
    """Write a study to start from, every key explained. An existing file is never overwritten."""
    from ..common.atomic import write_atomic
    from ..common.storage import CHOOSE_ANOTHER
    from ..common.study import named_file
    from .study_file import new_study

    with about("--approval-key"):
        text = new_study(template, approval_key or ())
    with about(named_file(path)):
        if path.exists():
            raise OutputTaken("it is there already", expected="a new file", remedy=CHOOSE_ANOTHER)
        write_atomic(path, text.encode())
    typer.echo(f"wrote {path}; edit it, then run 'fedphantom study check {path}'")


@study_app.command("check")
def study_check(
    path: _StudyFile,
    patients: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Patients of a site in training, after roles are drawn and coins tossed; is its promise feasible?",
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Read a study and say whether it holds; exit 3 and name the key if not, 4 where its promise leaves pure noise."""
    from ..common.study import named_file, read_study
    from .study_check import check_study

    study = read_study(path)
    with about(named_file(path)):
        checked = check_study(study, patients)
    typer.echo(json.dumps(checked.to_json()) if as_json else checked.to_text())
    checked.refuse()


@study_app.command("pretrain")
def study_pretrain(
    path: _StudyFile,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The public start file; one that does not exist yet.")],
    public: Annotated[Path, typer.Option(metavar="COHORT", help="Public or procedural patients, and no others.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 1000,
    as_json: _Json = False,
) -> None:
    """Train both networks on public scans: what a study under differential privacy goes out from."""
    from dataclasses import asdict

    from ..common.progress import stages
    from ..common.study import read_study
    from .pretraining import pretrain

    study = read_study(path)
    with stages() as stage:
        made = pretrain(study, public, out, steps, stage)
    line = f'start = "{made.sha256}"'
    said = f"wrote {out}, trained on {counted(made.scans, 'public scan')}. Write under [training] in the study: {line}"
    typer.echo(json.dumps(asdict(made)) if as_json else said)


@study_app.command("show")
def study_show(path: _StudyFile, as_json: _Json = False) -> None:
    """Say in plain words what a study does and what leaves a site."""
    from ..common.study import read_study
    from ..privacy.study_summary import study_facts, study_text

    parsed = read_study(path)
    typer.echo(json.dumps(study_facts(parsed), indent=1) if as_json else study_text(parsed))


def run_simulation(
    study: Path,
    site: Sequence[str],
    out: Path,
    engine: Engine,
    *,
    check_site: CheckSite,
    see_budget: SeeBudget,
    prepare_site: PrepareSite,
    open_site: OpenSite,
    initial: MakeInitial,
    stage: Callable[[str], Report],
    say: Callable[[str], None],
    preview_every: int | None = None,
    public: Path | None = None,
    ledgers: Path | None = None,
) -> dict[str, object]:
    """``fedphantom simulate STUDY.toml --site NAME=COHORT ... --out DIR [--engine local|flower]``.

    Args:
        study: The study file.
        site: ``NAME=COHORT``, one for each site.
        out: The run's folder.
        engine: ``local`` or ``flower``.
        check_site: As :func:`fedphantom.server.simulation.simulate`, with how far it came.
        see_budget: As there; asked where the study makes a promise.
        prepare_site: As there.
        open_site: As there.
        initial: As there.
        stage: Begins a named stage; returns its progress function (done, in all).
        say: Told what a cohort check left out, what ``study check`` warns of, and after which round the run goes on.
        preview_every: As there.
        public: As there.
        ledgers: Where sites' privacy ledgers outlive the run; told, where a promise is made and none is named.

    Returns:
        What ``--json`` prints: the run's ``summary.json``, with the generator's path, if any, and ``not_drawn``, the
        number of curves and previews that could not be written.

    Raises:
        BadParameter: a ``--site`` that is not ``NAME=COHORT``.
        ConfigError: no readable study, or ledgers for one that promises nothing.
        StorageError: the ledgers' place cannot be written to.
        FedPhantomError: as :func:`fedphantom.server.simulation.simulate`.
    """
    from ..common.storage import refuse_unwritable, refuse_unwritable_file
    from ..common.study import named_file, parse_study, read_study_text
    from ..privacy.dp.ledger import LEDGER
    from ..privacy.dp.promise_warnings import promise_warnings
    from .broken_off import broken_off
    from .run_folder import RunFolder
    from .simulation import going_on, simulate

    sites, report = parse_sites(site), []
    text = read_study_text(study)
    with about(named_file(study)):
        parsed = parse_study(text)
    total, promise = parsed.training.rounds, parsed.privacy.promise
    if ledgers is not None and promise is None:
        raise ConfigError(
            "--ledgers: a folder for privacy ledgers, and a study with dp = 'none'",
            expected="a study that makes a promise",
            remedy="Leave it out; it would have no effect.",
        )
    if ledgers is not None:
        for name in sorted(sites):
            with about(f"--ledgers: the privacy ledger of site '{name}'"):
                refuse_unwritable(ledgers / name)
                refuse_unwritable_file(ledgers / name / LEDGER)
    with about("--out"):
        folder = RunFolder(out.resolve())
        folder.check_free()
    own_ledgers = promise is not None and ledgers is None and not folder.begun
    if promise is not None:
        say_when_interrupted(partial(broken_off, promise, out))

    def begin(done: int, total: int) -> None:
        if not done:  # nothing is spent yet
            for warning in promise_warnings(parsed):
                say(f"warning: {warning}")
        if own_ledgers:  # every check is behind it: the run has begun
            say(
                "privacy ledgers lie in the run's folder: another run of the same patients begins a new one, and their"
                " budget with it. Name a folder that outlives runs with --ledgers."
            )
        if done:
            say(going_on(done, total))
        if done < total:
            report.append(stage("rounds"))
            report[0](done, total)

    result = simulate(
        text,
        sites,
        out,
        engine=engine,
        check_site=lambda folder, name, cohort, study: check_site(
            folder, name, cohort, study, stage(f"looking through the cohort of {name}")
        ),
        see_budget=see_budget if promise else None,
        prepare_site=prepare_site,
        open_site=open_site,
        initial=initial,
        progress=lambda record: report[0](record.round, total),
        begin=begin,
        say=say,
        preview_every=preview_every,
        public=public,
    )
    summary: dict[str, object] = json.loads(result.folder.summary.read_text(encoding="utf-8"))
    where = str(result.generator) if result.generator else None
    return summary | {"generator": where, "not_drawn": result.not_drawn}


def parse_sites(options: Sequence[str]) -> dict[str, Path]:
    """``NAME=COHORT`` options to a mapping.

    Raises:
        BadParameter: another form, or a name twice.
        DataError: no such cohort.
    """
    sites: dict[str, Path] = {}
    for option in options:
        name, sign, cohort = option.partition("=")
        if not sign or not name or not cohort or name in sites:
            raise typer.BadParameter(
                "give NAME=COHORT, each name once, for example --site site-a=cohorts/a --site site-b=cohorts/b",
                param_hint="--site",
            )
        if not Path(cohort).exists():
            raise DataError(
                f"site '{name}': no cohort at the path given",
                expected="a folder or table of patients",
                remedy="Mend the path; 'fedphantom cohort check' reads it.",
            )
        sites[name] = Path(cohort)
    return sites


def simulation_text(result: Mapping[str, Any]) -> str:
    """What :func:`run_simulation` returned, in a few lines."""
    from ..privacy.dp.meaning import meaning
    from ..privacy.dp.statement import DpStatement, one_line

    rounds = result["rounds"]
    seconds = sum(record["seconds"] for record in rounds)
    left_out = sorted({site for record in rounds if not record["given_up"] for site in record["left_out"]})
    absent = sorted(set(result["sites"]) - {site for record in rounds for site in record["sites"]})
    none = f"; {', '.join(absent)} took part in none" if absent else ""
    lines = [f"{counted(len(rounds), 'round')} over {', '.join(result['sites'])} in {seconds:.0f} s{none}"]
    for record in rounds:
        if record["given_up"]:
            lines.append(
                f"round {record['round']} was given up, and no site's training of it counts: {record['given_up']}"
            )
    if left_out:
        lines.append(f"left out of a round: {', '.join(left_out)}; each keeps its errors.log")
    if result["not_drawn"]:
        lines.append(f"{result['not_drawn']} curves or previews could not be written; the journals say which")
    lines.append(
        {
            "weights": f"generator: {result['generator']}",
            "ensemble": f"generators, one a site: {result['generator']}; each also in its site's own folder",
            "volumes": "generators: each in its site's own folder, sites/NAME; no weights left a site",
        }[result["sharing"]]
    )
    statement = DpStatement.model_validate(result["dp_statement"]) if "dp_statement" in result else None
    if statement:
        lines.append(f"{meaning(statement.epsilon, statement.delta, 'the generator')} This study alone.")
    lines.append(f"dp: {one_line(statement)}. {_leaving(result)}")
    return "\n".join(lines)


def _leaving(result: Mapping[str, Any]) -> str:
    """Whether what was trained can ever leave the study, by what ``release pack`` refuses whatever an audit says."""
    if result["maps"] == "images-to-labels":
        return "It cannot leave the study: a network from images to labels is never released today."
    if result["sharing"] == "weights" and not result["approval_keys"]:
        return "It cannot leave the study, which names no [federation] approval_keys."
    return f"{'Volumes leave a site' if result['sharing'] == 'volumes' else 'It leaves the study'} only after an audit."
