"""What a study has cost a site's patients, by the site's own ledger; and a statement held against it."""

from __future__ import annotations

import hashlib

from ...common.cohorts.roles import load_roles
from ...common.errors import VerificationFailed
from ...common.site_folder import SiteFolder
from ...common.study import Study
from .accounting import epsilon, told
from .ledger import Ledger
from .spending import Spending
from .statement import DpStatement, Spent


def run_name(study: Study, cohort_digest: str) -> str:
    """SHA-256 (hex) that names a run in a ledger: the study's, with these patients in these roles."""
    return hashlib.sha256(f"{study.digest()} {cohort_digest}".encode()).hexdigest()


def spent_on_study(spending: Spending, study: Study, run: str) -> Spent:
    """What a study has cost its dearest patient, in every run folder and in rounds that broke off.

    Args:
        spending: The site's ledger.
        study: One that makes a promise.
        run: Name of the site's run of it.
    """
    promise = study.privacy.promise
    assert promise is not None  # noqa: S101  # asked for such a study alone
    parts = spending.of_study(study.digest(), run).dearest(promise.delta)
    return Spent(epsilon(parts, promise.delta), sum(part.steps for part in parts))


def spent_at_site(folder: SiteFolder, study: Study) -> Spent:
    """The same, by the ledger that a site's folder names.

    Raises:
        VerificationFailed: the ledger is missing, damaged or not the one that the site's journal names.
    """
    run = run_name(study, load_roles(folder.coins).cohort_digest)
    return spent_on_study(Ledger(folder.ledger, folder.journal).spending(), study, run)


def refuse_understated(folder: SiteFolder, study: Study, statement: DpStatement | None) -> None:
    """Find that a statement promises no more than the site's own ledger allows.

    Raises:
        VerificationFailed: it says less than the site has spent on this study, or the ledger cannot be trusted.
    """
    spent = spent_at_site(folder, study)
    if statement is None or statement.epsilon < spent.epsilon * (1 - 1e-9) or statement.steps < spent.steps:
        said = told(statement.epsilon) if statement else "nothing"
        raise VerificationFailed(
            f"a release that states {said} where this site's patients have spent {told(spent.epsilon)}",
            expected="no less than the site's own ledger says of this study",
            remedy="Do not approve it; have the coordinator pack the generator of the study's last run as it ended: an"
            " earlier one does not say what was spent since.",
        )
