"""An experiment, not a command: does a discriminator judge the image, or whose label map it is given?

    python benchmarks/fakes_apart.py STUDY.toml --site A=COHORT ... --public COHORT --out DIR
        [--steps 600] [--seeds 1 2]

From one public start (``dp_utility.py`` makes the same), the adversarial training of a promised study goes on with the
patients of all sites at once, each noised step without noise and without clipping: what a discriminator could learn at
best. Once scans are held against fakes of their own label maps, once against fakes of public ones. Either way once more
with a discriminator by projection, which learnt on the public scans as long as the other; and once more with a U-Net
beside the discriminator that learnt on the public scans to find label maps, and asks the generator to paint what it
finds again (its cross-entropy is added to the generator's loss: public means alone, which cost nothing).
Then the discriminators are asked about patients that they never saw (``--patients``, validation patients by default):

- *image*: the AUC of telling a scan from what the generator paints of the scan's own label map;
- *label map*: the AUC of telling what the generator paints of patients' label maps from what it paints of public ones.
  All are fakes of one generator, so that 0.5 is what a judge of images reaches.

And a U-Net trained on what each generator paints of public label maps is scored on those patients.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dp_utility import START, Options, with_promise
from experiment import Stage, arguments, drawn_classes, drawn_sites, over_seeds, painted_scans, score_arms
from judges import ProjectionDiscriminator, judge_by
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from fedphantom.common.cohorts.check import check_cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import joined, prepare
from fedphantom.common.device import Device, choose_device
from fedphantom.common.gan.generation import paint
from fedphantom.common.gan.networks import one_hot
from fedphantom.common.gan.public_maps import PublicMaps
from fedphantom.common.gan.public_start import read_public_start
from fedphantom.common.gan.training import Batch, GeneratorLoss, generator_loss, train
from fedphantom.common.gan.training_state import TrainingState, new_state
from fedphantom.common.promise import Fakes
from fedphantom.common.randomness import derived_seed
from fedphantom.common.segmentation import SegmenterPlan, train_segmenter
from fedphantom.common.study import Study, read_study
from fedphantom.privacy.dp.discriminator import PrivateDiscriminatorStep
from fedphantom.privacy.dp.drawn_sum import DrawnSum
from fedphantom.privacy.dp.patients import PrivatePatients
from fedphantom.privacy.dp.randomness import SecretRandom
from fedphantom.privacy.dp.step import NoisedSum
from fedphantom.server.commands import parse_sites
from fedphantom.server.pretraining import pretrain, public_patients


@dataclass(frozen=True)
class Way:
    """How a discriminator is led to judge the image.

    Attributes:
        fakes: What scans are held against.
        found_again: Whether a U-Net has to find the label map again.
        projection: Whether the label map meets the image's features alone.
    """

    fakes: Fakes
    found_again: bool = False
    projection: bool = False


WAYS = {
    "own label maps": Way("own-label-maps"),
    "public label maps": Way("public-label-maps"),
    "own label maps, found again": Way("own-label-maps", found_again=True),
    "public label maps, found again": Way("public-label-maps", found_again=True),
    "own label maps, projection": Way("own-label-maps", projection=True),
    "public label maps, projection": Way("public-label-maps", projection=True),
}
UNCLIPPED = 1e9
DRAWN = 4.0
"""Patients in a step, on average."""


@dataclass(frozen=True)
class Size:
    """How long everything is.

    Attributes:
        steps: Of the generator.
        volumes: Painted for the U-Net.
        segmenter_steps: Of the U-Net.
    """

    steps: int
    volumes: int
    segmenter_steps: int


def compare(study: Study, options: Options, size: Size, out: Path, stage: Stage) -> dict[str, Any]:
    """Train with this study's seed, once a kind of fakes; what ``result.json`` holds for the seed."""
    device, start_file = choose_device(), out / START
    material = drawn_sites(study, options.sites, out / "sites")
    if not start_file.exists():
        pretrain(study, options.public, start_file, options.pretrain_steps, stage)
    promised = with_promise(study, options, 8.0, 1e-4, start_file)
    start = read_public_start(start_file, promised)
    scans = joined([m.scans_of(m.coins.training_patients()) for m in material]).named_by_site()
    others = joined([m.scans_of(m.coins.patients(options.patients)) for m in material]).named_by_site()  # type: ignore[arg-type]  # one of its choices
    sampler = start.sampler(promised)
    seed = derived_seed(study.seed, "fakes apart")
    public = drawn_classes(sampler, study, seed, size.volumes)

    arms, told = {"real": scans}, dict[str, dict[str, float]]()
    states: dict[str, TrainingState] = {"public generator": start.state(promised, device)}
    finder = label_finder(study, options.public, size.segmenter_steps, out, device, stage("label finder"))
    projection = projection_judge(study, options, out, device, stage("projection"))
    for name, way in WAYS.items():
        states[name] = state = start.state(promised, device)
        if way.projection:
            judge_by(state, copy.deepcopy(projection), promised)
        patients, random = PrivatePatients(scans, promised, device), SecretRandom(device.torch)
        names = tuple(one for one, _ in state.discriminator.named_parameters())
        how = NoisedSum(UNCLIPPED, 0.0, DRAWN)
        rate = min(1.0, DRAWN / len(patients))
        sums = DrawnSum(len(patients), rate, how, random, sys.maxsize)
        step = PrivateDiscriminatorStep(patients, sums, names, 1, random, way.fakes)
        report, pairs = stage(name), PublicMaps(sampler, promised)
        losses = []
        for one in train(
            state,
            pairs,
            promised,
            until_step=size.steps,
            total_steps=size.steps,
            seed=seed,
            discriminator_step=step,
            loss_of_generator=finding(finder) if way.found_again else generator_loss,
        ):
            report(one.step, size.steps)
            losses.append(one.discriminator)
        told[name] = judged(state, study, others.volumes[:], others.classes[:], public, seed)
        told[name]["last loss on public fakes"] = float(np.mean(losses[-50:]))
    for name, state in states.items():
        arms[name] = painted_scans(state.generator, public, study, seed)
    evaluation = score_arms(arms, others, study, seed, size.segmenter_steps, out / "arms", stage)
    return {
        "seed": study.seed,
        "region": evaluation.primary,
        "training_patients": len(set(scans.patients)),
        "asked_of_patients": len(set(others.patients)),
        "auc": told,
        "dice": {arm.name: arm.figure(evaluation.primary).to_json() for arm in evaluation.arms},
    }


