"""An experiment, not a command: what each way of sharing gives and what it gives away, on the same patients.

    python benchmarks/sharing_modes.py STUDY.toml --site A=COHORT --site B=COHORT --out DIR [--seeds 1 2 3]

Local (each site alone), ensemble, federated average (and variants of its options), and pooled training, which needs all
patients in one place and is the upper bound that no federation may claim. Every way paints the same public label maps;
the same U-Net is trained on what it painted and scored on the sites' validation patients (``--patients test`` once,
for what is reported and was not chosen by them; given both, the first are plotted). Beside it A1 and A3 of the audit's
attacks, calibrated once. ``--averages`` compares the average with its variants alone, and attacks nothing.

A site trains ``rounds`` times ``local_steps`` steps in every way; pooled training does as many as all sites together,
so that each patient is seen as often. DIR holds generators of pooled private patients: it stays on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from experiment import Stage, arguments, as_scans, drawn_classes, over_seeds, score_arms, train_average
from numpy.typing import NDArray
from sharing_plot import plot

from fedphantom.client.evaluation.arms import Evaluation
from fedphantom.client.evaluation.figures import over_patients, paired_difference
from fedphantom.common.atomic import write_atomic
from fedphantom.common.cohort import Cohort
from fedphantom.common.cohorts.check import check_cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import PreparedScans, joined, prepare
from fedphantom.common.cohorts.procedural import procedural_patients
from fedphantom.common.cohorts.roles import Role, load_roles
from fedphantom.common.device import choose_device
from fedphantom.common.gan.generation import (
    as_read_back,
    load_generator,
    load_generators,
    numpy_parameters,
    paint,
)
from fedphantom.common.gan.networks import Generator
from fedphantom.common.gan.training import train_from_scratch
from fedphantom.common.gan.weights import generator_metadata, save_weights
from fedphantom.common.labels.sampler import make_label_sampler
from fedphantom.common.montage import Pictured, montage
from fedphantom.common.randomness import derived_seed, numpy_generator
from fedphantom.common.site_folder import SiteFolder, SiteMaterial, site_material
from fedphantom.common.study import FederationTable, Study, read_study
from fedphantom.privacy.attacks.battery import Battery, Reference
from fedphantom.privacy.attacks.interface import AttackScores, AuditedScans, Networks
from fedphantom.privacy.audit.control_training import painter
from fedphantom.privacy.intervals import auc_interval
from fedphantom.privacy.report.people import PeopleCounts
from fedphantom.privacy.statistics import Scores
from fedphantom.server.commands import parse_sites

DRAWS = 4
"""Noise draws of A1."""


@dataclass(frozen=True)
class Options:
    """What is compared, and how large.

    Attributes:
        sites: Site name to cohort, as ``simulate`` takes them.
        variants: Name to the ``[federation]`` options of another federated average.
        public: Public patients: label maps where the study's source is a folder, and the attacks' reference where no
            patient has that role.
        patients: The roles of the patients that the U-Nets are scored on.
        averages: The federated average and its variants alone.
        volumes: Synthetic scans that each way paints.
        segmenter_steps: Of every U-Net.
    """

    sites: Mapping[str, Path]
    variants: Mapping[str, FederationTable]
    public: Cohort | None
    patients: tuple[Role, ...]
    averages: bool
    volumes: int
    segmenter_steps: int


@dataclass(frozen=True)
class Way:
    """One way of sharing.

    Attributes:
        painters: Its generator; of an ensemble, one a site.
        sites: Whose patients trained it.
    """

    painters: tuple[Generator, ...]
    sites: tuple[str, ...]


def compare(study: Study, options: Options, out: Path, stage: Stage) -> dict[str, Any]:
    """Train every way with this study's seed, score and attack each; what ``result.json`` holds for the seed."""
    sites = tuple(sorted(options.sites))
    average, alone = train_sites(study, options, out, stage)
    folders = [SiteFolder.open(out / "federated" / "sites" / name) for name in sites]
    material = [site_material(folder, study) for folder in folders]
    for name in ([] if options.averages else ["ensemble"]) + [name.replace(" ", "-") for name in average]:
        again = [SiteFolder.open(out / name / "sites" / site) for site in sites]
        assert [m.coins.roles for m in material] == [load_roles(folder.coins).roles for folder in again]
    training = joined([m.scans_of(m.coins.training_patients()) for m in material]).named_by_site()
    steps = study.training.rounds * study.training.local_steps

    ways: dict[str, Way] = {}
    if alone:
        ways |= {f"local {name}": Way((network,), (name,)) for name, network in zip(sites, alone, strict=True)}
        ways |= {"ensemble": Way(alone, sites)}
    ways |= {name: Way((network,), sites) for name, network in average.items()}
    if not options.averages:
        pooled = train_once(out / "pooled.safetensors", training, study, len(sites) * steps, stage("pooled"))
        ways |= {"pooled": Way((pooled,), sites)}

    sampler = make_label_sampler(study, options.public)
    seed = derived_seed(study.seed, "sharing modes")
    classes = drawn_classes(sampler, study, seed, options.volumes)
    painted = {name: paint_by_turns(way, classes, study, seed) for name, way in ways.items()}
    first = material[0].coins.training_patients()[0]  # the first of the pooled scans, too
    picture(out, study, ways, classes, painted, training, first in procedural_patients(material[0].cohort))

    real = PreparedScans(training.volumes, training.classes, training.patients, training.sites, training.headers)
    arms = {"real": real} | {name: as_scans(volumes, classes) for name, volumes in painted.items()}
    scored = [m.scans_of([p for role in options.patients for p in m.coins.patients(role)]) for m in material]
    test = joined(scored).named_by_site()
    evaluation = score_arms(arms, test, study, seed, options.segmenter_steps, out / "arms", stage)

    attacked: dict[str, dict[str, Any]] = {}
    if not options.averages:
        known = reference_scans(material, options, study, out)
        reference = train_once(out / "reference.safetensors", known, study, steps, stage("reference"))
        attacked = attack(ways, painted, material, known, reference, classes, study, seed, stage("attacks"))
    roles = {f"{m.scans.sites[0]}/{p}": role for m in material for p, role in m.coins.roles.items()}
    facts = {
        "training_scans": len(training),
        "scored_patients": sum(roles[p] == options.patients[0] for p in set(test.patients)),
        "scored_kind": scored_kind(material, options.patients[0]),
        "steps_a_site": steps,
    }
    return {"seed": study.seed, **facts, "ways": figures(evaluation, test, roles, options.patients, attacked)}


