"""A site's folder that a budget is shown for: what it allows, what its study promises, what of a ledger is its own."""

from __future__ import annotations

from ...common.cohorts.roles import load_roles
from ...common.errors import FedPhantomError
from ...common.site_folder import SiteFolder
from .budget import AskingSite
from .run_spent import run_name


def asking_site(folder: SiteFolder) -> AskingSite:
    """Of a folder as far as it can be read: a ledger is shown also where the study or the coin record is damaged."""
    try:
        study = folder.study()
    except FedPhantomError:
        return AskingSite(folder.budget)
    try:
        run = run_name(study, load_roles(folder.coins).cohort_digest) if folder.coins.exists() else ""
    except FedPhantomError:
        run = ""
    return AskingSite(folder.budget, study.privacy.promise, study.digest(), run)