def projection_judge(
    study: Study, options: Options, out: Path, device: Device, progress: Callable[[int, int], None]
) -> nn.Module:
    """A discriminator by projection that has learnt on the public scans, against a generator that learnt beside it."""
    cohort = check_cohort(public_patients(read_cohort(options.public)), study).usable
    state, paired, steps = new_state(study, study.seed, device), study.paired(), options.pretrain_steps
    judge_by(state, ProjectionDiscriminator(study, study.seed), study)
    pairs = prepare(cohort, study, out / "public")
    for one in train(state, pairs, paired, until_step=steps, total_steps=steps, seed=study.seed):
        progress(one.step, steps)
    return state.discriminator


def label_finder(
    study: Study, public: Path, steps: int, out: Path, device: Device, progress: Callable[[int, int], None]
) -> nn.Module:
    """A U-Net that finds label maps in scans, from the public scans alone; it learns no more."""
    cohort = check_cohort(public_patients(read_cohort(public)), study).usable
    network = train_segmenter(
        prepare(cohort, study, out / "public"),
        len(study.channels),
        len(study.labels),
        SegmenterPlan(steps=steps),
        derived_seed(study.seed, "label finder"),
        device,
        progress,
    )
    return network.eval().requires_grad_(False)


def finding(finder: nn.Module) -> GeneratorLoss:
    """The adversarial loss, and how badly the finder finds the label map again that was painted."""

    def loss(state: TrainingState, batch: Batch, fake: Tensor, study: Study) -> tuple[Tensor, Tensor, Tensor]:
        whole, adversarial, reconstruction = generator_loss(state, batch, fake, study)
        found: Tensor = finder(fake)
        return (
            whole + nn.functional.cross_entropy(found.float(), batch.given.argmax(dim=1)),
            adversarial,
            reconstruction,
        )

    return loss


def judged(
    state: TrainingState,
    study: Study,
    volumes: NDArray[np.float32],
    own: NDArray[np.uint8],
    public: NDArray[np.uint8],
    seed: int,
) -> dict[str, float]:
    """What the discriminator tells apart; AUCs by the mean logit of a volume.

    Args:
        state: Both networks.
        study: Its labels.
        volumes: Patients' scans (n, C, X, Y, Z).
        own: Their label maps, class indices (n, X, Y, Z).
        public: As many or more public ones.
        seed: Of what is painted.
    """
    public = public[: len(own)]
    of_own, of_public = (paint(state.generator, maps, study, seed, state.device) for maps in (own, public))
    real, fake, nobodys = (
        _logits(state, study, maps, seen) for maps, seen in ((own, volumes), (own, of_own), (public, of_public))
    )
    return {"image": _auc(real, fake), "label map": _auc(fake, nobodys)}


def _logits(
    state: TrainingState, study: Study, classes: NDArray[np.uint8], volumes: NDArray[np.float32]
) -> list[float]:
    found = []
    with torch.no_grad():
        for maps, volume in zip(classes, volumes, strict=True):
            given = state.device.tensor(one_hot(torch.from_numpy(maps[None]), len(study.labels)))
            seen = state.device.tensor(torch.from_numpy(volume[None].astype(np.float32)))
            found.append(float(state.discriminator(given, seen)[0].mean()))
    return found


def _auc(higher: Sequence[float], lower: Sequence[float]) -> float:
    return float(roc_auc_score([1] * len(higher) + [0] * len(lower), [*higher, *lower]))


def main() -> None:
    """Compare for every seed; ``result.json`` grows with each."""
    parse = arguments(__doc__, segmenter_steps=250)
    parse.add_argument("--public", type=Path, required=True)
    parse.add_argument("--steps", type=int, default=600)
    parse.add_argument("--pretrain-steps", type=int, default=600)
    parse.add_argument("--patients", choices=["validation", "test"], default="validation")
    parse.add_argument("--volumes", type=int, default=128)
    parse.add_argument("--learning-rate", type=float, default=2e-4)
    given = parse.parse_args()
    study, size = read_study(given.study), Size(given.steps, given.volumes, given.segmenter_steps)
    options = Options(
        sites=parse_sites(given.site),
        public=given.public,
        epsilons=[],
        noised="all",
        clip_norm=UNCLIPPED,
        rounds=1,
        local_steps=given.steps,
        learning_rate=given.learning_rate,
        pretrain_steps=given.pretrain_steps,
        patients=given.patients,
        volumes=given.volumes,
        segmenter_steps=given.segmenter_steps,
    )
    facts = {"study": study.model_dump(mode="json"), "steps": size.steps, "patients": given.patients}
    for result in over_seeds(study, given, facts, lambda one, out, stage: compare(one, options, size, out, stage)):
        print(result["seeds"][-1]["auc"], result["seeds"][-1]["dice"])


if __name__ == "__main__":
    main()
