"""What a demo works on: its cohorts and study, and the synthetic cohorts that it paints."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..common.atomic import write_atomic
from ..common.cohort import PUBLIC_SITE, Cohort
from ..common.cohorts.check import check_cohort
from ..common.cohorts.layouts import read_cohort
from ..common.cohorts.preparation import prepare
from ..common.device import choose_device
from ..common.errors import ConfigError, DataError
from ..common.gan.generation import generate_cohort, load_generator, numpy_parameters
from ..common.gan.training import train_from_scratch
from ..common.gan.weights import generator_metadata, save_weights
from ..common.labels.sampler import LabelSampler
from ..common.output_place import refuse_used
from ..common.phantom.patients import write_phantom_cohort
from ..common.randomness import derived_seed, numpy_generator
from ..common.study import PublicLabelsTable, RolesTable, Study
from ..common.study_template import study_for
from ..privacy.audit.run import AuditSizes
from .site_cohorts import view_in_place

DEMO_FILE = "demo.json"
PUBLIC_GENERATOR = "public-generator"
PUBLIC_NAME = "the cohort's patients marked public"
PUBLIC_LICENCE = "as the cohort's owner declares"
SEED = 20261122


@dataclass(frozen=True)
class DemoSizes:
    """How much of everything; chosen for the time it takes on two CPU cores.

    Attributes:
        rounds: Federation rounds.
        local_steps: Generator steps a site and round.
        synthetic: Synthetic scans.
        generator_lr: A short training needs a higher one than a study's default.
        segmenter_steps: Of every arm's U-Net.
        audit: Reduced: one seed of the negative control, so that the verdict is INCONCLUSIVE at best.
        patients: Procedural ones, where no cohort is given.
        spacing_mm: Of the procedural ones.
    """

    rounds: int
    local_steps: int
    synthetic: int
    generator_lr: float
    segmenter_steps: int
    audit: AuditSizes
    patients: int = 72
    spacing_mm: float = 6.0


PHANTOM_SIZES = DemoSizes(
    rounds=4, local_steps=60, synthetic=64, generator_lr=1e-2, segmenter_steps=200, audit=AuditSizes.reduced(240)
)
REAL_SIZES = DemoSizes(
    rounds=8, local_steps=120, synthetic=320, generator_lr=4e-3, segmenter_steps=500, audit=AuditSizes.reduced(400)
)


def read_cohorts(
    out: Path, data: Path | None, sites: int, sizes: DemoSizes, report: Callable[[int, int], None]
) -> tuple[Cohort, Cohort | None]:
    """The private patients, each with a site, and the public ones where there are any."""
    if data is None:
        folder = out / "cohorts" / "phantom"
        if not folder.exists():
            write_phantom_cohort(folder, sizes.patients, sites, sizes.spacing_mm, SEED)
        cohort = read_cohort(folder)
    else:
        cohort = read_cohort(data)
    checked = check_cohort(cohort, progress=report)
    write_atomic(out / "cohorts" / "check.json", json_bytes(checked.to_json()))
    by_site = checked.usable.by_site()
    public = by_site.pop(PUBLIC_SITE, None)
    if data is not None and public is None:
        raise DataError(
            "a cohort without public patients",
            expected=f"some patients marked '{PUBLIC_SITE}' in the site column of participants.tsv, for the label maps",
            remedy="Mark openly licensed patients so; the demo paints no private patient's label map.",
        )
    private = checked.usable.only([p.patient_id for part in by_site.values() for p in part.patients])
    return (private if len(by_site) > 1 else _divided(private, sites)), public


def _divided(cohort: Cohort, sites: int) -> Cohort:
    """Patients dealt out to ``sites`` sites at random, where the cohort names none."""
    if sites < 2 or sites > len(cohort.patients):
        raise ConfigError(f"{sites} sites", expected="2 or more, none without a patient", remedy="Change --sites.")
    order = numpy_generator(SEED, "sites").permutation(len(cohort.patients))
    names = {int(patient): chr(ord("A") + i % sites) for i, patient in enumerate(order)}
    return replace(cohort, patients=tuple(replace(p, site=names[i]) for i, p in enumerate(cohort.patients)))


def derive_study(cohort: Cohort, public: Cohort | None, sizes: DemoSizes) -> Study:
    """A study that fits the cohort; public label maps from its public patients, or else from the atlas."""
    if public is None:
        labels = PublicLabelsTable(source="atlas")
    else:
        labels = PublicLabelsTable(source="folder", name=PUBLIC_NAME, licence=PUBLIC_LICENCE)
    study = study_for(cohort, name="demo", seed=SEED, public_labels=labels)
    # Without public patients some private ones calibrate the attacks.
    roles = RolesTable() if public else RolesTable(test=0.15, reference=0.1, control=0.1, audit=0.5, validation=0)
    schedule = {"rounds": sizes.rounds, "local_steps": sizes.local_steps, "generator_lr": sizes.generator_lr}
    training = study.training.model_copy(update=schedule)
    tumour = {name: value for name, value in study.labels.items() if name in ("oedema", "enhancing", "necrosis")}
    regions = {"tumour": tuple(tumour.values())} if tumour else study.regions
    return study.model_copy(update={"training": training, "regions": regions, "roles": roles})


def write_site_tables(out: Path, cohort: Cohort) -> dict[str, Path]:
    """One table a site that views its patients where they lie; site name to table."""
    tables = {}
    for name, part in cohort.by_site().items():
        tables[name] = out / "cohorts" / f"{name}.tsv"
        view_in_place(tables[name], part)
    return tables


def train_public_generator(
    out: Path, study: Study, public: Cohort, sampler: LabelSampler, sizes: DemoSizes, report: Callable[[int, int], None]
) -> None:
    """The yardstick without the hospitals: the same networks trained on the public scans alone, as long as a site."""
    folder = out / PUBLIC_GENERATOR
    weights = folder / "generator.safetensors"
    if not weights.exists():
        scans = prepare(public, study, out / "cohorts" / "cache")
        steps = sizes.rounds * sizes.local_steps
        seed = derived_seed(study.seed, PUBLIC_GENERATOR)
        network = train_from_scratch(scans, study, choose_device(), steps=steps, seed=seed, progress=report)
        save_weights(weights, numpy_parameters(network), generator_metadata(study, sizes.rounds))
    paint_synthetic(folder, folder, sampler, sizes.synthetic, report)


def paint_synthetic(
    out: Path, run: Path, sampler: LabelSampler, number: int, report: Callable[[int, int], None]
) -> Path:
    """``number`` scans painted by the generator in ``run``; the same label maps whoever paints them."""
    folder = out / "synthetic"
    if not folder.exists():  # it appears only when it is whole
        generator = load_generator(run / "generator.safetensors", choose_device())
        seed = derived_seed(SEED, "labels")
        labels = (sampler.sample(seed, index) for index in range(number))
        generate_cohort(generator, labels, folder, seed, lambda done: report(done, number))
    return folder


def claim_folder(out: Path, facts: Mapping[str, object]) -> None:
    """Make the folder this demo's, or find that it is; a demo called again with other arguments is another demo.

    Raises:
        ConfigError: it holds a demo with other arguments.
    """
    file = out / DEMO_FILE
    refuse_used(out, DEMO_FILE)
    if file.exists() and file.read_bytes() != json_bytes(facts):
        raise ConfigError(
            "the folder holds a demo with another cohort, other sites or another tier",
            expected="the arguments it was begun with, or a new folder",
            remedy="Choose another --out.",
        )
    write_atomic(file, json_bytes(facts))


def json_bytes(content: object) -> bytes:
    """Indented JSON with a final line break."""
    return (json.dumps(content, indent=1) + "\n").encode()
