"""The whole way of the data on this machine, once: cohort to report. Interrupted, it goes on where it stopped.

What a client does comes in as :class:`HospitalSide`; the coordinator's wing imports nothing of the hospital's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..common.atomic import write_atomic
from ..common.cohort import Cohort
from ..common.cohort_check import check_cohort
from ..common.device import choose_device
from ..common.errors import ConfigError, DataError, FedPhantomError
from ..common.generation import generate_cohort, load_generator, numpy_parameters
from ..common.label_choice import declare_sources
from ..common.label_sampler import LabelSampler, make_label_sampler
from ..common.layouts import read_cohort
from ..common.layouts.table import write_table
from ..common.phantom import write_phantom_cohort
from ..common.preparation import PreparedScans, joined, prepare
from ..common.randomness import derived_seed, numpy_generator
from ..common.site_folder import SiteFolder, site_material
from ..common.study import PublicLabelsTable, RolesTable, Study
from ..common.study_template import study_for, to_toml
from ..common.training import train_from_scratch
from ..common.weights import generator_metadata, save_weights
from ..privacy.policy import TIERS, Tier
from ..privacy.run_audit import RESULT, AuditSizes, audit_run_folder, verify_audit
from ..privacy.run_release import pack_or_refuse
from ..privacy.run_report import write_reports
from .simulation import Engine, MakeInitial, OpenSite, PrepareSite, simulate

PUBLIC_SITE = "public"
"""Value of the ``site`` column that marks patients whose scans are public."""
PUBLIC_GENERATOR = "public-generator"
PUBLIC_NAME = "the cohort's patients marked public"
PUBLIC_LICENCE = "as the cohort's owner declares"
SEED = 20261122


class Evaluate(Protocol):
    """Usefulness on real patients, as ``client.evaluation_report`` measures it."""

    def __call__(
        self,
        arms: Mapping[str, PreparedScans],
        test: PreparedScans,
        study: Study,
        *,
        steps: int,
        seed: int,
        folder: Path,
        progress: Callable[[int, int], None],
    ) -> dict[str, Any]:
        """Return what ``evaluate --json`` prints."""
        ...


@dataclass(frozen=True)
class HospitalSide:
    """What the client's wing does, handed over by ``cli.py``."""

    prepare_site: PrepareSite
    open_site: OpenSite
    initial: MakeInitial
    evaluate: Evaluate


@dataclass(frozen=True)
class DemoSizes:
    """How much of everything; chosen for the time it takes on two CPU cores.

    Attributes:
        rounds: Federation rounds.
        local_steps: Generator steps a site and round.
        synthetic: Synthetic scans.
        segmenter_steps: Of every arm's U-Net.
        audit: Reduced: one seed of the negative control, so that the verdict is INCONCLUSIVE at best.
    """

    rounds: int
    local_steps: int
    synthetic: int
    segmenter_steps: int
    audit: AuditSizes


PHANTOM_PATIENTS, PHANTOM_SPACING_MM = 72, 5.0
PHANTOM_SIZES = DemoSizes(rounds=4, local_steps=40, synthetic=48, segmenter_steps=120, audit=AuditSizes.reduced(160))
REAL_SIZES = DemoSizes(rounds=8, local_steps=120, synthetic=320, segmenter_steps=500, audit=AuditSizes.reduced(400))

Stage = Callable[[str], Callable[[int, int], None]]
"""Begins a named stage; returns its progress function (done, in all)."""


