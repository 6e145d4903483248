"""How a site's cohort stands: which problems, in how many scans; nothing of a patient, and no small count."""

from __future__ import annotations

from ....common.cohorts.check import CohortReport, Problem
from ....common.cohorts.roles import load_roles
from ....common.site_folder import SiteFolder
from ....privacy.evidence import SMALLEST_CELL
from .finding import Outcome, green, red, yellow

SHOW = "Run 'fedphantom cohort check' with --study here: it says what to do for each problem."


def check_cohort_state(folder: SiteFolder, report: CohortReport | None) -> Outcome:
    """Whether the cohort is of use, and the one that roles were drawn for.

    Args:
        folder: The site's.
        report: What the cohort check found; None where the cohort cannot be read at all.

    Raises:
        VerificationFailed: the coin record is damaged.
    """
    if report is None:
        return red("the cohort cannot be read where site.toml says that it lies", SHOW)
    problems = ", ".join(_told(problem) for problem in report.problems)
    usable = report.usable
    if not usable.patients:
        return red(f"no usable scan ({problems or 'there is none'})", SHOW)
    if folder.coins.exists() and not load_roles(folder.coins).describes(usable.patient_ids):
        return red(
            "the cohort's usable patients are others than those that roles were drawn for"
            + (f" ({problems})" if problems else ""),
            "Restore the cohort as it was; with other patients, begin a new site folder.",
        )
    few = "fewer than" if len(usable.scans) < SMALLEST_CELL else "at least"
    said = f"{few} {SMALLEST_CELL} usable scans" + (f"; {problems}" if problems else "")
    if report.errors:
        return yellow(f"{said}: those with an error are left out", SHOW)
    return yellow(said, SHOW) if problems else green(said)


def _told(problem: Problem) -> str:
    """Its code and how many scans, or files, show it."""
    scans = str(problem.scans) if problem.scans >= SMALLEST_CELL else f"fewer than {SMALLEST_CELL}"
    return f"{problem.code} in {scans}"
