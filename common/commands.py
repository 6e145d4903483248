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


def generate(
    generator_path: Annotated[
        Path, typer.Argument(metavar="GENERATOR", help="A generator.safetensors, or an ensemble's folder of them.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder for the synthetic cohort (BIDS).")],
    sample: Annotated[int | None, typer.Option(min=1, help="Paint this many newly sampled public label maps.")] = None,
    labels: Annotated[Path | None, typer.Option(metavar="DIR", help="Paint the label maps of this folder.")] = None,
    public: Annotated[
        Path | None, typer.Option(metavar="COHORT", help="The public cohort, where the study's source is a folder.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of label maps and noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    picture: Annotated[
        Path | None, typer.Option("--montage", metavar="FILE", help="PNG of the first volumes and their label maps.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make synthetic scans from label maps: newly sampled public ones, or those of a folder."""
    if (sample is None) == (labels is None):
        raise typer.BadParameter("give exactly one of them", param_hint="--sample or --labels")
    if public and labels:
        raise typer.BadParameter("it would have no effect: --labels gives the label maps", param_hint="--public")
    if picture and picture.suffix.lower() != ".png":
        raise typer.BadParameter("a picture is written as PNG: give a name that ends in .png", param_hint="--montage")
    from .device import choose_device
    from .errors import about
    from .gan.generation import generate_cohort, load_generators
    from .labels.choice import declare_sources, newly_sampled, of_folder
    from .montage import write_cohort_montage
    from .output_place import refuse_folder, refuse_taken
    from .progress import progress_bar

    with about("OUT"):
        refuse_taken(out)
    if picture:
        with about("--montage"):
            refuse_folder(picture)
    chosen_device = choose_device(device)
    with about("GENERATOR"):
        generators = load_generators(generator_path, chosen_device)
    study, digests = generators[0].study, [generator.sha256 for generator in generators]
    if labels:
        with about("--labels"):
            chosen = of_folder(study, labels)
    else:
        chosen = newly_sampled(study, sample or 0, public, seed)
    if chosen.warning:
        typer.echo(f"warning: {chosen.warning}", err=True)
    if chosen.sources:  # first: a run that cannot take them would make the scans unreleasable
        declare_sources(generator_path.parent, chosen.sources)
    with progress_bar("painting") as progress:
        scans = generate_cohort(generators, chosen.maps, out, seed, lambda done: progress(done, chosen.number))
    if picture:
        write_cohort_montage(picture, out, study, private=bool(chosen.private))
    painters = {"generator_sha256": digests[0]} if len(digests) == 1 else {"generators_sha256": digests}
    facts = {"scans": scans, "cohort": str(out), **painters, "seed": seed, "private_label_maps": chosen.private}
    typer.echo(json.dumps(facts) if as_json else f"{counted(scans, 'synthetic scan')} in {out}")


def _say_aside(line: str) -> None:
    typer.echo(line, err=True)


def _say_nothing(_: str) -> None:
    """For who did not ask."""
