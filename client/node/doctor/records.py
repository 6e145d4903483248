"""Whether a site's own records hold: journal, coins, the privacy ledger and what is left in it."""

from __future__ import annotations

import hashlib

from ....common.cohorts.roles import load_roles
from ....common.counted import counted
from ....common.journal import read_journal
from ....common.site_folder import ROUND_FAILED, SiteFolder, noted_coins
from ....common.study import Study
from ....privacy.dp.accounting import epsilon, told
from ....privacy.dp.ledger import Ledger
from ....privacy.dp.limits import Budget
from ....privacy.dp.plan import noised_plan
from ....privacy.dp.run_spent import run_name
from ...private_training import NOISED_MEANS
from ...site_setup import LEDGER_WITHIN, NAME_ANOTHER
from ..answers import answered
from .finding import Outcome, green, red, yellow


def check_journal(folder: SiteFolder) -> Outcome:
    """Whether the journal's chain holds to its head.

    Raises:
        VerificationFailed: it does not; says where.
    """
    entries = read_journal(folder.journal)
    said = f"{counted(len(entries), 'line')}, an unbroken chain up to its head"
    failed = [entry for entry in entries if entry.event == ROUND_FAILED or answered(entry)]
    if failed and failed[-1].event == ROUND_FAILED:
        return yellow(
            f"{said}; the last round failed ({failed[-1].facts.get('kind')})", "Read errors.log in the site's folder."
        )
    return green(said)


def check_coins(folder: SiteFolder) -> Outcome:
    """Whether the coin record is the one that the journal names.

    Raises:
        VerificationFailed: the record or the journal is damaged or was edited.
    """
    noted = noted_coins(folder)
    restore = "Restore coins.json and journal.jsonl from one backup; roles drawn anew would void every audit."
    if not folder.coins.exists():
        if noted is not None:
            return red("the coin record is gone, and the journal names one", restore)
        return green("roles are not drawn yet; 'fedphantom site approve' does it")
    load_roles(folder.coins)
    if noted != hashlib.sha256(folder.coins.read_bytes()).hexdigest():
        return red("the coin record is another than the journal names", restore)
    return green("the coin record is the one that the journal names")


def check_ledger(folder: SiteFolder, study: Study) -> Outcome:
    """Whether the ledger can be read and outlives the folder, and whether what the study still asks of it is left.

    Raises:
        VerificationFailed: ledger, secret or journal is missing, damaged or does not belong to the others.
    """
    promise = study.privacy.promise
    if promise is None:
        return green("dp: none. This study makes no differential-privacy promise, and spends nothing")
    spending = Ledger(folder.ledger, folder.journal).spending()
    delta = spending.delta(promise.delta)
    spent = epsilon(spending.dearest(delta), delta)
    most = Budget(promise.epsilon, delta, folder.budget).binding(one.budget for one in spending.reservations)
    said = f"readable; {told(spent)} of {told(most)} is spent at δ = {delta:g}, by the patient for whom it is most"
    if promise.noised == "means" and (folder.state / NOISED_MEANS).exists():
        return _outlives(folder, f"{said}; this study asks for no more")
    more = noised_plan(study).once()
    own = spending.of_study(study.digest(), _run_of(folder, study))
    # Of everybody in the ledger: who takes part in this study may have spent less.
    fits = epsilon(spending.dearest(delta, None, [more]) or [more], delta) <= most
    if fits and epsilon(own.dearest(promise.delta, None, [more]) or [more], promise.delta) <= promise.epsilon:
        return _outlives(folder, f"{said}; what the study pays for at a time is left")
    return yellow(
        f"{said}; the {counted(more.steps, 'noised step')} that the study pays for at a time may not be left",
        "Run 'fedphantom budget show' here. Where they are not, the study goes on without this site.",
    )


def _outlives(folder: SiteFolder, said: str) -> Outcome:
    """Green where the ledger outlives the folder."""
    return yellow(f"{said}. {LEDGER_WITHIN}", NAME_ANOTHER) if folder.ledger_within else green(said)


def _run_of(folder: SiteFolder, study: Study) -> str:
    """The run's name in the ledger; empty before roles are drawn, for then there is no line of it."""
    return run_name(study, load_roles(folder.coins).cohort_digest) if folder.coins.exists() else ""
