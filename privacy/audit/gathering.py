"""The scans that an audit reads, gathered from its sites, and who may not be among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...common.cohort import PUBLIC_SITE, Cohort
from ...common.cohorts.preparation import PreparedScans, joined, prepare
from ...common.cohorts.roles import Role
from ...common.counted import counted
from ...common.errors import ConfigError, DataError
from ...common.site_folder import SiteMaterial
from ...common.study import Study
from ..attacks.known_scans import known_scans


def gather(
    sites: Sequence[SiteMaterial], public: Cohort | None, study: Study, cache: Path
) -> tuple[PreparedScans, tuple[Role, ...], str | None]:
    """The sites' scans and public patients', of every role that an audit uses.

    Args:
        sites: Their scans and coins.
        public: Patients who stand in as reference where no patient has that role.
        study: How those are prepared.
        cache: Where.

    Returns:
        Scans, the role of each scan's patient, and who stands in, in words, or None.

    Raises:
        ConfigError: public patients where nobody needs a stand-in.
        DataError: no reference patients, public ones whom a site holds, or a holdout scan that trained the generator.
    """
    parts = [site.scans for site in sites]
    roles = [site.coins.roles[patient] for site in sites for patient in site.scans.patients]
    stands_in = None
    if "reference" in roles and public is not None:
        raise ConfigError(
            "--public where the sites' own patients have the role 'reference': it would have no effect",
            expected="no --public: public patients stand in only where no patient has that role",
            remedy="Leave --public out.",
        )
    if public is not None:
        stand_ins = prepare(public, study, cache).named_site(PUBLIC_SITE)
        _refuse_own_scans(stand_ins, parts)
        parts.append(stand_ins)
        roles += ["reference"] * len(stand_ins)
        stands_in = f"{len(public.patients)} public patients stand in as reference"
    if "reference" not in roles:  # before it counts as an audit
        raise DataError(
            "no reference patients to calibrate the attacks with",
            expected="patients with the role reference, or public ones who stand in",
            remedy="Name a public cohort on the study's channels and labels with --public; a new run can draw reference"
            " patients, where roles.reference in its study is more than 0 and the cohort large enough.",
        )
    whole = joined(parts).named_by_site()
    _refuse_trained_holdout(whole, roles)
    # Audited scans first, then those that no volume may repeat: the audit then reads both in place, without a copy.
    place = {"member": 0, "holdout": 0, "training": 1, "control": 2, "reference": 3}
    kept = np.array(
        sorted((i for i, role in enumerate(roles) if role in place), key=lambda i: place[roles[i]]), np.intp
    )
    return whole.only(kept), tuple(roles[i] for i in kept), stands_in


def _refuse_trained_holdout(scans: PreparedScans, roles: Sequence[Role]) -> None:
    """A person who is a holdout patient here and trained the generator there, under another name, is no stranger."""
    held = scans.only([i for i, role in enumerate(roles) if role == "holdout"])
    trained = scans.only([i for i, role in enumerate(roles) if role in ("member", "training")])
    shared = int(known_scans(held.volumes, trained.volumes).sum())
    if shared:
        raise DataError(
            f"{counted(shared, 'holdout scan')} that the generator was trained on: the same, but for rounding, under"
            " another name",
            expected="each person at one site and under one name: a holdout patient's scans train nothing",
            remedy="Take the person out at one of the sites, and train anew: this holdout cannot audit this generator.",
        )


def _refuse_own_scans(stand_ins: PreparedScans, own: Sequence[PreparedScans]) -> None:
    shared = np.zeros(len(stand_ins), dtype=bool)
    for part in own:
        shared |= known_scans(stand_ins.volumes, part.volumes)
    if shared.any():
        raise DataError(
            f"{int(shared.sum())} scans of the public cohort are the sites' own",
            expected="public patients whom no site holds: a reference that saw members would hide every leak",
            remedy="Give a public cohort without them.",
        )