def train_sites(
    study: Study, options: Options, out: Path, stage: Stage
) -> tuple[dict[str, Generator], tuple[Generator, ...]]:
    """Every federated average by name, and each site's own generator in site-name order; of averages alone, none."""
    steps, device = study.training.rounds * study.training.local_steps, choose_device()
    whole = study.training.model_copy(update={"rounds": 1, "local_steps": steps})
    tables = {"federated": study.federation, **options.variants}
    studies = {name: study.model_copy(update={"federation": table}) for name, table in tables.items()}
    if not options.averages:
        apart = study.federation.model_copy(update={"sharing": "ensemble"})
        studies["ensemble"] = study.model_copy(update={"training": whole, "federation": apart})
    results = {}
    for name, one in studies.items():
        report = stage(name)
        results[name] = train_average(one, options.sites, out / name.replace(" ", "-"), report)
    apart_in = results.pop("ensemble", None)
    alone = tuple(generator.network for generator in load_generators(apart_in, device)) if apart_in else ()
    return {name: load_generator(path, device).network for name, path in results.items()}, alone


def train_once(
    file: Path, scans: PreparedScans, study: Study, steps: int, report: Callable[[int, int], None]
) -> Generator:
    """Train on these scans in one place, or take what an earlier call left."""
    device = choose_device()
    if not file.exists():
        seed = derived_seed(study.seed, file.stem)
        network = train_from_scratch(scans, study, device, steps=steps, seed=seed, progress=report).generator
        save_weights(file, numpy_parameters(network), generator_metadata(study, study.training.rounds))
    return load_generator(file, device).network


def reference_scans(material: Sequence[SiteMaterial], options: Options, study: Study, out: Path) -> PreparedScans:
    """Scans that calibrate the attacks: patients with that role, or public ones."""
    own = joined([m.scans_of(m.coins.patients("reference")) for m in material])
    if len(own) or options.public is None:
        return own
    return prepare(check_cohort(options.public, study).usable, study, out / "cache")


def paint_by_turns(way: Way, classes: NDArray[np.uint8], study: Study, seed: int) -> NDArray[np.float32]:
    """The label maps as ``generate`` divides them among an ensemble's members, read back as a cohort is."""
    parts = [paint(network, classes, study, seed, choose_device()) for network in way.painters]
    return as_read_back(np.stack([parts[i % len(parts)][i] for i in range(len(classes))]))


def attack(
    ways: Mapping[str, Way],
    painted: Mapping[str, NDArray[np.float32]],
    material: Sequence[SiteMaterial],
    known: PreparedScans,
    reference: Generator,
    classes: NDArray[np.uint8],
    study: Study,
    seed: int,
    report: Callable[[int, int], None],
) -> dict[str, dict[str, Any]]:
    """A1 and A3 on every way's own patients.

    An ensemble's A1 asks of each patient the generator of the patient's own site: the others never saw it, and an
    attacker knows which file is whose.
    """
    device = choose_device()
    named = [part.scans_of([*part.coins.patients("member"), *part.coins.patients("holdout")]) for part in material]
    members = {f"{part.scans.sites[0]}/{p}" for part in material for p in part.coins.patients("member")}
    scans = joined(named).named_by_site()
    audited = AuditedScans(
        np.asarray(scans.volumes),
        np.asarray(scans.classes),
        scans.patients,
        scans.sites,
        tuple(p in members for p in scans.patients),
    )
    strangers = AuditedScans(
        np.asarray(known.volumes), np.asarray(known.classes), known.patients, known.sites, (False,) * len(known)
    )
    calibrating = Reference(strangers, Networks(painter(reference, study, device)))
    battery = Battery.calibrate(audited, calibrating, classes, DRAWS, seed, as_read_back)
    out = {}
    for done, (name, way) in enumerate(ways.items(), start=1):
        own: list[AttackScores] = []
        for site in way.sites:
            network = way.painters[way.sites.index(site) if len(way.painters) > 1 else 0]
            target = battery.target(Networks(painter(network, study, device)), painted[name])
            patients = [p for p, s in zip(audited.patients, audited.sites, strict=True) if s == site]
            own.append(battery.scores(target, ("A1",))["A1"].of(patients))
        nearest = battery.scores(target, ("A3",))["A3"]
        patients = [patient for scores in own for patient in scores.patients]
        out[name] = {
            "A1": interval(Scores(tuple(stratum for part in own for stratum in part.scores().strata)), seed),
            "A3": interval(nearest.of(patients).scores(), seed),
        }
        report(done, len(ways))
    return out


