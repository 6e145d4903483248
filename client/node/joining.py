"""A site that takes part: the coordinator's roster checked and kept, and the site's own keys renewed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ...common.atomic import write_atomic
from ...common.counted import counted
from ...common.enrolment.fingerprint import refuse_other_fingerprint
from ...common.enrolment.invitation import Invitation, read_invitation
from ...common.enrolment.request import REQUEST, open_request
from ...common.enrolment.roster import ROSTER, EnrolledSite, Roster
from ...common.enrolment.signed_file import file_digest, opened, read_content
from ...common.enrolment.site_keys import SiteKeys
from ...common.errors import ConfigError, PolicyRefused, SignatureInvalid, VerificationFailed, about
from ...common.in_toto import time_text
from ...common.journal import Journal
from ...common.keys import public_key_of
from ...common.site_folder import SiteFolder
from .folder import NodeFolder
from .keys import asked_keys, make_next_keys, present_keys, take_next_keys
from .setup import SiteMade, asked_again, make_request


@dataclass(frozen=True)
class SiteJoined:
    """A roster that the site goes by.

    Attributes:
        site: Its public name.
        serial: Of the roster.
        expires: The last moment at which the site's own keys count, UTC.
        sites: Name and fingerprint of the keys of every site on it.
        revoked: Names of sites whose keys were revoked, each once.
        new_keys: Whether keys that were asked for are in use from now on.
    """

    site: str
    serial: int
    expires: str
    sites: dict[str, str]
    revoked: tuple[str, ...]
    new_keys: bool

    def text(self) -> str:
        """For a terminal."""
        lines = [
            f"{self.site} takes part until {self.expires[:10]}, by roster number {self.serial} of"
            f" {counted(len(self.sites), 'site')}:",
            *(f"  {name}  {fingerprint}" for name, fingerprint in self.sites.items()),
        ]
        if self.revoked:
            lines.append(f"revoked: {', '.join(self.revoked)}")
        if self.new_keys:
            lines.append("the new keys are in use from now on, the former ones are deleted: restart the node")
        return "\n".join(lines)


def join(root: Path, roster_file: Path, fingerprint: str, now: datetime) -> SiteJoined:
    """Check a roster and go by it from now on.

    Args:
        root: The site's folder.
        roster_file: From the coordinator.
        fingerprint: The coordinator's, as the coordinator read it out.
        now: In UTC.

    Raises:
        ConfigError: no site's folder with an invitation, no roster, or not a fingerprint.
        SignatureInvalid: another fingerprint, a roster that another key signed or that was changed, or keys of this
            site that expired.
        VerificationFailed: a roster of another study, older than the one here, or with other keys under this site's
            name.
        PolicyRefused: the coordinator revoked this site's keys.
    """
    site, folder, invitation = open_enrolled(root)
    with about("ROSTER"):
        content = read_content(roster_file, ROSTER)
    with about("--fingerprint"):
        refuse_other_fingerprint(fingerprint, invitation.fingerprint(), "the coordinator")
    with about("ROSTER"):
        roster = _opened(content, invitation)
        _refuse_older(folder, invitation, roster, content)
        own, asked = _own_entry(folder, site.name, roster, now)
    digest = file_digest(content)
    Journal(site.journal).append(
        "roster-accepted", roster=digest, serial=roster.serial, sites=[one.name for one in roster.sites]
    )
    write_atomic(folder.roster, content)
    if asked:
        take_next_keys(folder)
    return SiteJoined(
        site=site.name,
        serial=roster.serial,
        expires=own.expires,
        sites={name: one.keys().fingerprint() for name, one in roster.active(now).items()},
        revoked=tuple(dict.fromkeys(keys.name for keys in roster.revoked)),
        new_keys=asked,
    )


def renew_keys(root: Path, now: datetime) -> SiteMade:
    """Make new keys and the request for them, signed by the present identity key; called again, the same request.

    Args:
        root: The folder of a site that joined.
        now: In UTC.

    Raises:
        ConfigError: a site that never joined.
        SignatureInvalid: its enrolment expired: no renewal would be granted.
    """
    site, folder, invitation = open_enrolled(root)
    with about("DIR"):
        own = accepted_roster(folder, invitation).active(now).get(site.name)
        present = present_keys(folder)
        if own is None or present is None or own.keys() != present.public(site.name):
            raise SignatureInvalid(
                "keys that do not count on the roster here, or no longer",
                expected="a site whose enrolment holds",
                remedy="Join by the newest roster, or ask the coordinator to revoke this site and invite it again.",
            )
        asked = asked_keys(folder)
        if asked:
            request = open_request(read_content(folder.request(site.name), REQUEST))
            if request.content.renews and request.content.keys == asked.public(site.name):
                return asked_again(folder, site, request)
        return asked_again(folder, site, make_request(folder, site, make_next_keys(folder), present, now))


def open_enrolled(root: Path) -> tuple[SiteFolder, NodeFolder, Invitation]:
    """A deployed site's folder and the invitation that it came by. Raises ConfigError where it is none."""
    with about("DIR"):
        site, folder = SiteFolder.open(root), NodeFolder(root)
        return site, folder, read_invitation(folder.invitation)[0]


