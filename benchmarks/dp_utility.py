"""An experiment, not a command: what a promise of ε costs in usefulness, and what public material alone would give.

    python benchmarks/dp_utility.py STUDY.toml --site A=COHORT --site B=COHORT --public COHORT --out DIR
        [--epsilon 1 3 8] [--noised means] [--clip-norm 1] [--seeds 1 2]

STUDY.toml promises nothing and is trained as it is: the federated generator without a promise. From the same public
start, which the public cohort's scans train, each ε's study is run. All generators paint the same public label maps,
and the same U-Net is trained on what each painted, on real scans, and on the public scans themselves; it is scored on
the sites' validation patients (``--patients test`` once, for what is reported and was not chosen by them). δ is
1/(10·n) of the largest site. One arm more, ``ε = ∞``, is the last of these studies with its noise taken away: what the
way of asking itself costs. Its generator says an ε that does not hold, and is removed once it has painted. Of ``means``
there is a control, ``nobody asked``: the same training towards the public scans' own means, so that what lies above it
is what patients told, and not the training itself.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from dp_plot import plot
from experiment import Stage, arguments, drawn_classes, over_seeds, painted_scans, score_arms, train_average

from fedphantom.client import private_training
from fedphantom.client.evaluation.figures import paired_difference
from fedphantom.common.cohorts.check import check_cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import joined, prepare
from fedphantom.common.device import choose_device
from fedphantom.common.gan.generation import generator_with, load_generator
from fedphantom.common.gan.label_means import TargetMeans
from fedphantom.common.gan.networks import Generator
from fedphantom.common.gan.public_start import read_public_start
from fedphantom.common.labels.sampler import make_label_sampler
from fedphantom.common.promise import Noised, PromiseTable
from fedphantom.common.randomness import derived_seed
from fedphantom.common.site_folder import SiteFolder, SiteMaterial, site_material
from fedphantom.common.study import Study, read_study
from fedphantom.server.commands import parse_sites
from fedphantom.server.pretraining import pretrain, public_patients

START = "public-start.safetensors"
CONTROL = "nobody asked"


@dataclass(frozen=True)
class Options:
    """What is compared, and how large.

    Attributes:
        sites: Site name to cohort, as ``simulate`` takes them.
        public: Public patients.
        epsilons: Of the promises, each a study.
        noised: What is asked of the patients.
        clip_norm: The longest that a patient's part of it may be.
        rounds: Of a study that promises something.
        local_steps: Of each of its rounds.
        learning_rate: Of its generator.
        pretrain_steps: On public scans.
        patients: The role of the patients that the U-Nets are scored on.
        volumes: Synthetic scans that each generator paints.
        segmenter_steps: Of every U-Net.
    """

    sites: Mapping[str, Path]
    public: Path
    epsilons: Sequence[float]
    noised: Noised
    clip_norm: float
    rounds: int
    local_steps: int
    learning_rate: float
    pretrain_steps: int
    patients: str
    volumes: int
    segmenter_steps: int


def compare(study: Study, options: Options, out: Path, stage: Stage) -> dict[str, Any]:
    """Train everything with this study's seed and score it; what ``result.json`` holds for the seed."""
    device = choose_device()
    plain = trained(study, options, out / "no promise", stage("no promise"))
    material = sites_of(out / "no promise", options, study)
    start_file = out / START
    if not start_file.exists():
        pretrain(study, options.public, start_file, options.pretrain_steps, stage)
    delta = 1 / (10 * max(len(m.coins.training_patients()) for m in material))
    promised = {eps: with_promise(study, options, eps, delta, start_file) for eps in options.epsilons}
    painters: dict[str, Generator] = {"no promise": plain}
    for eps, one in promised.items():
        name = f"ε = {eps:g}"
        painters[name] = trained(one, options, out / f"epsilon {eps:g}", stage(name), start_file)
    last = next(reversed(promised.values()))
    with without_noise():
        painters["ε = ∞"] = trained(last, options, out / "no noise", stage("ε = ∞"), start_file)
    shutil.rmtree(out / "no noise")
    if options.noised == "means":
        with nobody_asked():
            painters[CONTROL] = trained(last, options, out / "nobody", stage(CONTROL), start_file)
        shutil.rmtree(out / "nobody")
    start = read_public_start(start_file, last)
    painters["public generator"] = generator_with(start.generator, study, device)

    public = prepare(check_cohort(public_patients(read_cohort(options.public)), study).usable, study, out / "public")
    sampler = make_label_sampler(
        study, read_cohort(options.public).public() if study.public_labels.source == "folder" else None
    )
    seed = derived_seed(study.seed, "dp utility")
    classes = drawn_classes(sampler, study, seed, options.volumes)
    arms = {
        "real": joined([m.scans_of(m.coins.training_patients()) for m in material]).named_by_site(),
        "public scans": public,
    }
    for name, network in painters.items():
        arms[name] = painted_scans(network, classes, study, seed)
    test = joined([m.scans_of(m.coins.patients(options.patients)) for m in material]).named_by_site()  # type: ignore[arg-type]  # one of its choices

    evaluation = score_arms(arms, test, study, seed, options.segmenter_steps, out / "arms", stage)
    region = evaluation.primary
    scores = {
        one: {arm.name: arm.scores.dice[one] for arm in evaluation.arms} for one in evaluation.arms[0].scores.dice
    }
    gains = {
        one: {
            f"{name} over {base}": paired_difference(of[name], of[base]).to_json()
            for name in of
            for base in ("public generator", "public scans", CONTROL)
            if base in of and (name.startswith("ε") or (name == CONTROL != base))
        }
        for one, of in scores.items()
    }
    spent = {name: json.loads((out / f"epsilon {eps:g}" / "summary.json").read_text()) for eps, name in named(promised)}
    return {
        "seed": study.seed,
        "region": region,
        "training_scans": len(arms["real"]),
        "scored_patients": len(set(test.patients)),
        "dice": {arm.name: arm.figure(region).to_json() for arm in evaluation.arms},
        "dice_of_structures": {one: {arm.name: arm.figure(one).to_json() for arm in evaluation.arms} for one in scores},
        "per_patient": {name: np.round(values, 4).tolist() for name, values in scores[region].items()},
        "gains": gains,
        "statements": {name: summary["dp_statement"] for name, summary in spent.items()},
    }


