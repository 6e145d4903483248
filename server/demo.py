"""The whole way of the data on this machine, once: cohort to report. Interrupted, it goes on where it stopped.

What a client does comes in as :class:`HospitalSide`; the coordinator's wing imports nothing of the hospital's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..common.atomic import write_atomic
from ..common.cohorts.layouts import read_cohort
from ..common.cohorts.preparation import PreparedScans, joined, prepare
from ..common.errors import FedPhantomError
from ..common.labels.choice import declare_sources
from ..common.labels.sampler import make_label_sampler
from ..common.randomness import derived_seed
from ..common.site_folder import SiteFolder, site_material, training_and_test_scans
from ..common.study import Study
from ..common.study_template import to_toml
from ..privacy.audit.run import RESULT, audit_run_folder, verify_audit
from ..privacy.policy import TIERS, Tier
from ..privacy.release.run import pack_or_refuse
from ..privacy.report.run import write_reports
from .demo_material import (
    PHANTOM_SIZES,
    PUBLIC_GENERATOR,
    REAL_SIZES,
    DemoSizes,
    claim_folder,
    derive_study,
    json_bytes,
    paint_synthetic,
    read_cohorts,
    train_public_generator,
    write_site_tables,
)
from .simulation import Engine, MakeInitial, OpenSite, PrepareSite, simulate


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
        sizes: How much of everything; the demo's own by default.

    Returns:
        What ``summary.json`` holds and ``--json`` prints.

    Raises:
        ConfigError: ``out`` holds another demo.
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
    sizes = sizes or (REAL_SIZES if data else PHANTOM_SIZES)
    if data is not None:
        read_cohort(data)  # a path that is none must not claim the folder
    claim_folder(out, {"data": str(data.resolve()) if data else None, "sites": sites, "tier": tier})
    cohort, public = read_cohorts(out, data, sites, sizes, report)
    study = derive_study(cohort, public, sizes)
    tables = write_site_tables(out, cohort)

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
    synthetic = paint_synthetic(out, run, sampler, sizes.synthetic, report)

    if public is not None:
        report = timed("public generator")
        train_public_generator(out, study, public, sampler, sizes, report)

    report = timed("evaluation")
    sites_material = [site_material(SiteFolder.open(run / "sites" / name), study) for name in tables]
    train, test = training_and_test_scans(sites_material)
    cache = out / "cohorts" / "cache"
    made = prepare(read_cohort(synthetic), study, cache)
    arms = {"real": train, "synthetic": made, "real+synthetic": joined([train, made])}
    if public is not None:
        arms["public"] = prepare(public, study, cache)
        arms["public generator"] = prepare(read_cohort(out / PUBLIC_GENERATOR / "synthetic"), study, cache)
        arms["public+synthetic"] = joined([arms["public"], made])
    seed = derived_seed(study.seed, "evaluation")
    evaluation = hospital.evaluate(
        arms, test, study, steps=sizes.segmenter_steps, seed=seed, folder=out / "evaluation", progress=report
    )
    write_atomic(out / "evaluation.json", json_bytes(evaluation))

    report = timed("audit")
    result = out / "audit" / RESULT
    if not _audited(result, run):  # an audit is counted: one that is there is not run again
        audit_run_folder(run, synthetic, public, result.parent, sizes.audit, TIERS[tier], progress=report)
    audit = verify_audit(result, run)

    report = timed("release")
    release = pack_or_refuse(run, out, synthetic, public, result, tier, report)

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
            "Sites": ", ".join(tables),
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
    write_atomic(out / "summary.json", json_bytes(summary))
    return summary


def _audited(result: Path, run: Path) -> bool:
    try:
        verify_audit(result, run)
    except FedPhantomError:
        return False
    return True