def accepted_roster(folder: NodeFolder, invitation: Invitation) -> Roster:
    """The newest roster that the site accepted.

    Raises:
        ConfigError: it accepted none yet.
        SignatureInvalid: it was changed since.
    """
    if not folder.roster.exists():
        raise ConfigError(
            "a site that has not joined",
            expected="a roster that names it",
            remedy="Send the request to the coordinator; then 'fedphantom site join'.",
        )
    return _opened(read_content(folder.roster, ROSTER), invitation)


def _opened(content: bytes, invitation: Invitation) -> Roster:
    roster = opened(ROSTER, content, [public_key_of(invitation.coordinator_key.encode())])
    if roster.study_digest != invitation.study_digest:
        raise VerificationFailed(
            "a roster of another study",
            expected="one of the study that this site was invited to",
            remedy="Ask the coordinator for the roster that was meant.",
        )
    return roster


def _refuse_older(folder: NodeFolder, invitation: Invitation, roster: Roster, content: bytes) -> None:
    if not folder.roster.exists():
        return
    here = accepted_roster(folder, invitation).serial
    same = folder.roster.read_bytes() == content
    if roster.serial < here or (roster.serial == here and not same):
        raise VerificationFailed(
            f"roster number {roster.serial} where number {here} is accepted already",
            expected="a later one: an older one may name sites that were revoked since",
            remedy="Ask the coordinator for the newest roster.",
        )


def _own_entry(folder: NodeFolder, name: str, roster: Roster, now: datetime) -> tuple[EnrolledSite, bool]:
    """The site's own entry, and whether its keys are those asked for."""
    present, asked = present_keys(folder), asked_keys(folder)
    own = next((site for site in roster.sites if site.name == name), None)
    mine = [pair.public(name) for pair in (present, asked) if pair]
    if own is None or own.keys() not in mine:
        raise _not_mine(mine, roster, known=own is not None)
    if not own.active(now):
        raise SignatureInvalid(
            f"a roster on which this site's keys expired on {own.expires[:10]}",
            expected=f"keys that count now, {time_text(now)} by this machine's clock",
            remedy="Ask the coordinator for the newest roster; if the clock is wrong, set it.",
        )
    return own, asked is not None and own.keys() == asked.public(name)


def _not_mine(mine: list[SiteKeys], roster: Roster, *, known: bool) -> PolicyRefused | VerificationFailed:
    fingerprints = {keys.fingerprint() for keys in mine}
    gone = [keys for keys in roster.revoked if keys.fingerprint in fingerprints]
    if gone and not known:
        return PolicyRefused(
            f"a roster that revoked this site's keys on {gone[-1].revoked[:10]}",
            expected="a roster that names this site",
            remedy="Ask the coordinator why. A new invitation makes new keys: 'fedphantom site init' with it.",
        )
    return VerificationFailed(
        "a roster with other keys under this site's name" if known else "a roster without this site",
        expected="the keys of the request that this site made last",
        remedy="Ask the coordinator which request was granted"
        + ("; if it is not this site's, somebody else enrolled in its name: have it revoked." if known else "."),
    )
