"""An experiment, not a command: what a generator's losses and its judge give to what its scans are worth.

    python benchmarks/generator_trials.py STUDY.toml --site A=COHORT ... --public COHORT --out DIR
        [--steps 600] [--only NAME ...] [--seeds 1 2]

Each trial trains one generator on the training patients of all sites at once, with the study's settings but for what it
tries (:func:`trials`), as many steps and with the same draws as the others. All paint the same public label maps, and
the same U-Net is trained on what each painted and scored on the sites' validation patients: development, so that
nothing is chosen by test patients. DIR holds scores alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from experiment import Stage, arguments, drawn_classes, drawn_sites, over_seeds, painted_scans, score_arms
from fakes_apart import label_finder
from judges import ProjectedDiscriminator, judge_by
from painters import noisy_blocks
from torch import Tensor, nn

from fedphantom.client.evaluation.figures import paired_difference
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import PreparedScans, joined
from fedphantom.common.device import choose_device
from fedphantom.common.gan.networks import draw_noise
from fedphantom.common.gan.training import (
    Batch,
    DiscriminatorStep,
    GeneratorLoss,
    generator_loss,
    plain_discriminator_step,
    supervision,
    train,
)
from fedphantom.common.gan.training_state import TrainingState, new_state
from fedphantom.common.labels.sampler import make_label_sampler
from fedphantom.common.randomness import derived_seed, torch_generator
from fedphantom.common.study import Study, read_study
from fedphantom.server.commands import parse_sites

BASELINE = "as the study says"
DIVERSITY = 1.0
"""Weight of the term that rewards two draws of noise for two images."""


@dataclass(frozen=True)
class Trial:
    """What one generator is trained with, and by.

    Attributes:
        settings: Of ``[training]``, in the study's place.
        longer: Times the steps of the others.
        discriminator: Its step.
        loss: The generator's.
        judge: Stands in the discriminator's place; the study's own where there is none.
        painter: Alters the generator before its first step.
    """

    settings: Mapping[str, float]
    longer: int = 1
    discriminator: DiscriminatorStep = plain_discriminator_step
    loss: GeneratorLoss = generator_loss
    judge: nn.Module | None = None
    painter: Callable[[TrainingState, Study], None] | None = None


def trials(study: Study, finder: nn.Module) -> dict[str, Trial]:
    """All there are, by name."""
    return {
        BASELINE: Trial({}),
        "twice as long": Trial({}, longer=2),
        "no adversary": Trial({}, discriminator=_still, loss=_distance_alone),
        "no feature matching": Trial({"feature_matching_weight": 0.0}),
        "feature matching × 5": Trial({"feature_matching_weight": 5 * study.training.feature_matching_weight}),
        "L1 / 5": Trial({"l1_weight": study.training.l1_weight / 5}),
        "L1 × 5": Trial({"l1_weight": 5 * study.training.l1_weight}),
        "two noises, two images": Trial({}, loss=_diverse),
        "projected discriminator": Trial({}, judge=ProjectedDiscriminator(finder, len(study.labels), study.seed)),
        "noise after every block": Trial({}, painter=noisy_blocks),
    }


def _still(state: TrainingState, batch: Batch, fake: Tensor) -> Tensor:
    return torch.zeros(())


def _distance_alone(state: TrainingState, batch: Batch, fake: Tensor, study: Study) -> tuple[Tensor, Tensor, Tensor]:
    distance, weight = supervision(study)
    found = distance(fake, batch.real)
    return weight * found, torch.zeros(()), found


def _diverse(state: TrainingState, batch: Batch, fake: Tensor, study: Study) -> tuple[Tensor, Tensor, Tensor]:
    """And images that differ where noises do, as far as two patients may: Mao et al. 2019 (arXiv 1903.05628)."""
    whole, adversarial, distance = generator_loss(state, batch, fake, study)
    x, y, z = batch.given.shape[2:]
    noise = state.device.tensor(draw_noise(len(batch.given), (x, y, z), torch_generator(state.step, "other noise")))
    other = state.generator(batch.given, noise)
    apart = (other - fake).abs().mean() / (noise - batch.noise).abs().mean()
    return whole + DIVERSITY / (apart + 1e-2), adversarial, distance


def trained(trial: Trial, scans: PreparedScans, study: Study, steps: int, seed: int, stage: Stage, name: str) -> Any:
    """The trial's generator."""
    device = choose_device()
    study = study.model_copy(update={"training": study.training.model_copy(update=dict(trial.settings))})
    state = new_state(study, seed, device)
    if trial.judge is not None:
        judge_by(state, trial.judge, study)
    if trial.painter is not None:
        trial.painter(state, study)
    report, steps = stage(name), trial.longer * steps
    for one in train(
        state,
        scans,
        study,
        until_step=steps,
        total_steps=steps,
        seed=seed,
        discriminator_step=trial.discriminator,
        loss_of_generator=trial.loss,
    ):
        report(one.step, steps)
    return state.generator


def compare(
    study: Study, sites: Mapping[str, Path], public: Path, given: Any, out: Path, stage: Stage
) -> dict[str, Any]:
    """Train every trial with this study's seed and score it; what ``result.json`` holds for the seed."""
    material = drawn_sites(study, sites, out / "sites")
    scans = joined([m.scans_of(m.coins.training_patients()) for m in material]).named_by_site()
    test = joined([m.scans_of(m.coins.patients("validation")) for m in material]).named_by_site()
    finder = label_finder(study, public, given.segmenter_steps, out, choose_device(), stage("label finder"))
    sampler = make_label_sampler(
        study, read_cohort(public).public() if study.public_labels.source == "folder" else None
    )
    seed = derived_seed(study.seed, "generator trials")
    classes = drawn_classes(sampler, study, seed, given.volumes)
    arms = {"real": PreparedScans(scans.volumes, scans.classes, scans.patients, scans.sites, scans.headers)}
    for name, trial in trials(study, finder).items():
        if not given.only or name in given.only:
            arms[name] = painted_scans(
                trained(trial, scans, study, given.steps, seed, stage, name), classes, study, seed
            )
    evaluation = score_arms(arms, test, study, seed, given.segmenter_steps, out / "arms", stage)
    dice = {arm.name: arm.scores.dice[evaluation.primary] for arm in evaluation.arms}
    return {
        "seed": study.seed,
        "region": evaluation.primary,
        "training_scans": len(scans),
        "scored_patients": len(set(test.patients)),
        "dice": {arm.name: arm.figure(evaluation.primary).to_json() for arm in evaluation.arms},
        "over_baseline": {
            name: paired_difference(values, dice[BASELINE]).to_json()
            for name, values in dice.items()
            if name != BASELINE
        },
    }


def main() -> None:
    """Compare for every seed; ``result.json`` grows with each."""
    parse = arguments(__doc__, segmenter_steps=250)
    parse.add_argument("--public", type=Path, required=True)
    parse.add_argument("--steps", type=int, default=600)
    parse.add_argument("--volumes", type=int, default=192)
    parse.add_argument("--only", nargs="+")
    given = parse.parse_args()
    study, sites = read_study(given.study), parse_sites(given.site)
    facts = {"study": study.model_dump(mode="json"), "steps": given.steps, "volumes": given.volumes}
    for result in over_seeds(
        study, given, facts, lambda one, out, stage: compare(one, sites, given.public, given, out, stage)
    ):
        print(result["seeds"][-1]["dice"], result["seeds"][-1]["over_baseline"])


if __name__ == "__main__":
    main()
