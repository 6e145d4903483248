"""``fedphantom labels``: label maps sampled, edited, inferred from images. Heavy imports wait inside the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..counted import counted

labels_app = typer.Typer(no_args_is_help=True)

_Seed = Annotated[int | None, typer.Option("--seed", min=0, help="The study's seed, unless given.")]
_Public = Annotated[
    Path | None, typer.Option("--public", help="The public cohort, where the study's source is a folder.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@labels_app.callback()
def labels() -> None:
    """Draw public label maps, edit them or a site's own, compare the two, or infer a site's anatomy from its images."""


@labels_app.command()
def sample(
    out: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    count: Annotated[int, typer.Option("-n", "--number", min=1, help="How many label maps.")],
    study_path: Annotated[Path, typer.Option("--study", help="study.toml: grid, labels, source and ranges.")],
    public: _Public = None,
    seed: _Seed = None,
    as_json: _Json = False,
) -> None:
    """Sample public label maps, each with the chain of what was done to it, and the sources they come from."""
    from ..errors import about
    from ..output_place import refuse_taken
    from ..progress import progress_bar
    from ..study import read_study
    from .choice import public_cohort
    from .diversity import diversity
    from .folder import write_label_folder
    from .sampler import make_label_sampler

    with about("OUT"):
        refuse_taken(out)
    with about("--study"):
        study = read_study(study_path)
    sampler = make_label_sampler(study, public_cohort(study, public))
    with progress_bar("sampling label maps") as progress:
        thinned = write_label_folder(out, sampler, count, study, study.seed if seed is None else seed, progress)
    sources, spread = len(sampler.sources().sources), diversity(thinned, study.labels)
    facts = {"label_maps": count, "sources": sources, "diversity": spread.to_json()}
    typer.echo(
        json.dumps(facts)
        if as_json
        else f"{counted(count, 'label map')} from {counted(sources, 'public source')}\n{spread.to_text()}"
    )


@labels_app.command()
def edit(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A folder of label maps, or a cohort.")],
    out: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    recipe_path: Annotated[Path, typer.Option("--recipe", metavar="FILE", help="What to do, in TOML.")],
    study_path: Annotated[Path, typer.Option("--study", help="study.toml: labels, grid and the sampler's ranges.")],
    variants: Annotated[int, typer.Option("-n", "--variants", min=1, help="How many of each label map.")] = 1,
    seed: _Seed = None,
    public: _Public = None,
    donors: Annotated[
        Path | None, typer.Option(help="Label maps whose lesions the recipe transplants: a folder or a cohort.")
    ] = None,
    site_secret: Annotated[
        Path | None,
        typer.Option(help="Names private label maps by a keyed hash; made where it does not exist. Never leaves."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Move, resize, insert or remove lesions by a recipe, as recorded; maps of patients stay inside the site."""
    from ..edits.run import edit_label_maps
    from ..errors import about
    from ..output_place import refuse_inside, refuse_taken
    from ..progress import progress_bar
    from ..study import read_study
    from .recipe import read_recipe

    with about("OUT"):
        refuse_taken(out)
        for given in (source, *([donors] if donors else [])):
            refuse_inside(out, given)
    with about("--study"):
        study = read_study(study_path)
    with about("--recipe"):
        recipe = read_recipe(recipe_path)
    with progress_bar("editing label maps") as progress:
        report = edit_label_maps(
            source,
            out,
            recipe,
            study,
            variants=variants,
            seed=study.seed if seed is None else seed,
            public=public,
            donors=donors,
            secret=site_secret,
            progress=progress,
        )
    if report.warning:
        typer.echo(f"warning: {report.warning}", err=True)
    typer.echo(json.dumps(report.to_json()) if as_json else report.to_text())


@labels_app.command()
def nearest(
    source: Annotated[Path, typer.Argument(metavar="LABELS", help="A folder of label maps.")],
    cohort: Annotated[Path, typer.Argument(help="The site's patients.")],
    study_path: Annotated[Path, typer.Option("--study", help="study.toml: labels and grid.")],
    show_identifiers: Annotated[
        bool, typer.Option("--show-identifiers", help="Name the nearest patients. For the site's own eyes.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Say how near label maps come to the site's own. For the site's eyes; nothing is written and nothing chosen.

    It is printed and kept nowhere: a figure beside a label map that may leave would tell of the patients, and so
    would a set from which it had chosen.
    """
    from ..errors import about
    from ..study import read_study
    from .nearest import nearest_private

    with about("--study"):
        study = read_study(study_path)
    found = nearest_private(source, cohort, study)
    typer.echo(
        json.dumps(found.to_json(show_identifiers=show_identifiers))
        if as_json
        else found.to_text(show_identifiers=show_identifiers)
    )


@labels_app.command()
def infer(
    cohort: Annotated[Path, typer.Argument(help="Skull-stripped scans; their tumour labels stay on top.")],
    out: Annotated[Path, typer.Argument(help="A new folder; its cohort.tsv joins images and label maps.")],
    network_path: Annotated[
        Path, typer.Option("--network", help="generator.safetensors of a study from images to labels.")
    ],
    remapping: Annotated[
        Path | None,
        typer.Option(
            help="TOML: what the values of the cohort's label maps mean, a line for each label: 'background = [0]',"
            " 'oedema = [2]', 'enhancing = [4]', 'necrosis = [1]' for BraTS until 2021. Needed unless the cohort names"
            " its values as the network's study does."
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least confidence of a label map that is written.")
    ] = None,
    site_secret_path: Annotated[
        Path | None,
        typer.Option("--site-secret", help="The site's secret, made where there is none. Default: OUT.secret."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: _Json = False,
) -> None:
    """Infer anatomy from images. The label maps are private: what is painted on them is never released."""
    from ..anatomy.cohort import THRESHOLD, infer_cohort
    from ..cohorts.layouts import read_cohort
    from ..device import choose_device
    from ..errors import about
    from ..gan.generation import load_generator
    from ..output_place import refuse_taken
    from ..progress import progress_bar
    from .private_name import site_secret
    from .remapping import read_remapping

    with about("OUT"):
        refuse_taken(out)
    chosen_device = choose_device(device)
    with about("--network"):
        network = load_generator(network_path, chosen_device, "images-to-labels")
    with about("--remapping"):
        table = read_remapping(remapping, network.study.labels) if remapping else None
    with about("COHORT"):
        patients = read_cohort(cohort)
    with about("--site-secret"):
        key = site_secret(site_secret_path or out.with_name(f"{out.name}.secret"))
    least = THRESHOLD if threshold is None else threshold
    with progress_bar("inferring anatomy") as progress:
        report = infer_cohort(patients, network, out, secret=key, threshold=least, remapping=table, progress=progress)
    typer.echo(json.dumps(report.to_json() | {"network_sha256": network.sha256}) if as_json else report.text())
