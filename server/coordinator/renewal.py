"""Server certificates issued anew, and what else expires when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ...common.in_toto import time_text
from .authority import read_certified
from .coordinator import Coordinator
from .setup import AUTHORITIES, issue_server_certificates


@dataclass(frozen=True)
class Expiry:
    """Something that holds until then.

    Attributes:
        what: Its name: a certificate's, ``site NAME``, ``invitation for NAME``.
        expires: Its last moment, UTC.
        renewed_by: Who mends it, with which command.
        expired: Whether that moment is past.
    """

    what: str
    expires: str
    renewed_by: str
    expired: bool


@dataclass(frozen=True)
class Expiries:
    """All of them, the soonest first."""

    expiries: tuple[Expiry, ...]

    def text(self) -> str:
        """For a terminal."""
        rows = [
            f"{one.expires[:10]}  {one.what:<{max(len(other.what) for other in self.expiries)}}  "
            + (f"EXPIRED; {one.renewed_by}" if one.expired else one.renewed_by)
            for one in self.expiries
        ]
        return "\n".join(("issued new server certificates; restart proxy and SuperLink. What expires when:", *rows))


def renew(root: Path, now: datetime) -> Expiries:
    """Issue new server certificates, each with a new key, by the authorities that sites know already.

    Args:
        root: The coordinator's folder.
        now: In UTC.

    Raises:
        ConfigError: an authority is missing, or expired.
    """
    coordinator = Coordinator.open(root)
    issue_server_certificates(coordinator.folder, coordinator.configuration, now)
    coordinator.write_roster(coordinator.registry.read())
    return Expiries(expiries(coordinator, now))


def expiries(coordinator: Coordinator, now: datetime) -> tuple[Expiry, ...]:
    """What of a coordinator holds until when, the soonest first.

    Raises:
        ConfigError: a certificate is missing.
        VerificationFailed: the registry was changed.
    """
    folder, membership, found = coordinator.folder, coordinator.registry.read(), []
    for authority, server in AUTHORITIES.items():
        for name, how in ((server, "fedphantom server renew"), (authority, "a new study folder, and new invitations")):
            pair = read_certified(folder.certificate(name), folder.certificate_key(name))
            found.append((f"certificate {name}", time_text(pair.certificate.not_valid_after_utc), how))
    found += [(f"site {site.name}", site.expires, "fedphantom site renew, at the site") for site in membership.sites]
    found += [
        (f"invitation for {sent.site}", sent.expires, "fedphantom server invite")
        for sent in membership.invitations
        if sent.state == "open"
    ]
    return tuple(
        Expiry(what, expires, how, expires < time_text(now))
        for what, expires, how in sorted(found, key=lambda row: row[1])
    )
