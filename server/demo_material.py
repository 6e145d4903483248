"""What a demo works on: its cohorts and study, and the synthetic cohorts that it paints."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from ..common.atomic import write_atomic
from ..common.cohort import PUBLIC_SITE, Cohort
from ..common.cohorts.check import check_cohort
from ..common.cohorts.layouts import read_cohort
from ..common.cohorts.preparation import prepare
from ..common.cohorts.terms import stated_terms
from ..common.device import choose_device
from ..common.errors import ConfigError, DataError, about
from ..common.folder_lock import LOCK
from ..common.gan.generation import generate_cohort, load_generator, numpy_parameters
from ..common.gan.training import train_from_scratch
from ..common.gan.weights import generator_metadata, save_weights
from ..common.labels.chain import UNSTATED
from ..common.labels.sampler import LabelSampler
from ..common.output_place import refuse_used
from ..common.phantom.patients import phantom_grid, write_phantom_cohort
from ..common.phantom.study import phantom_study
from ..common.randomness import derived_seed, numpy_generator
from ..common.study import PublicLabelsTable, RolesTable, Study
from ..common.study_template import study_for
from ..privacy.audit.run import AuditSizes
from .site_cohorts import view_in_place

DEMO_FILE = "demo.json"
DEMO_FORMAT = 2
"""Raised whenever a folder that an earlier version began cannot be gone on with."""
NAME = "demo"
PUBLIC_GENERATOR = "public-generator"
PUBLIC_NAME = "the cohort's patients marked public"
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


@dataclass(frozen=True)
class DemoCohorts:
    """A demo's patients, checked for its study.

    Attributes:
        study: Derived from the public patients, or from the atlas and the constants that procedural ones are drawn by.
        private: Each with a site.
        public: None where the study's label maps come from the atlas.
        left_out: Patients found who cannot be used.
        check: What ``cohort check --json`` would print.
    """

    study: Study
    private: Cohort
    public: Cohort | None
    left_out: int
    check: Mapping[str, object]


def check_arguments(out: Path, data: Path | None, sites: int, sizes: DemoSizes) -> None:
    """Find that a demo can be begun so, as far as folders and tables tell; nothing is written.

    Raises:
        ConfigError: ``out`` holds something else, or the number of sites does not fit.
        DataError: no cohort, or none of its patients is marked public.
    """
    with about("--out"):
        refuse_used(out, DEMO_FILE, {LOCK})
    if data is None:
        check_sites(sites, sizes.patients)
    else:
        with about("--data"):
            check_data(data, sites)


def check_data(data: Path, sites: int) -> None:
    """Find that a cohort can be a demo's, as far as its tables tell; nothing is written.

    Raises:
        ConfigError: a number of sites that does not fit.
        DataError: no cohort, or none of its patients is marked public.
    """
    parts = read_cohort(data).by_site()
    if parts.pop(PUBLIC_SITE, None) is None:
        raise DataError(
            "a cohort without public patients",
            expected=f"some patients marked '{PUBLIC_SITE}' in the site column of participants.tsv, for the label maps",
            remedy="Mark openly licensed patients so; the demo paints no private patient's label map.",
        )
    if len(parts) < 2:
        check_sites(sites, sum(len(part.patients) for part in parts.values()))


def check_sites(sites: int, patients: int) -> None:
    """Raises ConfigError unless so many patients can be divided among so many sites."""
    if sites < 2 or sites > patients:
        raise ConfigError(f"{sites} sites", expected="2 or more, none without a patient", remedy="Change --sites.")


def gather_cohorts(
    out: Path, data: Path | None, sites: int, sizes: DemoSizes, report: Callable[[int, int], None]
) -> DemoCohorts:
    """Read or make the patients, derive the study, check every patient for it.

    The study comes first and from public patients alone: a grid, channel or label that test or holdout patients had a
    say in would be fitted to them.

    Raises:
        DataError: a site, or the public part, without a usable patient.
    """
    folder = data or out / "cohorts" / "phantom"
    if data is None and not folder.exists():
        write_phantom_cohort(folder, sizes.patients, sites, sizes.spacing_mm, SEED)
    cohort = read_cohort(folder)
    study = derive_study(check_cohort(cohort.by_site()[PUBLIC_SITE]).usable if data else None, sizes)
    checked = check_cohort(cohort, study, report)
    by_site = checked.usable.by_site()
    lost = sorted(cohort.by_site().keys() - by_site.keys())
    if lost:
        raise DataError(
            f"no usable patient {f'at site {lost[0]!r}' if lost[0] else 'at all'}",
            expected="scans that the cohort check lets pass, with the channels and labels that public patients have",
            remedy="Run 'fedphantom cohort check'; a label that public patients lack, a table of the cohort can name.",
        )
    public = by_site.pop(PUBLIC_SITE, None)
    private = checked.usable.only([p.patient_id for part in by_site.values() for p in part.patients])
    return DemoCohorts(
        study=study,
        private=private if len(by_site) > 1 else _divided(private, sites),
        public=public,
        left_out=len(cohort.patients) - len(checked.usable.patients),
        check=checked.to_json(),
    )


def _divided(cohort: Cohort, sites: int) -> Cohort:
    """Patients dealt out to ``sites`` sites at random, where the cohort names none."""
    check_sites(sites, len(cohort.patients))
    order = numpy_generator(SEED, "sites").permutation(len(cohort.patients))
    names = {int(patient): chr(ord("A") + i % sites) for i, patient in enumerate(order)}
    return replace(cohort, patients=tuple(replace(p, site=names[i]) for i, p in enumerate(cohort.patients)))


def derive_study(public: Cohort | None, sizes: DemoSizes) -> Study:
    """The demo's study, which no private patient has a say in.

    Args:
        public: Its patients give channels, labels, grid and label maps, its description name, licence and citation.
            None: all of these are those that procedural patients are drawn on, whoever is drawn, and the atlas's.
        sizes: Spacing of procedural patients; schedule.

    Raises:
        DataError: no usable public patient, or none with a structure.
    """
    if public is None:
        study = phantom_study(NAME, SEED, phantom_grid(sizes.spacing_mm))
    else:
        study = study_for(public, name=NAME, seed=SEED, public_labels=_public_labels(public))
    # Without public patients some private ones calibrate the attacks.
    roles = RolesTable() if public else RolesTable(test=0.15, reference=0.1, control=0.1, audit=0.5, validation=0)
    schedule = {"rounds": sizes.rounds, "local_steps": sizes.local_steps, "generator_lr": sizes.generator_lr}
    training = study.training.model_copy(update=schedule)
    tumour = {name: value for name, value in study.labels.items() if name in ("oedema", "enhancing", "necrosis")}
    regions = {"tumour": tuple(tumour.values())} if tumour else study.regions
    return study.model_copy(update={"training": training, "regions": regions, "roles": roles})


def _public_labels(public: Cohort) -> PublicLabelsTable:
    terms = stated_terms(public.root)
    return PublicLabelsTable(
        source="folder",
        name=f"{terms.name}: patients marked public" if terms.name else PUBLIC_NAME,
        licence=terms.licence or UNSTATED,
        citation=terms.citation or "",
    )


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
        network = train_from_scratch(scans, study, choose_device(), steps=steps, seed=seed, progress=report).generator
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
        ConfigError: it holds something else, a demo of another version of FedPhantom, or one with other arguments.
    """
    file = out / DEMO_FILE
    refuse_used(out, DEMO_FILE, {LOCK})
    maker: dict[str, object] = {"software": f"fedphantom {version('fedphantom')}", "format": DEMO_FORMAT}
    if file.exists():
        found = _read_claim(file)
        if any(found.get(key) != value for key, value in maker.items()):
            raise ConfigError(
                f"a demo that {str(found.get('software', 'an earlier fedphantom'))[:40]} began",
                expected=f"one that {maker['software']} began in format {DEMO_FORMAT}: parts of two may not fit",
                remedy="Choose another --out; the old folder stays as it is, and its report can still be read.",
            )
        if found != {**maker, **facts}:
            raise ConfigError(
                "the folder holds a demo with another cohort, other sites or another tier",
                expected="the arguments it was begun with, or a new folder",
                remedy="Choose another --out.",
            )
    write_atomic(file, json_bytes({**maker, **facts}))


def _read_claim(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or not content.keys() >= {"data", "sites", "tier"}:
        raise ConfigError(
            f"a folder whose {DEMO_FILE} no demo wrote",
            expected="a new or empty folder, or the demo to go on with",
            remedy="Choose another --out.",
        )
    return content


def json_bytes(content: object) -> bytes:
    """Indented JSON with a final line break."""
    return (json.dumps(content, indent=1) + "\n").encode()
