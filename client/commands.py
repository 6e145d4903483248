"""The hospital's commands. Heavy imports wait inside, so that ``--help`` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
    public: Annotated[
        Path | None, typer.Option(help="Protocols arms and shin: public cohort, what anyone has without the hospitals.")
    ] = None,
    study: Annotated[
        Path | None, typer.Option(help="study.toml, with --real-train; else derived from the synthetic cohort.")
    ] = None,
    site_secret: Annotated[
        Path | None,
        typer.Option(
            help="The site's secret, where label maps of its patients were edited: none may be a test patient's."
        ),
    ] = None,
    protocol: Annotated[
        Literal["arms", "shin", "fidelity"],
        typer.Option(
            help="arms: one U-Net each on real, synthetic, both. shin: also fine-tuned on 10 % real, each with and"
            " without augmentation, over seeds. fidelity: how true the scans are."
        ),
    ] = "arms",
    out: Annotated[
        Path | None, typer.Option(help="Folder for finished U-Nets' scores and the result; goes on there.")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Training steps of every U-Net.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of every U-Net; the first of --seeds.")] = 0,
    seeds: Annotated[int | None, typer.Option(min=1, help="Protocol shin: training seeds, 3 unless given.")] = None,
    real_patients: Annotated[
        int | None, typer.Option(min=1, help="Protocol shin: also arms that see only so many real patients.")
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Protocol shin: also growing shares of synthetic scans; where do they hurt?")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what synthetic scans are worth on real patients whom nothing has seen."""
    _refuse(
        (
            bool(run) == bool(real_train and real_test) or bool(run and (real_train or real_test or study)),
            "give either the run or both cohorts (and a study with those only)",
            "--run or --real-train, --real-test",
        ),
        (
            protocol != "shin" and bool(seeds or real_patients or sweep),
            "only with --protocol shin",
            "--seeds, --real-patients, --sweep",
        ),
        (protocol == "shin" and out is None, "the Shin protocol takes hours: give it a folder to go on in", "--out"),
        (protocol == "fidelity" and public is not None, "not with --protocol fidelity", "--public"),
    )
    from ..common.progress import progress_bar
    from .evaluation.material import Sources
    from .evaluation.report import EvaluationOptions
    from .evaluation.report import evaluate as evaluate_by

    sources = Sources(
        synthetic=synthetic,
        run=run,
        real_train=real_train,
        real_test=real_test,
        study=study,
        public=public,
        site_secret=site_secret,
    )
    with progress_bar("training segmenters") as progress:
        options = EvaluationOptions(
            steps=steps,
            seed=seed,
            device=device,
            out=out,
            progress=progress,
            say=_say_aside,
            seeds=seeds or 3,
            real_patients=real_patients,
            sweep=sweep,
        )
        report = evaluate_by(protocol, sources, options)
    report.print(as_json=as_json)


def _refuse(*misuses: tuple[bool, str, str]) -> None:
    """Usage error for the first misuse that is there: (whether, what to do, which options)."""
    for found, message, options in misuses:
        if found:
            raise typer.BadParameter(message, param_hint=options)


def _say_aside(text: str) -> None:
    typer.echo(text, err=True)
