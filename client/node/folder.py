"""What a deployed site keeps beside what every site does (``common/site_folder``).

invitation.dsse.json    the coordinator's invitation that it came by
authority.crt           from it: the authority that the coordinator's certificate is signed by
keys/                   node, node.pub: what the site's node signs in with (OpenSSH)
keys/identity/          what the site signs with (Ed25519)
keys-next/              the same, asked for and not yet on a roster
NAME.request.dsse.json  the last request that the site made
roster.dsse.json        who takes part, with which keys, as the coordinator signed it
NAME.notice.dsse.json   once it withdrew: its notice to the coordinator
reply.safetensors       without a network: the last reply, as the site signed it
node/                   what the site's SuperNode keeps, its log rotated
log.jsonl               what 'site start' said, rotated (``common/event_log``)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...common.enrolment.invitation import INVITATION_FILE


@dataclass(frozen=True)
class NodeFolder:
    """The paths, in a site's own folder."""

    root: Path

    @property
    def invitation(self) -> Path:
        """What the site came by."""
        return self.root / INVITATION_FILE

    @property
    def authority(self) -> Path:
        """Certificate, PEM; all that the site's node trusts a server by."""
        return self.root / "authority.crt"

    @property
    def keys(self) -> Path:
        """The keys in use."""
        return self.root / "keys"

    @property
    def next_keys(self) -> Path:
        """The keys asked for."""
        return self.root / "keys-next"

    def request(self, site: str) -> Path:
        """The last request."""
        return self.root / f"{site}.request.dsse.json"

    def notice(self, site: str) -> Path:
        """That it withdrew."""
        return self.root / f"{site}.notice.dsse.json"

    @property
    def roster(self) -> Path:
        """The newest roster that the site accepted."""
        return self.root / "roster.dsse.json"

    @property
    def reply(self) -> Path:
        """The last reply that was signed for a coordinator without a network."""
        return self.root / "reply.safetensors"
