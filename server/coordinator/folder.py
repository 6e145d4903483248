"""A coordinator's folder: where everything lies that one study's coordinator keeps.

coordinator.toml   where sites reach it, what it listens on, how long certificates and enrolments hold
study.toml         the study; every invitation holds it
public-start.safetensors  what its training goes out from, where it names one
keys/              the coordinator's own Ed25519 pair: signs invitations and rosters
pki/               two authorities and what they signed: the proxy's certificate, which sites see, and the SuperLink's,
                   which only this machine sees
registry.json      who is invited, enrolled, revoked; registry.json.next while it changes
invitations/       every invitation as it was sent; each holds its token: they are secrets
roster.dsse.json   who takes part with which keys, signed, for the sites
journal.jsonl      what happened; journal.jsonl.head: its last line, so that cut-off lines show
run/               rounds, checkpoints, results
run/generator.dsse.json  which generator they led to and of which sites, signed, for the sites' audits
round-files/       without a network: the request of the round under way, and its replies until it is done
superlink/, nginx/ what those processes keep, their logs rotated
log.jsonl          what 'server start' said, rotated (``common/event_log``)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ...common.errors import ConfigError
from ...common.keys import PRIVATE_KEY_NAME, PUBLIC_KEY_NAME

COORDINATOR_FILE = "coordinator.toml"


@dataclass(frozen=True)
class CoordinatorFolder:
    """Its paths."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> Self:
        """The folder that ``server init`` made. Raises ConfigError where it is none."""
        if not (root / COORDINATOR_FILE).is_file():
            raise ConfigError(
                f"no {COORDINATOR_FILE} at the path given",
                expected="a coordinator's folder",
                remedy="Give the folder that 'fedphantom server init' made.",
            )
        return cls(root)

    @property
    def configuration(self) -> Path:
        """Addresses and validity; a person may edit it."""
        return self.root / COORDINATOR_FILE

    @property
    def study(self) -> Path:
        """The study."""
        return self.root / "study.toml"

    @property
    def public_start(self) -> Path:
        """What training goes out from, where the study names it."""
        return self.root / "public-start.safetensors"

    @property
    def keys(self) -> Path:
        """Folder of the coordinator's own pair."""
        return self.root / "keys"

    @property
    def private_key(self) -> Path:
        """Signs invitations and rosters."""
        return self.keys / PRIVATE_KEY_NAME

    @property
    def public_key(self) -> Path:
        """Its public half."""
        return self.keys / PUBLIC_KEY_NAME

    def certificate(self, name: str) -> Path:
        """Of ``sites-ca``, ``internal-ca``, ``proxy`` or ``link``."""
        return self.root / "pki" / f"{name}.crt"

    def certificate_key(self, name: str) -> Path:
        """The private key that belongs to it."""
        return self.root / "pki" / f"{name}.key"

    @property
    def registry(self) -> Path:
        """Who is invited, enrolled, revoked."""
        return self.root / "registry.json"

    @property
    def roster(self) -> Path:
        """The same for sites: signed, without what is nobody's business."""
        return self.root / "roster.dsse.json"

    @property
    def journal(self) -> Path:
        """What happened."""
        return self.root / "journal.jsonl"

    @property
    def run(self) -> Path:
        """Rounds, checkpoints, results."""
        return self.root / "run"

    @property
    def named_generator(self) -> Path:
        """Which generator the run led to, signed."""
        return self.run / "generator.dsse.json"

    @property
    def superlink(self) -> Path:
        """What the SuperLink keeps."""
        return self.root / "superlink"

    @property
    def nginx(self) -> Path:
        """What the proxy keeps."""
        return self.root / "nginx"

    def invitation(self, digest: str) -> Path:
        """The invitation with this SHA-256."""
        return self.root / "invitations" / f"{digest[:32]}.invitation.dsse.json"

    @property
    def round_files(self) -> Path:
        """Of the round under way, where it goes by files."""
        return self.root / "round-files"

    def round_request(self, number: int) -> Path:
        """The request of a round (1-based), as it was signed."""
        return self.round_files / f"round-{number:05d}.request.safetensors"

    def round_reply(self, number: int, site: str) -> Path:
        """A site's reply to it, as it came."""
        return self.round_files / f"round-{number:05d}.{site}.reply.safetensors"
