"""``fedphantom labels``: public label maps, and those inferred from images. Heavy imports wait inside the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

labels_app = typer.Typer(no_args_is_help=True)


@labels_app.callback()
def labels() -> None:
    """Draw label maps that nobody has to protect, or infer a site's own anatomy for its own use."""


@labels_app.command()
def sample(
    out: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    count: Annotated[int, typer.Option("-n", "--number", min=1, help="How many label maps.")],
    study_path: Annotated[Path, typer.Option("--study", help="study.toml: grid, labels, source and ranges.")],
    public: Annotated[
        Path | None, typer.Option("--public", help="The public cohort, where the study's source is a folder.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="The study's seed, unless given.")] = None,
) -> None:
    """Sample public label maps, each with the chain of what was done to it, and the sources they come from."""
    from ..cohorts.layouts import read_cohort
    from ..progress import progress_bar
    from ..study import read_study
    from .folder import write_label_folder
    from .sampler import make_label_sampler

    study = read_study(study_path)
    sampler = make_label_sampler(study, read_cohort(public).public() if public else None)
    with progress_bar("sampling label maps") as progress:
        write_label_folder(out, sampler, count, study.volume_grid(), study.seed if seed is None else seed, progress)
    typer.echo(f"{count} label maps from {len(sampler.sources().sources)} public sources")


@labels_app.command()
def infer(
    cohort: Annotated[Path, typer.Argument(help="Skull-stripped scans; their tumour labels stay on top.")],
    out: Annotated[Path, typer.Argument(help="A new folder; its cohort.tsv joins images and label maps.")],
    network_path: Annotated[
        Path, typer.Option("--network", help="generator.safetensors of a study from images to labels.")
    ],
    remapping: Annotated[
        Path | None, typer.Option(help="TOML: what the values of the cohort's label maps mean, e.g. 'oedema = [2]'.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least confidence of a label map that is written.")
    ] = None,
    secret: Annotated[
        Path | None, typer.Option(help="The site's secret, made where there is none. Default: OUT.secret.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Infer anatomy from images. The label maps are private: what is painted on them is never released."""
    from ..anatomy.cohort import THRESHOLD, infer_cohort
    from ..anatomy.private_source import site_secret
    from ..cohorts.layouts import read_cohort
    from ..device import choose_device
    from ..gan.generation import load_generator
    from ..progress import progress_bar
    from .remapping import read_remapping

    network = load_generator(network_path, choose_device(device), "images-to-labels")
    table = read_remapping(remapping, network.study.labels) if remapping else None
    key = site_secret(secret or out.with_name(f"{out.name}.secret"))
    least = THRESHOLD if threshold is None else threshold
    with progress_bar("inferring anatomy") as progress:
        report = infer_cohort(
            read_cohort(cohort), network, out, secret=key, threshold=least, remapping=table, progress=progress
        )
    typer.echo(json.dumps(report.to_json() | {"network_sha256": network.sha256}) if as_json else report.text())
