"""The whole way of the data on this machine, once: cohort to report. Interrupted, it goes on where it stopped.

What a client does comes in as :class:`HospitalSide`; the coordinator's wing imports nothing of the hospital's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..common.atomic import write_atomic
from ..common.cohorts.layouts import read_cohort
from ..common.cohorts.preparation import PreparedScans, joined, prepare
from ..common.errors import FedPhantomError
from ..common.folder_lock import hold_folder
from ..common.gan.weights import GENERATOR
from ..common.labels.choice import declare_sources
from ..common.labels.sampler import make_label_sampler
from ..common.randomness import derived_seed
from ..common.site_folder import SiteFolder, site_material, training_and_test_scans
from ..common.study import Study
from ..common.study_template import to_toml
from ..privacy.audit.run import RESULT, audit_run_folder, verify_audit
from ..privacy.label_making import LabelMaking
from ..privacy.policy import TIERS, Tier
from ..privacy.release.run import REFUSED, pack_or_refuse
from ..privacy.report.people import people_of
from ..privacy.report.run import write_reports
from ..privacy.synthetic_cohort import label_chains
from .demo_clock import TIMES, DemoClock
from .demo_material import (
    PHANTOM_SIZES,
    PUBLIC_GENERATOR,
    REAL_SIZES,
    DemoSizes,
    check_arguments,
    claim_folder,
    gather_cohorts,
    json_bytes,
    paint_synthetic,
    train_public_generator,
    write_site_tables,
)
from .simulation import Engine, MakeInitial, OpenSite, PrepareSite, simulate

CHECK, EVALUATED, SUMMARY = "check.json", "evaluation.json", "summary.json"

COHORTS = "cohorts"
TRAINING = "federated training"
SYNTHETIC = "synthetic cohort"
PUBLIC = "public generator"
EVALUATION = "evaluation"
AUDIT = "audit"
RELEASE = "release"
REPORT = "report"


class Evaluate(Protocol):
    """Usefulness on real patients, as ``client.evaluation.report`` measures it."""

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


Stage = Callable[[str], Callable[[int, int], None]]
"""Begins a named stage; returns its progress function (done, in all)."""


def run_demo(
    out: Path,
    data: Path | None,
    sites: int,
    tier: Tier,
    engine: Engine,
    hospital: HospitalSide,
    stage: Stage,
    say: Callable[[str], None],
    sizes: DemoSizes | None = None,
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
        say: Told where an interrupted demo goes on, and in which stage one stopped.
        sizes: How much of everything; the demo's own by default.

    Returns:
        What ``summary.json`` holds and ``--json`` prints.

    Raises:
        ConfigError: ``out`` holds something else, another demo or one that is running, or ``sites`` does not fit.
        FedPhantomError: as each part says; the message begins with the stage.
    """
    sizes = sizes or (REAL_SIZES if data else PHANTOM_SIZES)
    # Before anything is written: a refused command leaves the folder free.
    check_arguments(out, data, sites, sizes)
    with hold_folder(out):
        claim_folder(out, {"data": str(data.resolve()) if data else None, "sites": sites, "tier": tier})
        clock = DemoClock(out / TIMES, _marks(out, with_public=data is not None))
        if greeting := clock.greeting():
            say(greeting)
        with clock, _named_errors(clock, say):
            return _run_stages(out, data, sites, tier, engine, hospital, _timed(clock, stage), clock, sizes)


