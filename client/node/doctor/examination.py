"""``site doctor``: every check in its order, each by itself; one that fails itself is a red line like another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from ....common.cohorts.check import CohortReport, check_cohort
from ....common.cohorts.layouts import read_cohort
from ....common.enrolment.address import Address
from ....common.errors import FedPhantomError
from ....common.flower_programs import flower_environment
from ....common.in_toto import time_text
from ....common.progress import Report
from ....common.site_folder import SiteFolder
from ...site_round import note_failure
from ...site_setup import read_egress_rule
from ..folder import NodeFolder
from ..joining import open_enrolled
from . import disk, enrolled, hardware, link, reach, records, software, terms
from .cohort_state import check_cohort_state
from .door import DoorSeen, look_at_door
from .finding import Finding, Outcome, red
from .measured_step import measure_step

Check = Callable[[], Outcome]

STEP = "step"
NETWORK = ("coordinator reached", "coordinator certificate", "coordinator answers", "clock", "link", "http proxy")
"""Lines that only a site with a network has."""


@dataclass(frozen=True)
class Examination:
    """All that was found.

    Attributes:
        site: Its public name.
        time: When, UTC.
        findings: In the order of the checks.
    """

    site: str
    time: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is red."""
        return all(finding.light != "red" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The object that ``site doctor --json`` prints; it may be sent to the coordinator."""
        return {
            "site": self.site,
            "time": self.time,
            "ok": self.ok,
            "findings": [asdict(finding) for finding in self.findings],
        }


def examine(folder: SiteFolder, *, step: bool, offline: bool, progress: Report) -> Examination:
    """Look into everything that a round needs; nothing of the site is changed.

    Args:
        folder: The site's.
        step: Whether to take a real optimiser step, on made-up scans.
        offline: Whether to leave out what is about a network: the site's rounds are carried as files.
        progress: (scans looked through, scans in all).
    """
    now = datetime.now(UTC)
    asked = [
        (name, check)
        for name, check in checks(folder, now, progress)
        if not (name == STEP and not step) and not (name in NETWORK and offline)
    ]
    return Examination(folder.name, time_text(now), tuple(finding_of(folder, *one) for one in asked))


def finding_of(folder: SiteFolder, name: str, check: Check) -> Finding:
    """What a check says, or how it failed; the full text of a failure stays in ``errors.log``."""
    try:
        return Finding.of(name, check())
    except FedPhantomError as error:
        return Finding.of(name, red(error.found, error.remedy))
    except Exception as error:  # whatever it is, the other lines are to be read; its text may hold anything
        note_failure(folder, error)
        return Finding.of(
            name,
            red(f"this check itself failed ({type(error).__name__})", "errors.log in the site's folder says where."),
        )


def checks(folder: SiteFolder, now: datetime, progress: Report) -> Sequence[tuple[str, Check]]:
    """Name and check of every line; what several ask for is looked at once."""
    node, environment = NodeFolder(folder.root), _environment_of_node(folder)
    seen, available = cache(hardware.Accelerator.here), cache(hardware.available_memory)
    report = cache(partial(_report, folder, progress))

    @cache
    def address() -> Address:
        return Address.parse(open_enrolled(folder.root)[2].address)

    @cache
    def door() -> DoorSeen:
        return look_at_door(address(), node.authority, environment)

    def memory() -> Outcome:
        return hardware.check_memory(folder.study(), seen(), available())

    def one_step() -> Outcome:
        return hardware.check_step(folder.study(), seen(), available(), partial(measure_step, folder.root))

    def room() -> Outcome:
        found, prepared = report(), disk.folder_bytes(folder.cache)
        reply = read_egress_rule(folder).max_bytes
        return disk.check_disk(
            folder.root, disk.needed_bytes(folder.study(), found.scans if found else 0, reply, prepared)
        )

    return (
        ("gpu", lambda: hardware.check_gpu(seen())),
        ("memory", memory),
        (STEP, one_step),
        ("disk", room),
        ("coordinator reached", lambda: reach.check_reached(address(), door())),
        ("coordinator certificate", lambda: reach.check_certificate(door(), node.authority, now)),
        ("coordinator answers", lambda: reach.check_answer(door())),
        ("clock", lambda: reach.check_clock(door())),
        ("link", lambda: link.check_link(folder)),
        ("http proxy", lambda: reach.check_proxy(address(), os.environ, environment)),
        ("enrolment", lambda: enrolled.check_enrolment(folder, now)),
        ("key files", lambda: enrolled.check_key_files(folder)),
        ("study", lambda: terms.check_study(folder)),
        ("limits", lambda: terms.check_limits(folder)),
        ("approval", lambda: terms.check_approval(folder)),
        ("standing", lambda: terms.check_standing(folder)),
        ("cohort", lambda: check_cohort_state(folder, report())),
        ("journal", lambda: records.check_journal(folder)),
        ("coins", lambda: records.check_coins(folder)),
        ("ledger", lambda: records.check_ledger(folder, folder.study())),
        ("packages", software.check_versions),
        ("launcher", software.check_launcher),
        ("telemetry", lambda: software.check_telemetry(environment)),
    )


def _environment_of_node(folder: SiteFolder) -> Mapping[str, str]:
    return flower_environment(folder.root / "node" / "home")


def _report(folder: SiteFolder, progress: Report) -> CohortReport | None:
    """What the cohort check finds; None where the cohort cannot be read: why, its own command says at the site."""
    study = folder.study()
    try:
        return check_cohort(read_cohort(folder.cohort), study, progress)
    except (FedPhantomError, OSError):
        return None
