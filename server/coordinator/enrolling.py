"""Sites invited, enrolled, revoked and withdrawn: what changes, what is signed, and what the coordinator is told."""

from __future__ import annotations

import secrets
import shlex
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ...common.atomic import write_atomic
from ...common.counted import counted
from ...common.enrolment.fingerprint import refuse_other_fingerprint
from ...common.enrolment.invitation import INVITATION, Invitation
from ...common.enrolment.notice import NOTICE
from ...common.enrolment.request import REQUEST, open_request
from ...common.enrolment.signed_file import file_digest, read_content, signed
from ...common.errors import ConfigError, about
from ...common.exchange import check_site_name
from ...common.in_toto import time_text
from ...common.keys import load_private_key
from ...common.output_place import refuse_taken_file
from ...common.reason import SENTENCE, is_sentence
from .coordinator import Coordinator
from .membership import Membership


@dataclass(frozen=True)
class InvitationSent:
    """An invitation to hand to a hospital.

    Attributes:
        site: Its public name.
        file: Where the invitation lies.
        expires: The last moment at which it can be used, UTC.
        fingerprint: Of the coordinator's key.
    """

    site: str
    file: str
    expires: str
    fingerprint: str

    def text(self) -> str:
        """For a terminal."""
        return (
            f"invited {self.site}: send {self.file} to its site engineer, and to nobody else; whoever has it may ask to"
            f" be {self.site} until {self.expires}\n"
            f"read this to them by telephone: {self.fingerprint}"
        )


def invite(root: Path, name: str, out: Path | None, days: int, now: datetime) -> InvitationSent:
    """Sign an invitation for one site.

    Args:
        root: The coordinator's folder.
        name: The site's public name.
        out: A new file to write it to as well; it always lies in the folder.
        days: How long it can be used.
        now: In UTC.

    Raises:
        ConfigError: a name that is not allowed, or that the study declares no weight for.
        PolicyRefused: a site of this name is enrolled.
        OutputTaken: ``out`` is there.
    """
    with about("--out"):
        _refuse_file(out)
    check_site_name(name)
    coordinator = Coordinator.open(root)
    study, folder = coordinator.study(), coordinator.folder
    study.federation.weight_of(name)
    invitation = Invitation(
        study_digest=study.digest(),
        study_name=study.name,
        study=coordinator.study_text,
        site=name,
        address=coordinator.configuration.address,
        authority=folder.certificate("sites-ca").read_text(encoding="ascii"),
        coordinator_key=coordinator.public_pem(),
        token=secrets.token_hex(32),
        issued=time_text(now),
        expires=time_text(now + timedelta(days=days)),
    )
    content = signed(INVITATION, invitation, load_private_key(folder.private_key))
    digest = file_digest(content)
    coordinator.registry.change(
        "site-invited",
        lambda membership: membership.with_invitation(invitation, digest),
        site=name,
        invitation=digest,
        expires=invitation.expires,
    )
    kept = folder.invitation(digest)
    for path in (kept, *([out] if out else [])):
        write_atomic(path, content, mode=0o600)
    return InvitationSent(name, str(out or kept), invitation.expires, invitation.fingerprint())


@dataclass(frozen=True)
class SiteChanged:
    """A site enrolled, renewed, revoked or withdrawn.

    Attributes:
        site: Its public name.
        change: ``enrolled``, ``renewed``, ``revoked`` or ``withdrew``.
        expires: The last moment at which its keys count, UTC; empty once they do not.
        enrolled: Names of all enrolled sites.
        roster: The file to hand to every one of them.
        serial: Of that roster.
        fingerprint: Of the coordinator's key, which signed it.
    """

    site: str
    change: str
    expires: str
    enrolled: tuple[str, ...]
    roster: str
    serial: int
    fingerprint: str

    def text(self) -> str:
        """For a terminal."""
        until = f" until {self.expires[:10]}" if self.expires else ""
        names = f" ({', '.join(self.enrolled)})" if self.enrolled else ""
        what = f"{self.site} withdrew" if self.change == "withdrew" else f"{self.change} {self.site}"
        return "\n".join(
            (
                f"{what}{until}; {counted(len(self.enrolled), 'site')} enrolled{names}",
                f"hand {self.roster} (number {self.serial}) to every one of them: fedphantom site join SITE_DIR"
                f" {shlex.quote(Path(self.roster).name)} --fingerprint {self.fingerprint}",
            )
        )