def _run_stages(
    out: Path,
    data: Path | None,
    sites: int,
    tier: Tier,
    engine: Engine,
    hospital: HospitalSide,
    stage: Stage,
    clock: DemoClock,
    sizes: DemoSizes,
) -> dict[str, Any]:
    report = stage(COHORTS)
    cohorts = gather_cohorts(out, data, sites, sizes, report)
    study, public = cohorts.study, cohorts.public
    tables = write_site_tables(out, cohorts.private)
    write_atomic(out / "cohorts" / CHECK, json_bytes(cohorts.check))

    report = stage(TRAINING)
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

    report = stage(SYNTHETIC)
    sampler = make_label_sampler(study, public)
    declare_sources(run, sampler.sources())
    synthetic = paint_synthetic(out, run, sampler, sizes.synthetic, report)

    if public is not None:
        report = stage(PUBLIC)
        train_public_generator(out, study, public, sampler, sizes, report)

    report = stage(EVALUATION)
    sites_material = [site_material(SiteFolder.open(run / "sites" / name), study) for name in tables]
    train, test = training_and_test_scans(sites_material)
    cache = out / "cohorts" / "cache"
    made = prepare(read_cohort(synthetic), study.without_remapping(), cache)
    arms = {"real": train, "synthetic": made, "real+synthetic": joined([train, made])}
    if public is not None:
        arms["public"] = prepare(public, study, cache)
        arms["public generator"] = prepare(
            read_cohort(out / PUBLIC_GENERATOR / "synthetic"), study.without_remapping(), cache
        )
        arms["public+synthetic"] = joined([arms["public"], made])
    seed = derived_seed(study.seed, "evaluation")
    evaluation = hospital.evaluate(
        arms, test, study, steps=sizes.segmenter_steps, seed=seed, folder=out / "evaluation", progress=report
    )
    write_atomic(out / EVALUATED, json_bytes(evaluation), mode=0o600)

    report = stage(AUDIT)
    result = out / "audit" / RESULT
    if not _audited(result, run):  # an audit is counted: one that is there is not run again
        audit_run_folder(run, synthetic, public, result.parent, sizes.audit, TIERS[tier], progress=report)
    audit = verify_audit(result, run)

    report = stage(RELEASE)
    release = pack_or_refuse(run, out, synthetic, public, result, tier, report)

    stage(REPORT)
    people = people_of(dict(zip(tables, sites_material, strict=True)))
    times = clock.seconds()
    write_reports(
        out,
        run,
        study,
        generator=run / GENERATOR,
        audit=result,
        evaluation=evaluation,
        rounds=json.loads((run / "summary.json").read_text(encoding="utf-8"))["rounds"],
        release=release,
        synthetic=made,
        label_making=LabelMaking.of(label_chains(synthetic)),
        scans=train,
        people=people,
        facts={
            "Sites": str(len(tables)),
            "Rounds": f"{sizes.rounds} rounds of {sizes.local_steps} steps at each site, over {engine}",
        },
        times={name: times[name] for name in times if name not in (REPORT, "all")},
        times_note=clock.note(),
    )
    summary = {
        "study": study.name,
        "dp": study.privacy.dp,
        "patients": len(cohorts.private.patients),
        "procedural_patients": len(people.procedural),
        "left_out_patients": cohorts.left_out,
        "public_patients": len(public.patients) if public else 0,
        "training_patients": len(set(train.patients)),
        "sites": {name: len(part.patients) for name, part in cohorts.private.by_site().items()},
        "engine": engine,
        "evaluation": evaluation,
        "audit": audit,
        "release": release,
        "seconds": clock.seconds(),
        "interruptions": clock.stops,
    }
    write_atomic(out / SUMMARY, json_bytes(summary), mode=0o600)
    return summary


def _marks(out: Path, *, with_public: bool) -> dict[str, tuple[Path, ...]]:
    """Stage to what it leaves, last of all it does; in order."""
    return {
        COHORTS: (out / "cohorts" / CHECK,),
        TRAINING: (out / "run" / "summary.json",),
        SYNTHETIC: (out / "synthetic",),
        **({PUBLIC: (out / PUBLIC_GENERATOR / "synthetic",)} if with_public else {}),
        EVALUATION: (out / EVALUATED,),
        AUDIT: (out / "audit" / RESULT,),
        RELEASE: (out / "release", out / REFUSED),
        REPORT: (out / SUMMARY,),
    }


def _timed(clock: DemoClock, stage: Stage) -> Stage:
    """Announce a stage and time it, noting the time as it goes."""

    def begin(name: str) -> Callable[[int, int], None]:
        clock.begin(name)
        report = stage(name)

        def timed(done: int, total: int) -> None:
            clock.tick()
            report(done, total)

        return timed

    return begin


@contextmanager
def _named_errors(clock: DemoClock, say: Callable[[str], None]) -> Iterator[None]:
    """Let every failure say in which stage it arose."""
    try:
        yield
    except FedPhantomError as error:
        found = f"in the demo's stage '{clock.stage}': {error.found}"
        raise type(error)(found, expected=error.expected, remedy=error.remedy) from error
    except BaseException:
        say(f"stopped in the demo's stage '{clock.stage}'")
        raise


def _audited(result: Path, run: Path) -> bool:
    try:
        verify_audit(result, run)
    except FedPhantomError:
        return False
    return True
