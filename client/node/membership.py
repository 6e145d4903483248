"""What a site goes by once it has joined: where the coordinator is, and who else takes part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...common.site_folder import SiteFolder
from .folder import NodeFolder
from .joining import accepted_roster, open_enrolled


@dataclass(frozen=True)
class Membership:
    """The accepted roster and the invitation, in short.

    Attributes:
        address: ``host:port`` of the coordinator's door.
        authority: Certificate of the authority that the door's own is signed by.
        node_key: What the site's node signs in with.
        study_digest: Of the study that the roster is for.
        serial: The roster's.
        fingerprints: Of the keys of every site on it, by name, this one among them.
    """

    address: str
    authority: Path
    node_key: Path
    study_digest: str
    serial: int
    fingerprints: Mapping[str, str]


def read_membership(folder: SiteFolder) -> Membership:
    """How the site stands enrolled.

    Raises:
        ConfigError: it has no invitation, or has not joined.
        SignatureInvalid: its roster or invitation was changed.
    """
    _, node, invitation = open_enrolled(folder.root)
    roster = accepted_roster(node, invitation)
    return Membership(
        address=invitation.address,
        authority=node.authority,
        node_key=NodeFolder(folder.root).keys / "node",
        study_digest=roster.study_digest,
        serial=roster.serial,
        fingerprints={site.name: site.fingerprint() for site in roster.sites},
    )
