"""Before a study begins or goes on: how far a site's ledger lets it go. For the site itself, or one machine of all."""

from __future__ import annotations

from pathlib import Path

from ..common.cohort import Cohort
from ..common.cohorts.check import check_cohort
from ..common.cohorts.layouts import read_cohort
from ..common.cohorts.roles import draw_roles, load_roles_of
from ..common.errors import DataError
from ..common.site_folder import SITE_FILE, SiteFolder, roles_generator
from ..common.study import Study
from ..common.tensor_file import read_header
from ..privacy.dp.accounting import Mechanism
from ..privacy.dp.ledger import Ledger, NoisedRun
from ..privacy.dp.limits import Budget
from ..privacy.dp.outlook import Outlook, Unit
from ..privacy.dp.plan import noised_plan
from ..privacy.dp.run_spent import run_name
from .private_training import NOISED_MEANS
from .training_people import training_people


def budget_outlook(
    root: Path, name: str, cohort: Cohort, study: Study, rounds_done: int, ledgers: Path | None = None
) -> Outlook:
    """Open and verify the site's ledger, and count what is left in it; nothing is written.

    Scans are read only where somebody has spent something.

    Args:
        root: The site's folder, made or not.
        name: The site's public name.
        cohort: Its patients.
        study: One that makes a promise.
        rounds_done: Rounds that are behind the study.
        ledgers: Where its ledger will be, in a folder of the site's name, if ``root`` is still to be made.

    Raises:
        VerificationFailed: ledger, secret, journal or coin record is missing, damaged or not of the others.
        PolicyRefused: two patients are one person by the ledger, or the cohort changed since its roles were drawn.
        DataError: no usable scan.
    """
    promise = study.privacy.promise
    assert promise is not None  # noqa: S101  # asked for such a study alone
    folder = SiteFolder.open(root) if (root / SITE_FILE).exists() else None
    begun = folder is not None and folder.coins.exists()
    where = folder.ledger if folder else ledgers / name if ledgers else root
    ledger = Ledger(where, root / "journal.jsonl")
    needed, paid = study.training.rounds - rounds_done, _paid(folder, rounds_done)
    if promise.noised == "means":
        needed, paid = 1, int(folder is not None and (folder.state / NOISED_MEANS).exists())
    unit: Unit = "noised step" if promise.noised == "means" else "round"
    to_pay = max(0, needed - paid)
    allowed = folder.budget if folder else None
    if not ledger.spending(new_site=not begun).reservations and (allowed is None or not to_pay):
        # The study's noise is chosen so that its own steps fit.
        return Outlook(unit, needed, needed)
    usable = check_cohort(cohort, study).usable_or_refused()
    coins = (
        load_roles_of(folder.coins, usable.patient_ids)
        if folder is not None and begun
        else draw_roles(usable.patient_ids, study.roles, roles_generator(study, name, "study"))
    )
    plan = noised_plan(study)
    left = ledger.left(
        NoisedRun(run_name(study, coins.cohort_digest), study.digest(), promise.clip_norm, study.name),
        training_people(usable, coins),
        Mechanism(plan.sampling_rate, plan.noise_multiplier, max(1, to_pay) * plan.steps),
        Budget(promise.epsilon, promise.delta, allowed),
        new_site=not begun,
    )
    if not to_pay:  # asked all the same: whether its patients are those who paid
        return Outlook(unit, needed, needed)
    can = min(paid, needed) + left.steps // plan.steps
    return Outlook(unit, needed, can, left.limit if can < needed else "")


def site_outlook(folder: SiteFolder, study: Study) -> Outlook:
    """The same for a site by itself, which knows of no round but those that it has answered.

    Raises:
        VerificationFailed, PolicyRefused, DataError: as :func:`budget_outlook`; the cohort cannot be read.
    """
    return budget_outlook(folder.root, folder.name, read_cohort(folder.cohort), study, _last_trained(folder))


def _paid(folder: SiteFolder | None, rounds_done: int) -> int:
    """Whether the next round was trained already, and answering it again costs nothing."""
    return int(folder is not None and _last_trained(folder) > rounds_done)


def _last_trained(folder: SiteFolder) -> int:
    """The round whose training stands at the site; 0 before the first."""
    if not folder.committed.exists():
        return 0
    try:
        return int(str(read_header(folder.committed, "training state").facts["round"]))
    except DataError:
        return 0
