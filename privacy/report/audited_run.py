"""The report of an audit, in both renditions, from the run's or site's folder that it audited: for who is to approve.

Everything is held against the audit first: the generator, the journals, the volumes, an evaluation's figures. A page
about several institutions' audits as one shows no patient's scan and counts no site's patients but as the audit does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...common.atomic import atomic_folder
from ...common.cohorts.layouts import read_cohort
from ...common.cohorts.preparation import PreparedScans, joined, prepare
from ...common.errors import DataError, VerificationFailed, about
from ...common.gan.weights import GENERATOR, read_weights_header, study_of
from ...common.json_object import read_json_object
from ...common.output_place import refuse_taken
from ...common.site_folder import SITE_FILE, SiteMaterial, site_folders, site_material
from ...common.study import Study
from ..audit.run import RESULT, verify_audit
from ..label_making import LabelMaking
from ..synthetic_cohort import label_chains, synthetic_of
from ..synthetic_digest import synthetic_digest
from ..synthetic_files import synthetic_volumes
from .people import people_of
from .run import INTERNAL, SHAREABLE, write_reports


def report_audit(
    run: Path,
    out: Path,
    audit: Path | None,
    synthetic: Path | None,
    evaluation: Path | None,
    generator: Path | None,
) -> tuple[Path, Path]:
    """``audit report``: both pages about an audit, in a new folder; they appear together or not at all.

    Args:
        run: What was audited: what ``simulate`` left, or one site's folder; of a combined audit the coordinator's.
        out: A new folder.
        audit: The audit's result file or its folder; that in ``run`` for None.
        synthetic: The audited cohort; for None the one in or beside ``run``. Of a network that paints nothing, none.
        evaluation: ``evaluation.json`` of those volumes, if they were tried on patients.
        generator: Where ``run`` is a site's folder that received it.

    Returns:
        The internal page and the shareable one.

    Raises:
        OutputTaken: ``out`` holds something.
        VerificationFailed: the audit of another generator or of other volumes, one that a site's journal does not know,
            or an evaluation of other volumes.
        DataError: a file that is missing or cannot be read, or an evaluation by another protocol.
        FedPhantomError: as :func:`~fedphantom.common.site_folder.site_material`.
    """
    refuse_taken(out)
    if not run.is_dir():
        raise DataError(
            "no run folder at the path given", expected="the run that was audited", remedy="Check the path."
        )
    audit = audit or run / "audit"
    table = verify_audit(audit, run, generator)
    generator = generator or run / GENERATOR
    study = study_of(read_weights_header(generator)[1])
    combined = len(table.get("combined_from") or ())
    if not (combined or (run / SITE_FILE).exists() or any(run.glob(f"sites/*/{SITE_FILE}"))):
        raise DataError(
            "a folder without a site's: nobody's journal can confirm the audit",
            expected="the run or site that was audited, with its sites' folders",
            remedy="Make the report where the audit was made.",
        )
    made = _audited_volumes(table, study, synthetic or synthetic_of(run))
    tried = _evaluation(evaluation, table) if evaluation else None
    materials = {} if combined else {folder.name: site_material(folder, study) for folder in site_folders(run)}
    with atomic_folder(out) as folder:
        write_reports(
            folder,
            run,
            study,
            generator=generator,
            audit=audit / RESULT if audit.is_dir() else audit,
            evaluation=tried,
            rounds=_rounds(run),
            release=None,
            synthetic=prepare(read_cohort(made), study.without_remapping(), run / "cache") if made else None,
            label_making=LabelMaking.of(label_chains(made)) if made else None,
            scans=None if combined else _audited_scans(materials.values()),
            people=None if combined else people_of(materials),
            facts={
                "Sites whose patients were audited": str(combined or len(materials)),
                "Rounds": f"{study.training.rounds}, of {study.training.local_steps} steps at each site",
            },
            times={},
            times_note="",
        )
    return out / INTERNAL, out / SHAREABLE


def _audited_scans(materials: Iterable[SiteMaterial]) -> PreparedScans:
    """Of every patient but those whom no audit reads: a volume may be accused of copying any of them."""
    read = [m.scans_of(set(m.coins.roles) - set(m.coins.patients("test"))) for m in materials]
    return joined(read).named_by_site()


def _audited_volumes(table: Mapping[str, Any], study: Study, synthetic: Path | None) -> Path | None:
    if table.get("synthetic_sha256") is None:
        return None
    if synthetic is None:
        raise DataError(
            "no synthetic cohort",
            expected="the one that was audited",
            remedy="Name it with '--synthetic'.",
        )
    synthetic_volumes(synthetic, study)
    if synthetic_digest(synthetic) != table["synthetic_sha256"]:
        raise VerificationFailed(
            "another synthetic cohort than the audit's",
            expected="the very volumes and label maps that were audited",
            remedy="Name the audited cohort with '--synthetic'.",
        )
    return synthetic


def _evaluation(file: Path, table: Mapping[str, Any]) -> Mapping[str, Any]:
    with about("--evaluation"):
        try:
            content = json.loads(file.read_bytes())
            protocol, volumes = content.get("protocol", "arms"), content.get("synthetic_sha256")
        except (OSError, ValueError, AttributeError, RecursionError):
            protocol, content, volumes = None, {}, None
        if protocol != "arms":
            raise DataError(
                "no result that the page can show",
                expected="evaluation.json as 'fedphantom evaluate' writes it",
                remedy="Give that file, or leave --evaluation out: the page then says that there is none.",
            )
        if volumes != table.get("synthetic_sha256"):
            raise VerificationFailed(
                "an evaluation of another synthetic cohort",
                expected="figures of the very volumes that were audited",
                remedy="Run 'fedphantom evaluate' on the audited cohort.",
            )
    return dict(content)


def _rounds(run: Path) -> Sequence[Mapping[str, Any]]:
    """As the coordinator wrote them down; a site's folder has no such record."""
    found = read_json_object(run / "summary.json").get("rounds", [])
    return found if isinstance(found, list) else []