def enroll(root: Path, request: Path, fingerprint: str, now: datetime) -> SiteChanged:
    """Grant a site's request, to be enrolled or to have its keys exchanged, once its fingerprint was read aloud.

    Args:
        root: The coordinator's folder.
        request: The file that the site sent.
        fingerprint: As the site engineer read it out.
        now: In UTC.

    Raises:
        ConfigError: no such file, or not a fingerprint.
        SignatureInvalid: a signature that does not hold, another fingerprint, or an expired invitation.
        VerificationFailed: a request by an invitation that is not this coordinator's.
        PolicyRefused: an invitation that was used or is void, keys that are known, or a site that is enrolled.
    """
    coordinator = Coordinator.open(root)
    with about("REQUEST"):
        content = read_content(request, REQUEST)
        asked = open_request(content)
    with about("--fingerprint"):
        refuse_other_fingerprint(fingerprint, asked.fingerprint(), "the site engineer")
    change = "renewed" if asked.content.renews else "enrolled"
    days = coordinator.configuration.valid_days
    with about("REQUEST"):
        membership = coordinator.registry.change(
            f"site-{change}",
            lambda before: before.with_request(asked, now, days),
            site=asked.content.keys.name,
            keys=asked.fingerprint(),
            request=file_digest(content),
        )
    return _changed(coordinator, membership, asked.content.keys.name, change)


def revoke(root: Path, name: str, reason: str, now: datetime) -> SiteChanged:
    """Take a site's keys, and its open invitation, out of the study.

    Args:
        root: The coordinator's folder.
        name: The site.
        reason: In a sentence, for the journal.
        now: In UTC.

    Raises:
        ConfigError: no such site, or a reason that says nothing.
    """
    coordinator = Coordinator.open(root)
    if not is_sentence(reason):
        raise ConfigError(
            "--reason: it says too little, or too much",
            expected=SENTENCE,
            remedy="Say why; the journal keeps it.",
        )
    membership = coordinator.registry.change(
        "site-revoked", lambda before: before.without(name, now), site=name, reason=reason
    )
    return _changed(coordinator, membership, name, "revoked")


def take_notice(root: Path, name: str, notice: Path, now: datetime) -> SiteChanged:
    """Take a site that withdrew out of the study, by the notice that it signed; again, the roster is written again.

    Args:
        root: The coordinator's folder.
        name: The site.
        notice: The file that it sent.
        now: In UTC.

    Raises:
        ConfigError: no such site is enrolled, or no notice at the path.
        SignatureInvalid: the site's present identity key did not sign it.
        VerificationFailed: a notice of another site or study, or dated in the future.
    """
    coordinator = Coordinator.open(root)
    with about("--notice"):
        content = read_content(notice, NOTICE)
        membership = coordinator.registry.read()
        said = membership.notice_of(name, content, now)
        if membership.left().get(name) is None:
            membership = coordinator.registry.change(
                "site-withdrew",
                lambda before: before.without_withdrawn(name, content, now),
                site=name,
                notice=file_digest(content),
                withdrawn=said.withdrawn,
            )
    return _changed(coordinator, membership, name, "withdrew")


def _changed(coordinator: Coordinator, membership: Membership, name: str, change: str) -> SiteChanged:
    expires = {site.name: site.expires for site in membership.sites}
    return SiteChanged(
        site=name,
        change=change,
        expires=expires.get(name, ""),
        enrolled=tuple(expires),
        roster=str(coordinator.write_roster(membership)),
        serial=membership.serial,
        fingerprint=coordinator.fingerprint(),
    )


def _refuse_file(out: Path | None) -> None:
    if out is not None:
        refuse_taken_file(out)
