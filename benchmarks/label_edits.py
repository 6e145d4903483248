"""An experiment, not a command: what editing few patients' label maps by a recipe adds to painting them as they are.

    python benchmarks/label_edits.py STUDY.toml --site A=COHORT --site B=COHORT --recipe RECIPE.toml --out DIR

For every seed the sites train the study's generator, which then paints their own training patients' label maps: as they
are, each as often as it takes, and edited by the recipe; as many scans either way. The same U-Net is trained on either,
and on the patients themselves, with and without the usual augmentation, and scored on the sites' test patients. The
study's roles say how few patients train. DIR holds scans painted from private label maps: it stays on this machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from experiment import arguments, as_scans, train_average
from numpy.typing import NDArray

from fedphantom.client.evaluation.figures import Floats, over_patients, paired_difference
from fedphantom.client.evaluation.segmenters import Examination, Phase, Pool, Segmenter, train_and_score
from fedphantom.common.atomic import write_atomic
from fedphantom.common.cohorts.preparation import joined
from fedphantom.common.device import choose_device
from fedphantom.common.edits.layered import layered
from fedphantom.common.edits.terms import edit_terms
from fedphantom.common.edits.variant import draw_variant
from fedphantom.common.gan.generation import as_read_back, load_generator, paint
from fedphantom.common.labels.recipe import Recipe, read_recipe
from fedphantom.common.progress import stages
from fedphantom.common.randomness import derived_seed
from fedphantom.common.segmentation import SegmenterPlan
from fedphantom.common.site_folder import SiteFolder, site_material
from fedphantom.common.study import Study, read_study
from fedphantom.server.commands import parse_sites

REGION_SCORES = dict[str, dict[str, dict[str, Floats]]]
"""Augmentation (in words) to arm to region to Dice by patient."""


def edited_maps(
    classes: NDArray[np.uint8], study: Study, recipe: Recipe, variants: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Variants of each map that the recipe finds plausible, and as many repetitions of the maps as they are."""
    terms, values = edit_terms(recipe, study), np.asarray(study.label_values, dtype=np.uint8)
    as_are, edited = [], []
    for index, one in enumerate(classes):
        state = layered(values[one], terms)
        for variant in range(variants):
            made, _ = draw_variant(state, recipe, terms, (seed, index, variant))
            if made is not None:
                as_are.append(one)
                edited.append(np.searchsorted(values, made[0].labels).astype(np.uint8))
    return np.stack(as_are), np.stack(edited)


def compare(
    study: Study,
    sites: Mapping[str, Path],
    recipe: Recipe,
    out: Path,
    *,
    variants: int,
    steps: int,
) -> tuple[REGION_SCORES, dict[str, int]]:
    """Everything of one seed: Dice by augmentation, arm and region, and how many scans and patients there were."""
    device = choose_device()
    with stages() as stage:
        generator = train_average(study, sites, out / "run", stage("generator"))
        folders = [SiteFolder.open(out / "run" / "sites" / name) for name in sorted(sites)]
        material = [site_material(folder, study) for folder in folders]
        training = joined([m.scans_of(m.coins.training_patients()) for m in material]).named_by_site()
        test = joined([m.scans_of(m.coins.patients("test")) for m in material]).named_by_site()
        as_are, edited = edited_maps(np.asarray(training.classes), study, recipe, variants, study.seed)
        network = load_generator(generator, device).network
        arms = {
            "real": training,
            "as they are": as_scans(paint_back(network, as_are, study), as_are),
            "edited": as_scans(paint_back(network, edited, study), edited),
        }
        plans = {word: SegmenterPlan(steps=steps, augmentation=word == "usual") for word in ("usual", "none")}
        seed = derived_seed(study.seed, "label edits")
        segmenters = [
            Segmenter(f"{arm} {word}", (Phase(Pool(scans), tuple(range(len(scans))), plan),), seed)
            for word, plan in plans.items()
            for arm, scans in arms.items()
        ]
        report, done = stage("segmenters"), dict.fromkeys([s.name for s in segmenters], 0)

        def progress(name: str, step: int, _: int) -> None:
            done[name] = step
            report(sum(done.values()), steps * len(segmenters))

        scores = train_and_score(segmenters, Examination(Pool(test), study, device, out / "segmenters"), progress)
    found: REGION_SCORES = {word: {arm: dict(scores[f"{arm} {word}"].dice) for arm in arms} for word in plans}
    counts = {"training_patients": len(set(training.patients)), "test_patients": len(set(test.patients))}
    return found, counts | {"synthetic_scans": len(edited)}


def paint_back(network: Any, classes: NDArray[np.uint8], study: Study) -> NDArray[np.float32]:
    """Painted on the generator, with noise of their own, as a reader of the files gets them."""
    return as_read_back(paint(network, classes, study, study.seed, choose_device()))


def summary(seeds: Mapping[int, REGION_SCORES], region: str) -> dict[str, Any]:
    """Means over patients of what a patient scores over the seeds, their gains, and each seed's own mean."""
    words = next(iter(seeds.values()))
    out: dict[str, Any] = {"region": region}
    for word, arms in words.items():
        mean = {arm: np.mean([seeds[seed][word][arm][region] for seed in seeds], axis=0) for arm in arms}
        out[f"augmentation: {word}"] = {
            "dice": {arm: over_patients(values).to_json() for arm, values in mean.items()},
            "gain_of_edits": paired_difference(mean["edited"], mean["as they are"]).to_json(),
            "gain_by_seed": {
                seed: round(float((found[word]["edited"][region] - found[word]["as they are"][region]).mean()), 4)
                for seed, found in seeds.items()
            },
        }
    return out


def main() -> None:
    """Compare for every seed; ``result.json`` grows with each."""
    parse = arguments(__doc__, segmenter_steps=300)
    parse.add_argument("--recipe", type=Path, required=True)
    parse.add_argument("--variants", type=int, default=10)
    given = parse.parse_args()
    study, recipe, sites = read_study(given.study), read_recipe(given.recipe), parse_sites(given.site)
    seeds: dict[int, REGION_SCORES] = {}
    for seed in given.seeds or [1, 2, 3]:
        seeded = study.model_copy(update={"seed": seed})
        seeds[seed], counts = compare(
            seeded,
            sites,
            recipe,
            given.out / f"seed-{seed}",
            variants=given.variants,
            steps=given.segmenter_steps,
        )
        result = {
            "study": study.model_dump(mode="json"),
            "recipe": recipe.name,
            "segmenter_steps": given.segmenter_steps,
            "variants": given.variants,
            "seeds": list(seeds),
            "counts": counts,
            "found": [
                summary(seeds, region)
                for region in (next(iter(study.regions), "foreground"), *study.evaluation_regions)
            ],
        }
        write_atomic(given.out / "result.json", (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
