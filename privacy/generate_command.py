"""``fedphantom generate``: synthetic scans, and what their generator promises. Heavy imports wait inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..common.counted import counted


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
        Path | None,
        typer.Option("--montage", metavar="FILE", help="New PNG of the first volumes and their label maps."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make synthetic scans from label maps: newly sampled public ones, or those of a folder; say what is promised."""
    if (sample is None) == (labels is None):
        raise typer.BadParameter("give exactly one of them", param_hint="--sample or --labels")
    if picture and picture.suffix.lower() != ".png":
        raise typer.BadParameter("a picture is written as PNG: give a name that ends in .png", param_hint="--montage")
    from ..common.device import choose_device
    from ..common.errors import about
    from ..common.gan.generation import generate_cohort, load_generators
    from ..common.labels.choice import declare_sources, newly_sampled, of_folder, sources_at_hand
    from ..common.montage import write_cohort_montage
    from ..common.output_place import refuse_inside, refuse_taken, refuse_taken_file
    from ..common.progress import progress_bar
    from .dp.statement import NONE, one_line, read_dp

    with about("OUT"):
        refuse_taken(out)
        if labels:
            refuse_inside(out, labels)
    if picture:
        with about("--montage"):
            refuse_taken_file(picture)
    chosen_device = choose_device(device)
    with about("GENERATOR"):
        generators = load_generators(generator_path, chosen_device)
        promises = [read_dp(generator.dp, generator.study) for generator in generators]
    study, digests = generators[0].study, [generator.sha256 for generator in generators]
    if labels:
        known = sources_at_hand(study, public)
        with about("--labels"):
            chosen = of_folder(study, labels, known)
    else:
        chosen = newly_sampled(study, sample or 0, public, seed)
    for warning in chosen.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if chosen.sources:  # first: a run that cannot take them would make the scans unreleasable
        declare_sources(generator_path.parent, chosen.sources)
    with progress_bar("painting") as progress:
        scans = generate_cohort(generators, chosen.maps, out, seed, lambda done: progress(done, chosen.number))
    if picture:
        write_cohort_montage(picture, out, study, private=bool(chosen.private))
    painters = {"generator_sha256": digests[0]} if len(digests) == 1 else {"generators_sha256": digests}
    facts = {"scans": scans, "cohort": str(out), **painters, "seed": seed, "private_label_maps": chosen.private}
    facts |= {"dp": NONE if promises[0] is None else "patient-level"}
    if stated := [promise.model_dump() for promise in promises if promise]:
        facts |= {"dp_statement": stated[0]} if len(digests) == 1 else {"dp_statements": stated}
    lines = [
        f"{counted(scans, 'synthetic scan')} in {out}",
        *dict.fromkeys(f"dp: {one_line(one)}." for one in promises),
    ]
    typer.echo(json.dumps(facts) if as_json else "\n".join(lines))
