"""The coordinator's commands, ready for ``cli.py`` to mount; nothing heavy is imported here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..common.errors import ConfigError

if TYPE_CHECKING:
    from .rounds import Progress
    from .simulation import Engine, MakeInitial, OpenSite, PrepareSite

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
        Literal["phantom", "hippocampus", "tiny", "anatomy", "anatomy-freesurfer"],
        typer.Option(help="What to start from."),
    ] = "phantom",
) -> None:
    """Write a study to start from, every key explained. An existing file is never overwritten."""
    from ..common.atomic import write_atomic

    if path.exists():
        raise ConfigError(f"'{path.name}' exists", expected="a new file", remedy="Choose another name, or remove it.")
    write_atomic(path, (files(__package__) / "study_templates" / f"{template}.toml").read_bytes())
    typer.echo(f"wrote {path}; edit it, then run 'fedphantom study check {path}'")


@study_app.command("check")
def study_check(path: _StudyFile, as_json: _Json = False) -> None:
    """Read a study and say whether it holds; exit 3 and name the key if not."""
    from ..common.study import read_study

    digest = read_study(path).digest()
    typer.echo(json.dumps({"ok": True, "digest": digest}) if as_json else f"the study holds. Digest: {digest}")


@study_app.command("show")
def study_show(path: _StudyFile, as_json: _Json = False) -> None:
    """Say in plain words what a study does and what leaves a site."""
    from ..common.study import read_study
    from .study_summary import study_facts, study_text

    parsed = read_study(path)
    typer.echo(json.dumps(study_facts(parsed), indent=1) if as_json else study_text(parsed))


def run_simulation(
    study: Path,
    site: Sequence[str],
    out: Path,
    engine: Engine,
    *,
    prepare_site: PrepareSite,
    open_site: OpenSite,
    initial: MakeInitial,
    progress: Progress,
) -> dict[str, object]:
    """``fedphantom simulate STUDY.toml --site NAME=COHORT ... --out DIR [--engine local|flower]``.

    Args:
        study: The study file.
        site: ``NAME=COHORT``, one for each site.
        out: The run's folder.
        engine: ``local`` or ``flower``.
        prepare_site: As :func:`fedphantom.server.simulation.simulate`.
        open_site: As there.
        initial: As there.
        progress: As there.

    Returns:
        What ``--json`` prints: the run's ``summary.json``, with the generator's path.

    Raises:
        ConfigError: no readable study, or a ``--site`` that is not ``NAME=COHORT``.
        FedPhantomError: as :func:`fedphantom.server.simulation.simulate`.
    """
    from ..common.study import read_study_text
    from .simulation import simulate

    text = read_study_text(study)
    result = simulate(
        text,
        parse_sites(site),
        out,
        engine=engine,
        prepare_site=prepare_site,
        open_site=open_site,
        initial=initial,
        progress=progress,
    )
    summary: dict[str, object] = json.loads(result.folder.summary.read_text(encoding="utf-8"))
    return summary | {"generator": str(result.generator)}


def parse_sites(options: Sequence[str]) -> dict[str, Path]:
    """``NAME=COHORT`` options to a mapping.

    Raises:
        ConfigError: another form, a name twice, or no such cohort.
    """
    sites: dict[str, Path] = {}
    for option in options:
        name, sign, cohort = option.partition("=")
        if not sign or not name or not cohort or name in sites:
            raise ConfigError(
                "a --site that is not NAME=COHORT, or a name given twice",
                expected="--site NAME=COHORT, each name once",
                remedy="For example: --site site-a=cohorts/a --site site-b=cohorts/b.",
            )
        if not Path(cohort).exists():
            raise ConfigError(
                f"no cohort for site '{name}' at the path given",
                expected="a folder or table of patients",
                remedy="Mend the path; 'fedphantom cohort check' reads it.",
            )
        sites[name] = Path(cohort)
    return sites


def simulation_text(result: Mapping[str, Any]) -> str:
    """What :func:`run_simulation` returned, in a few lines."""
    rounds = result["rounds"]
    seconds = sum(record["seconds"] for record in rounds)
    left_out = sorted({site for record in rounds for site in record["left_out"]})
    lines = [f"{len(rounds)} rounds over {', '.join(result['sites'])} in {seconds:.0f} s"]
    if left_out:
        lines.append(f"left out of a round: {', '.join(left_out)}; each keeps its errors.log")
    lines.append(f"generator: {result['generator']}")
    lines.append(f"dp: {result['dp']}. It leaves the study only after an audit.")
    return "\n".join(lines)