@contextmanager
def without_noise() -> Iterator[None]:
    """Noised sums as they are asked for, of the same patients and clipped alike, and no noise in them."""
    reserved = private_training._noised_as_reserved
    private_training._noised_as_reserved = lambda paid: replace(reserved(paid), noise_multiplier=0.0)
    try:
        yield
    finally:
        private_training._noised_as_reserved = reserved


@contextmanager
def nobody_asked() -> Iterator[None]:
    """Means that are to be matched: the public ones, of every label, whatever the patients' are."""
    training: Any = private_training
    asked = training.noised_means

    def of_the_public(*arguments: Any) -> TargetMeans:
        found = asked(*arguments)
        return TargetMeans(torch.zeros_like(found.shift), torch.ones_like(found.weight))

    training.noised_means = of_the_public
    try:
        yield
    finally:
        training.noised_means = asked


def named(promised: Mapping[float, Study]) -> list[tuple[float, str]]:
    """ε and what its arm is called."""
    return [(eps, f"ε = {eps:g}") for eps in promised]


def with_promise(study: Study, options: Options, eps: float, delta: float, start: Path) -> Study:
    """The study under a promise, from the public start."""
    digest = hashlib.sha256(start.read_bytes()).hexdigest()
    update = {
        "objective": "adversarial",
        "start": digest,
        "rounds": options.rounds,
        "local_steps": options.local_steps,
        "generator_lr": options.learning_rate,
    }
    promise = PromiseTable(epsilon=eps, delta=delta, noised=options.noised, clip_norm=options.clip_norm, spare_rounds=0)
    return study.model_copy(
        update={
            "training": study.training.model_copy(update=update),
            "privacy": study.privacy.model_copy(update={"dp": "patient-level", "promise": promise}),
        }
    )


def trained(
    study: Study, options: Options, out: Path, report: Callable[[int, int], None], start: Path | None = None
) -> Generator:
    """The study's federated generator."""
    return load_generator(train_average(study, options.sites, out, report, start), choose_device()).network


def sites_of(out: Path, options: Options, study: Study) -> list[SiteMaterial]:
    """Every site's patients, in site-name order; roles follow from seed and name, so that all studies draw the same."""
    return [site_material(SiteFolder.open(out / "sites" / name), study) for name in sorted(options.sites)]


def main() -> None:
    """Compare for every seed; ``result.json`` and ``utility-over-epsilon.png`` grow with each."""
    parse = arguments(__doc__, segmenter_steps=300)
    parse.add_argument("--public", type=Path, required=True)
    parse.add_argument("--epsilon", type=float, nargs="+", default=[1.0, 3.0, 8.0])
    parse.add_argument("--noised", choices=get_args(Noised), default="means")
    parse.add_argument("--clip-norm", type=float, default=1.0)
    parse.add_argument("--rounds", type=int, default=2)
    parse.add_argument("--local-steps", type=int, default=75)
    parse.add_argument("--learning-rate", type=float, default=2e-3)
    parse.add_argument("--pretrain-steps", type=int, default=1000)
    parse.add_argument("--patients", choices=["validation", "test"], default="validation")
    parse.add_argument("--volumes", type=int, default=128)
    given = parse.parse_args()
    study = read_study(given.study)
    options = Options(
        sites=parse_sites(given.site),
        public=given.public,
        epsilons=given.epsilon,
        noised=given.noised,
        clip_norm=given.clip_norm,
        rounds=given.rounds,
        local_steps=given.local_steps,
        learning_rate=given.learning_rate,
        pretrain_steps=given.pretrain_steps,
        patients=given.patients,
        volumes=given.volumes,
        segmenter_steps=given.segmenter_steps,
    )
    facts = {"study": study.model_dump(mode="json"), "noised": options.noised, "patients": options.patients}
    for result in over_seeds(study, given, facts, lambda one, out, stage: compare(one, options, out, stage)):
        plot(result, given.out / "utility-over-epsilon.png")


if __name__ == "__main__":
    main()
