"""Commands on cohorts. Heavy imports wait inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .counted import counted

cohort_app = typer.Typer(no_args_is_help=True)


@cohort_app.callback()
def cohort() -> None:
    """Look at a site's patients, bring them in, or make procedural ones."""


@cohort_app.command()
def check(
    path: Annotated[Path, typer.Argument(help="A cohort folder (BIDS, BraTS, Decathlon), or a .csv or .tsv table.")],
    study_path: Annotated[
        Path | None, typer.Option("--study", help="study.toml: the channels and labels that are needed.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    show_identifiers: Annotated[
        bool, typer.Option("--show-identifiers", help="Name the scans. For the site's own eyes.")
    ] = False,
) -> None:
    """Say what is there and what is wrong; exit 3 when nothing usable is left. Nothing is modified."""
    from rich.console import Console

    from .cohorts.check import check_cohort
    from .cohorts.layouts import read_cohort
    from .cohorts.report import print_report
    from .errors import about
    from .progress import progress_bar
    from .study import read_study

    with about("--study"):
        study = read_study(study_path) if study_path else None
    with about("PATH"), progress_bar("checking scans") as progress:
        report = check_cohort(read_cohort(path), study, progress)
    if as_json:
        typer.echo(json.dumps(report.to_json(show_identifiers=show_identifiers), indent=2))
    else:
        print_report(report, Console(), show_identifiers=show_identifiers)
    raise typer.Exit(0 if report.usable.patients else 3)


@cohort_app.command("import-dicom")
def import_dicom_series(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A folder of DICOM files, in any order below it.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder for the cohort (BIDS).")],
    channels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML: which series is which channel, instead of our rules.")
    ] = None,
    site_secret_path: Annotated[
        Path | None,
        typer.Option(
            "--site-secret", help="Names patients by a keyed hash; made where there is none. Default: OUT.secret."
        ),
    ] = None,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Go on without series that cannot be taken, and count them.")
    ] = False,
    allow_faces: Annotated[
        str | None, typer.Option(metavar="REASON", help="Take heads with a face; the reason is kept in the cohort.")
    ] = None,
    show_files: Annotated[
        bool,
        typer.Option("--show-files", help="Name a file of each series not taken, on stderr. For the site's own eyes."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Bring DICOM series in as a de-identified cohort: of their headers, geometry and a channel's name stay."""
    from .dicom.channels import read_channel_rules
    from .dicom.run import ImportChoices, import_dicom
    from .errors import about
    from .output_place import refuse_taken
    from .progress import stages

    with about("OUT"):
        refuse_taken(out)
    with about("--channels"):
        rules = read_channel_rules(channels)
    secret = site_secret_path or out.with_name(f"{out.name}.secret")
    choices = ImportChoices(rules, secret, leave_out=leave_out, allow_faces=allow_faces)
    with stages() as stage:
        report = import_dicom(source, out, choices, stage, _say_aside if show_files else _say_nothing)
    typer.echo(json.dumps(report.to_json()) if as_json else report.to_text())


@cohort_app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    patients: Annotated[int, typer.Option("--patients", min=1, help="How many.")],
    sites: Annotated[int, typer.Option("--sites", min=1, max=26, help="A, B, C, ... take turns.")] = 1,
    spacing: Annotated[float, typer.Option("--spacing", help="Voxel size in mm.")] = 5.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same bytes.")] = 0,
) -> None:
    """Make procedural patients: MNI152 anatomy with a tumour, in T1, T1c, T2 and FLAIR, as a BIDS cohort."""
    from .errors import about
    from .output_place import refuse_taken
    from .phantom.patients import write_phantom_cohort
    from .progress import progress_bar

    with about("OUT"):
        refuse_taken(out)
    with progress_bar("making patients") as progress:
        write_phantom_cohort(out, patients, sites, spacing, seed, progress)
    made = f"{counted(patients, 'procedural patient')}, {counted(sites, 'site')}"
    typer.echo(f"{made}, {spacing:g} mm, seed {seed}")


def _say_aside(line: str) -> None:
    typer.echo(line, err=True)


def _say_nothing(_: str) -> None:
    """For who did not ask."""