def interval(scores: Scores, seed: int) -> dict[str, Any]:
    """An AUC with its 95 % interval and how many patients stand on each side."""
    found = auc_interval(scores, numpy_generator(seed, "auc"))
    counts = {"members": scores.n_member, "holdout": scores.n_holdout}
    return {"auc": round(found.auc, 4), "ci": [round(bound, 4) for bound in found.ci], **counts}


def figures(
    evaluation: Evaluation,
    test: PreparedScans,
    roles: Mapping[str, Role],
    scored: tuple[Role, ...],
    attacked: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Dice of every arm on the patients of each scored role, by site and against the plain average, and the attacks."""
    patients = np.unique(test.patients)
    sites = np.array([name.partition("/")[0] for name in patients])
    region, out = evaluation.primary, {}
    plain = next(arm for arm in evaluation.arms if arm.name == "federated").scores.dice[region]
    for arm in evaluation.arms:
        dice, by_role = arm.scores.dice[region], {}
        for role in scored:
            of = np.array([roles[name] == role for name in patients])
            by_role[role] = {
                "dice": over_patients(dice[of]).to_json(),
                "dice_by_site": {
                    site: over_patients(dice[of & (sites == site)]).to_json() for site in np.unique(sites[of]).tolist()
                },
                "over_federated": paired_difference(dice[of], plain[of]).to_json(),
            }
        out[arm.name] = {
            "scans": arm.scans,
            "region": region,
            **by_role[scored[0]],
            "by_role": by_role,
            **attacked.get(arm.name, {}),
        }
    return out


def scored_kind(material: Sequence[SiteMaterial], role: Role) -> str:
    """Whether the U-Nets are scored on persons: a plot may stand alone."""
    scored = [(m.coins.patients(role), procedural_patients(m.cohort)) for m in material]
    real, made = sum(len(set(p) - q) for p, q in scored), sum(len(set(p) & q) for p, q in scored)
    return PeopleCounts(real=real, procedural=made).kind


def picture(
    out: Path,
    study: Study,
    ways: Mapping[str, Way],
    classes: NDArray[np.uint8],
    painted: Mapping[str, NDArray[np.float32]],
    training: PreparedScans,
    procedural: bool,
) -> None:
    """``montage.png``: a public map as every way paints it. ``montage-real.png``: a training patient, with the scan."""
    shown = [Pictured(name, classes[0], painted[name][0]) for name in ways if name != "ensemble"]
    write_atomic(out / "montage.png", montage(study, shown))
    one, real = training.classes[:1], training.volumes[0]
    beside = [
        Pictured(name, one[0], paint(way.painters[0], one, study, 0, choose_device())[0], real, procedural)
        for name, way in ways.items()
        if name != "ensemble"
    ]
    write_atomic(out / "montage-real.png", montage(study, beside), mode=0o600)


def main() -> None:
    """Compare for every seed; ``result.json`` and ``sharing-modes.png`` grow with each."""
    parse = arguments(__doc__, segmenter_steps=200)
    parse.add_argument("--variant", action="append", default=[], metavar="NAME=STUDY.toml")
    parse.add_argument("--public", type=Path)
    parse.add_argument("--patients", choices=["validation", "test"], nargs="+", default=["validation"])
    parse.add_argument("--averages", action="store_true")
    parse.add_argument("--volumes", type=int, default=64)
    given = parse.parse_args()
    study = read_study(given.study)
    variants = dict(text.split("=", 1) for text in given.variant)
    options = Options(
        sites=parse_sites(given.site),
        variants={name: read_study(Path(path)).federation for name, path in variants.items()},
        public=read_cohort(given.public).public() if given.public else None,
        patients=tuple(given.patients),
        averages=given.averages,
        volumes=given.volumes,
        segmenter_steps=given.segmenter_steps,
    )
    facts = {
        "study": study.model_dump(mode="json"),
        "variants": {name: table.model_dump(mode="json") for name, table in options.variants.items()},
        "patients": options.patients[0],
        "volumes": options.volumes,
        "segmenter_steps": options.segmenter_steps,
    }
    for result in over_seeds(study, given, facts, lambda one, out, stage: compare(one, options, out, stage)):
        plot(result, given.out / "sharing-modes.png")


if __name__ == "__main__":
    main()
