"""The hospital's commands. Heavy imports wait inside, so that ``--help`` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    real_train: Annotated[Path, typer.Option(help="Cohort of real patients to train on.")],
    real_test: Annotated[Path, typer.Option(help="Cohort of real patients that nothing was trained on.")],
    synthetic: Annotated[Path, typer.Option(help="Synthetic cohort, e.g. of 'generate'.")],
    public: Annotated[Path | None, typer.Option(help="Public cohort: what anyone has without the hospitals.")] = None,
    study: Annotated[Path | None, typer.Option(help="study.toml; else derived from the synthetic cohort.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for finished arms and evaluation.json; goes on there.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of every arm's U-Net.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of every arm's U-Net.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train the same U-Net on real, synthetic and both; compare Dice on real patients none of them saw."""
    from ..common.progress import progress_bar
    from .evaluation_report import evaluate_cohorts, print_evaluation

    with progress_bar("training segmenters") as progress:
        evaluation = evaluate_cohorts(
            real_train,
            real_test,
            synthetic,
            public,
            study,
            out,
            steps=steps,
            seed=seed,
            device=device,
            progress=progress,
        )
    print_evaluation(evaluation, as_json=as_json)
