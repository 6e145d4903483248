"""What Ctrl-C says of a simulation under a promise: what its sites' ledgers hold then, and nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ..common.counted import counted
from ..common.errors import FedPhantomError
from ..common.promise import PromiseTable
from ..common.site_folder import SITE_FILE, SiteFolder
from ..privacy.dp.asking_site import asking_site
from ..privacy.dp.ledger import Ledger
from ..privacy.dp.spending import Reservation

_GOES_ON = "interrupted: the same command goes on after the last finished round"


def broken_off(promise: PromiseTable, out: Path) -> str:
    """One line, by the ledgers as they stand.

    Args:
        promise: The study's.
        out: The run's folder, made or not.
    """
    told, cost, open_ = list[str](), False, False
    for folder in sorted(path.parent for path in out.glob(f"sites/*/{SITE_FILE}")):
        try:
            own = _of_the_study(SiteFolder.open(folder))
        except FedPhantomError:
            told, cost = [*told, f"site '{folder.name}': its ledger cannot be read"], True
            continue
        whole = sum(one.mechanism.steps for one in own if one.steps_done is None)
        cost, open_ = cost or bool(own), open_ or bool(whole)
        told.append(f"site '{folder.name}': {_counted(own, whole)}")
    if not cost:
        return f"{_GOES_ON}. No noised step of this study stands in a site's ledger: it has cost no patient anything"
    again = (
        " Steps of which nobody says how many were taken count whole, and are taken and paid for again: the study keeps"
        f" {counted(promise.spare_rounds, 'spare round')} for that in all."
    )
    return (
        f"{_GOES_ON}. Noised steps of this study by the sites' ledgers, {'; '.join(told)}.{again if open_ else ''}"
        f" What is left of a site NAME: fedphantom budget show {shlex.quote(str(out / 'sites' / 'NAME'))}"
    )


def _of_the_study(folder: SiteFolder) -> Sequence[Reservation]:
    """What was reserved for the folder's study, in whatever run folder; nothing before the site's first start."""
    if not folder.journal.exists():
        return ()
    site = asking_site(folder)
    return [one for one in Ledger(folder.ledger, folder.journal).spending().reservations if site.owns(one)]


def _counted(own: Sequence[Reservation], whole: int) -> str:
    if not own:
        return "none reserved"
    said = f"{sum(one.steps_counted for one in own)} counted"
    return f"{said}, of {whole} of them nobody says how many were taken" if whole else said
