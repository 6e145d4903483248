"""A hospital's site made from an invitation: its folder, its keys, and the request that it hands back."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ...common.atomic import write_atomic
from ...common.cohort import Cohort
from ...common.cohorts.layouts import read_cohort
from ...common.counted import counted
from ...common.enrolment.invitation import (
    Invitation,
    open_invitation,
    read_invitation,
)
from ...common.enrolment.request import (
    REQUEST,
    EnrolmentRequest,
    RequestContent,
    open_request,
    sign_request,
)
from ...common.enrolment.signed_file import file_digest, read_content
from ...common.errors import ConfigError, about
from ...common.gan.parameters import ParameterSpec
from ...common.in_toto import time_text
from ...common.journal import Journal
from ...common.output_place import refuse_used
from ...common.progress import Report
from ...common.site_folder import PUBLIC_START, SITE_FILE, SiteFolder
from ...common.study import Study
from ...privacy.study_summary import study_text
from ..site_setup import check_site_cohort, create_site_folder
from .folder import NodeFolder
from .keys import KeyPair, asked_keys, make_keys, make_next_keys, present_keys
from .limits import LIMITS_FILE, write_first_limits

_LEFT_BY_A_KILL = ("study.toml", "egress.json", PUBLIC_START)
"""What lies in a folder before its site file does."""


@dataclass(frozen=True)
class SiteMade:
    """What ``site init`` and ``site renew`` leave.

    Attributes:
        site: Its public name.
        request: The file to send to the coordinator.
        fingerprint: Of the site's name and the keys in the request, to be read to the coordinator.
        coordinator: The coordinator's fingerprint as this invitation gives it, to be heard from the coordinator.
        address: Where the coordinator will be reached.
        study_digest: Of the study.
        study: What it does, in plain words.
        left_out: How many scans cannot be used and why, without naming one; empty where all can.
        renews: Whether the keys replace those of an enrolled site.
    """

    site: str
    request: str
    fingerprint: str
    coordinator: str
    address: str
    study_digest: str
    study: str
    left_out: str
    renews: bool

    def text(self) -> str:
        """For a terminal."""
        if self.renews:
            before = [f"new keys for {self.site}; the present ones stay in use until the new ones stand on a roster"]
        else:
            before = [
                self.study,
                "",
                f"site {self.site}, invited to {self.address}; private keys were made here and stay here",
                "its patients' roles will be drawn from the operating system's randomness: nobody outside can repeat"
                " the draw",
                *([self.left_out] if self.left_out else []),
                f"{LIMITS_FILE} in the folder says what a study may ask of this site at most, and how many patients it"
                " has to train on at least: look through it before you approve",
            ]
        return "\n".join(
            (
                *before,
                f"send {shlex.quote(self.request)} to the coordinator, and read this out by telephone:"
                f" {self.fingerprint}",
                f"have the coordinator read this to you, and do not go on if it differs: {self.coordinator}",
            )
        )


def init_site(
    root: Path,
    invitation_file: Path,
    cohort: Path,
    ledgers: Path | None,
    start: Path | None,
    now: datetime,
    stage: Callable[[str], Report],
) -> SiteMade:
    """Make a site's folder, keys and request; called again with the same arguments it finishes, or finds all done.

    With a new invitation to the same site it makes new keys and a request for them; everything else stays.

    Args:
        root: The site's folder, new or begun by an earlier call.
        invitation_file: From the coordinator.
        cohort: The site's patients.
        ledgers: Folder that outlives this one, in which the privacy ledger lies under the site's name; for a study
            that makes a promise, which is refused without.
        start: The public start file, where the study goes out from one.
        now: In UTC.
        stage: Begins a named stage; returns its progress function.

    Raises:
        SignatureInvalid: an invitation that was changed, or expired.
        ConfigError: no invitation, a study that declares no weight for the site, a folder or ledger that does not
            belong to it, or no ledger for a study that makes a promise.
        DataError: no usable scan, or nobody to train on.
        OutputTaken: the folder holds something else.
        StorageError: the disk is full, read-only or forbidden.
    """
    with about("DIR"):
        refuse_used(root, SITE_FILE, _LEFT_BY_A_KILL)
    with about("--invitation"):
        invitation, content = read_invitation(invitation_file)
        invitation.refuse_expired(now)
        _refuse_another_coordinator(NodeFolder(root), invitation)
    study = invitation.parsed_study()
    with about("--ledger"):
        _refuse_ledger(study, ledgers, made=(root / SITE_FILE).exists())
    with about("--cohort"):
        left_out = check_site_cohort(
            root, invitation.site, _own_patients(cohort), study, stage("looking through the cohort"), "system"
        )
    # Here, so that a node which answers without training does not wait for torch.
    from ...common.gan.public_start import first_parameters

    shapes = ParameterSpec.of(first_parameters(study, start))
    with about("DIR"):
        site = create_site_folder(
            root, invitation.site, cohort, invitation.study, shapes, start=start, ledgers=ledgers, coins_from="system"
        )
    write_first_limits(root)
    folder = NodeFolder(root)
    request = _last_request(folder, site.name)
    if request is None or request.content.invitation != file_digest(content):
        keys = make_keys(folder.keys) if request is None else make_next_keys(folder)
        write_atomic(folder.authority, invitation.authority.encode())
        write_atomic(folder.invitation, content, mode=0o600)
        request = make_request(folder, site, keys, None, now)
    return _made(folder, site, request, left_out)


def make_request(
    folder: NodeFolder, site: SiteFolder, keys: KeyPair, replaced: KeyPair | None, now: datetime
) -> EnrolmentRequest:
    """Sign and write a request by the stored invitation, and journal it.

    Args:
        folder: Where the invitation lies.
        site: The site.
        keys: To be enrolled.
        replaced: For a renewal: those in use.
        now: In UTC.
    """
    invitation, sent = read_invitation(folder.invitation)
    content = RequestContent(
        study_digest=invitation.study_digest,
        keys=keys.public(site.name),
        invitation=file_digest(sent),
        token=invitation.token,
        created=time_text(now),
        renews=replaced is not None,
    )
    request = sign_request(content, keys.node, keys.identity, replaced.identity if replaced else None)
    Journal(site.journal).append(
        "renewal-asked" if replaced else "enrolment-asked",
        keys=content.keys.fingerprint(),
        coordinator=invitation.fingerprint(),
        invitation=content.invitation,
    )
    write_atomic(folder.request(site.name), request, mode=0o600)
    return open_request(request)


def asked_again(folder: NodeFolder, site: SiteFolder, request: EnrolmentRequest) -> SiteMade:
    """What a request that was made before comes to."""
    return _made(folder, site, request, "")


def _made(folder: NodeFolder, site: SiteFolder, request: EnrolmentRequest, left_out: str) -> SiteMade:
    invitation, _ = read_invitation(folder.invitation)
    return SiteMade(
        site=site.name,
        request=str(folder.request(site.name)),
        fingerprint=request.fingerprint(),
        coordinator=invitation.fingerprint(),
        address=invitation.address,
        study_digest=invitation.study_digest,
        study=study_text(invitation.parsed_study()),
        left_out=left_out,
        renews=request.content.renews,
    )


def _last_request(folder: NodeFolder, site: str) -> EnrolmentRequest | None:
    """The request that an earlier call made, if the keys in it are here."""
    path = folder.request(site)
    if not path.exists():
        return None
    with about("DIR"):
        request = open_request(read_content(path, REQUEST))
    pairs = (present_keys(folder), asked_keys(folder))
    if request.content.keys in [pair.public(site) for pair in pairs if pair]:
        return request
    return None


def _refuse_another_coordinator(folder: NodeFolder, invitation: Invitation) -> None:
    if folder.invitation.exists():
        before = open_invitation(folder.invitation.read_bytes())
        if (before.coordinator_key, before.site) != (invitation.coordinator_key, invitation.site):
            raise ConfigError(
                "an invitation by another coordinator, or to another site, than the one that DIR was made by",
                expected=f"one to '{before.site}' by the coordinator {before.fingerprint()}",
                remedy="Choose another folder for it.",
            )


def _own_patients(cohort: Path) -> Cohort:
    """Read the cohort. Raises ConfigError where it names several sites: a real site has its own patients alone."""
    found = read_cohort(cohort)
    parts = found.by_site()
    if len(parts) > 1:
        raise ConfigError(
            f"a cohort that names {counted(len(parts), 'site')}, or some patients' site alone",
            expected="the patients of one site",
            remedy="Give this site's own patients, a table of them for example.",
        )
    return found


def _refuse_ledger(study: Study, ledgers: Path | None, *, made: bool) -> None:
    if ledgers is None and study.privacy.promise and not made:
        raise ConfigError(
            "no place for the privacy ledger, for a study that makes a promise",
            expected="a folder that outlives this one: what patients have spent counts in every later study, too",
            remedy="Give one with --ledger, the same for every study with these patients.",
        )
    if ledgers is not None and study.privacy.promise is None:
        raise ConfigError(
            "a privacy ledger for a study that promises nothing",
            expected="a study with privacy.dp = 'patient-level'",
            remedy="Leave it out; it would have no effect.",
        )
