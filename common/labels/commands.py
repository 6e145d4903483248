"""``fedphantom labels``: public label maps. Heavy imports wait inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..counted import counted

labels_app = typer.Typer(no_args_is_help=True)


@labels_app.callback()
def labels() -> None:
    """Draw label maps that nobody has to protect."""


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
    from ..output_place import refuse_taken
    from ..progress import progress_bar
    from ..study import read_study
    from .choice import public_cohort
    from .folder import write_label_folder
    from .sampler import make_label_sampler

    refuse_taken(out)
    study = read_study(study_path)
    sampler = make_label_sampler(study, public_cohort(study, public))
    with progress_bar("sampling label maps") as progress:
        write_label_folder(out, sampler, count, study.volume_grid(), study.seed if seed is None else seed, progress)
    sources = counted(len(sampler.sources().sources), "public source")
    typer.echo(f"{counted(count, 'label map')} from {sources}")
