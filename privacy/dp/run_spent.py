"""What one run has cost a site's patients, by the site's own ledger; and a statement held against it."""

from __future__ import annotations

import hashlib

from ...common.cohorts.roles import load_roles
from ...common.errors import VerificationFailed
from ...common.site_folder import SiteFolder
from ...common.study import Study
from .accounting import epsilon, told
from .ledger import Ledger
from .statement import DpStatement, Spent


def run_name(study: Study, cohort_digest: str) -> str:
    """SHA-256 (hex) that names a run in a ledger: the study's, with these patients in these roles."""
    return hashlib.sha256(f"{study.digest()} {cohort_digest}".encode()).hexdigest()


def spent_in_run(folder: SiteFolder, study: Study) -> Spent:
    """All that the site ever reserved for this study, broken-off rounds included.

    Raises:
        VerificationFailed: the ledger is missing, damaged or not the one that the site's journal names.
    """
    promise = study.privacy.promise
    assert promise is not None  # noqa: S101  # asked for such a study alone
    name = run_name(study, load_roles(folder.coins).cohort_digest)
    found = Ledger(folder.ledger, folder.journal).spending().reservations
    parts = [part for one in found if one.run == name for part in one.spent]
    return Spent(epsilon(parts, promise.delta), sum(part.steps for part in parts))


def refuse_understated(folder: SiteFolder, study: Study, statement: DpStatement | None) -> None:
    """Find that a statement promises no more than the site's own ledger allows.

    Raises:
        VerificationFailed: it says less than the site has spent on this study, or the ledger cannot be trusted.
    """
    spent = spent_in_run(folder, study)
    if statement is None or statement.epsilon < spent.epsilon * (1 - 1e-9) or statement.steps < spent.steps:
        said = told(statement.epsilon) if statement else "nothing"
        raise VerificationFailed(
            f"a release that states {said} where this site's patients have spent {told(spent.epsilon)}",
            expected="no less than the site's own ledger says of this study",
            remedy="Do not approve it; have the coordinator pack the generator of the run as it ended.",
        )