def run_demo(
    out: Path, data: Path | None, sites: int, tier: Tier, engine: Engine, hospital: HospitalSide, stage: Stage
) -> dict[str, Any]:
    """Cohort → check → sites → rounds → synthetic cohort → evaluation → audit → release → report.

    Args:
        out: The demo's folder; the same call goes on in it after an interruption.
        data: A cohort whose ``participants.tsv`` names the sites and ``public``; None for procedural patients.
        sites: Sites to divide the patients among where the cohort names none.
        tier: Of the release that is attempted.
        engine: As ``simulate``.
        hospital: The client's side.
        stage: Announces progress.

    Returns:
        What ``summary.json`` holds and ``--json`` prints.

    Raises:
        FedPhantomError: as each part says.
    """
    started = time.monotonic()
    seconds: dict[str, float] = {}
    clock: list[tuple[str, float]] = []

    def timed(name: str) -> Callable[[int, int], None]:
        """Close the stage before, begin this one."""
        now = time.monotonic()
        if clock:
            seconds[clock[-1][0]] = round(now - clock[-1][1], 1)
        clock.append((name, now))
        return stage(name)

    report = timed("cohorts")
    sizes = REAL_SIZES if data else PHANTOM_SIZES
    cohort, public = _cohorts(out, data, sites, report)
    study = _study(cohort, public, sizes)
    tables = _site_tables(out, cohort)

    report = timed("federated training")
    run = out / "run"
    simulate(
        to_toml(study),
        tables,
        run,
        engine=engine,
        prepare_site=hospital.prepare_site,
        open_site=hospital.open_site,
        initial=hospital.initial,
        progress=lambda record: report(record.round, study.training.rounds),
    )

    report = timed("synthetic cohort")
    sampler = make_label_sampler(study, public)
    declare_sources(run, sampler.sources())
    synthetic = _synthetic(out, run, sampler, sizes.synthetic, report)

    if public is not None:
        report = timed("public generator")
        _public_generator(out, study, public, sampler, sizes, report)

    report = timed("evaluation")
    sites_material = [site_material(SiteFolder.open(run / "sites" / name), study) for name in tables]
    train = joined([m.scans_of(m.coins.training_patients()) for m in sites_material])
    test = joined([m.scans_of(m.coins.patients("test")) for m in sites_material])
    cache = out / "cohorts" / "cache"
    made = prepare(read_cohort(synthetic), study, cache)
    arms = {"real": train, "synthetic": made, "real+synthetic": joined([train, made])}
    if public is not None:
        arms["public"] = prepare(public, study, out / "cohorts" / "cache")
        arms["public generator"] = prepare(
            read_cohort(out / PUBLIC_GENERATOR / "synthetic"), study, out / "cohorts" / "cache"
        )
        arms["public+synthetic"] = joined([arms["public"], made])
    seed = derived_seed(study.seed, "evaluation")
    evaluation = hospital.evaluate(
        arms, test, study, steps=sizes.segmenter_steps, seed=seed, folder=out / "evaluation", progress=report
    )
    write_atomic(out / "evaluation.json", _json(evaluation))

    report = timed("audit")
    result = out / "audit" / RESULT
    if not _audited(result, run):  # an audit is counted: one that is there is not run again
        audit_run_folder(run, synthetic, public, result.parent, sizes.audit, TIERS[tier], progress=report)
    audit = verify_audit(result, run)

    timed("release")
    release = pack_or_refuse(run, out, synthetic, result, tier)

    timed("report")
    rounds = json.loads((run / "summary.json").read_text(encoding="utf-8"))["rounds"]
    write_reports(
        out,
        run,
        study,
        audit=result,
        evaluation=evaluation,
        rounds=rounds,
        release=release,
        synthetic=made,
        training=train,
        facts={
            "Patients": "procedural: no person was scanned" if data is None else "real",
            "Sites": ", ".join(f"{name} ({len(part.patients)})" for name, part in cohort.by_site().items()),
            "Rounds": f"{sizes.rounds} rounds of {sizes.local_steps} steps at each site, over {engine}",
        },
        times=seconds,
    )
    seconds["all"] = round(time.monotonic() - started, 1)
    summary = {
        "study": study.name,
        "dp": study.privacy.dp,
        "patients": len(cohort.patients),
        "public_patients": len(public.patients) if public else 0,
        "training_patients": len(set(train.patients)),
        "sites": {name: len(part.patients) for name, part in cohort.by_site().items()},
        "engine": engine,
        "evaluation": evaluation,
        "audit": audit,
        "release": release,
        "seconds": seconds,
    }
    write_atomic(out / "summary.json", _json(summary))
    return summary


def _audited(result: Path, run: Path) -> bool:
    try:
        verify_audit(result, run)
    except FedPhantomError:
        return False
    return True


def _cohorts(
    out: Path, data: Path | None, sites: int, report: Callable[[int, int], None]
) -> tuple[Cohort, Cohort | None]:
    """The private patients, each with a site, and the public ones where there are any."""
    if data is None:
        folder = out / "cohorts" / "phantom"
        if not folder.exists():
            write_phantom_cohort(folder, PHANTOM_PATIENTS, sites, PHANTOM_SPACING_MM, SEED)
        cohort = read_cohort(folder)
    else:
        cohort = read_cohort(data)
    checked = check_cohort(cohort, progress=report)
    write_atomic(out / "cohorts" / "check.json", _json(checked.to_json()))
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


def _study(cohort: Cohort, public: Cohort | None, sizes: DemoSizes) -> Study:
    if public is None:
        labels = PublicLabelsTable(source="atlas")
    else:
        labels = PublicLabelsTable(source="folder", name=PUBLIC_NAME, licence=PUBLIC_LICENCE)
    study = study_for(cohort, name="demo", seed=SEED, public_labels=labels)
    # Without public patients some private ones calibrate the attacks.
    roles = RolesTable() if public else RolesTable(test=0.15, reference=0.1, control=0.1, audit=0.5, validation=0)
    training = study.training.model_copy(update={"rounds": sizes.rounds, "local_steps": sizes.local_steps})
    tumour = {name: value for name, value in study.labels.items() if name in ("oedema", "enhancing", "necrosis")}
    regions = {"tumour": tuple(tumour.values())} if tumour else study.regions
    return study.model_copy(update={"training": training, "regions": regions, "roles": roles})


def _site_tables(out: Path, cohort: Cohort) -> dict[str, Path]:
    tables = {}
    for name, part in cohort.by_site().items():
        tables[name] = out / "cohorts" / f"{name}.tsv"
        if not tables[name].exists():
            write_table(tables[name], part)
    return tables


def _public_generator(
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
    _synthetic(folder, folder, sampler, sizes.synthetic, report)


def _synthetic(out: Path, run: Path, sampler: LabelSampler, number: int, report: Callable[[int, int], None]) -> Path:
    """``number`` scans painted by the generator in ``run``; the same label maps whoever paints them."""
    folder = out / "synthetic"
    if not folder.exists():  # it appears only when it is whole
        generator = load_generator(run / "generator.safetensors", choose_device())
        seed = derived_seed(SEED, "labels")
        labels = (sampler.sample(seed, index) for index in range(number))
        generate_cohort(generator, labels, folder, seed, lambda done: report(done, number))
    return folder


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
