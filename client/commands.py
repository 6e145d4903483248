"""The hospital's commands. Heavy imports wait inside, so that ``--help`` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    synthetic: Annotated[Path, typer.Option(help="Synthetic cohort, e.g. of 'generate'.")],
    run: Annotated[
        Path | None, typer.Option(help="Run or site folder: its coin records say who trains and who tests.")
    ] = None,
    real_train: Annotated[Path | None, typer.Option(help="Instead of --run: real patients to train on.")] = None,
    real_test: Annotated[
        Path | None, typer.Option(help="Instead of --run: real patients that nothing was trained on.")
    ] = None,
    public: Annotated[Path | None, typer.Option(help="Public cohort: what anyone has without the hospitals.")] = None,
    study: Annotated[
        Path | None, typer.Option(help="study.toml, with --real-train; else derived from the synthetic cohort.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for finished arms and evaluation.json; goes on there.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of every arm's U-Net.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of every arm's U-Net.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train the same U-Net on real, synthetic and both; compare Dice on real patients none of them saw."""
    if bool(run) == bool(real_train and real_test) or (run and (real_train or real_test or study)):
        raise typer.BadParameter(
            "give either the run or both cohorts (and a study with those only)",
            param_hint="--run or --real-train, --real-test",
        )
    from ..common.progress import progress_bar
    from .evaluation_report import EvaluationOptions, evaluate_cohorts, evaluate_run, print_evaluation

    with progress_bar("training segmenters") as progress:
        options = EvaluationOptions(steps=steps, seed=seed, device=device, out=out, progress=progress, say=_say_aside)
        if real_train and real_test:
            evaluation = evaluate_cohorts(real_train, real_test, synthetic, public, study, options)
        elif run:
            evaluation = evaluate_run(run, synthetic, public, options)
    print_evaluation(evaluation, as_json=as_json)


def _say_aside(text: str) -> None:
    typer.echo(text, err=True)
