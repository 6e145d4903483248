"""A coordinator of a tiny study and sites that ask to be enrolled, without cohorts: keys and files alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tiny_cohorts import tiny_text

from fedphantom.client.node.keys import KeyPair
from fedphantom.common.enrolment.invitation import open_invitation
from fedphantom.common.enrolment.request import RequestContent, open_request, sign_request
from fedphantom.common.enrolment.roster import ROSTER, Roster
from fedphantom.common.enrolment.signed_file import file_digest, opened
from fedphantom.common.enrolment.site_keys import new_node_key
from fedphantom.common.in_toto import time_text
from fedphantom.common.journal import read_journal
from fedphantom.common.keys import load_public_key
from fedphantom.common.signing import sign, unverified
from fedphantom.server.coordinator.coordinator import Coordinator
from fedphantom.server.coordinator.enrolling import SiteChanged, enroll, invite, revoke
from fedphantom.server.coordinator.folder import CoordinatorFolder
from fedphantom.server.coordinator.membership import Membership
from fedphantom.server.coordinator.setup import make_coordinator

NOW = datetime(2027, 3, 1, 12, 0, 0, tzinfo=UTC)


def new_keys() -> KeyPair:
    return KeyPair(new_node_key(), Ed25519PrivateKey.generate())


@dataclass(frozen=True)
class Study:
    """A coordinator's folder and, beside it, what is handed about."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "coordinator"

    @classmethod
    def make(cls, root: Path, *, days: int = 365, text: str | None = None) -> Study:
        study = root / "study.toml"
        study.write_text(text or tiny_text())
        make_coordinator(root / "coordinator", study, "fed.example.org:443", ["10.0.0.1"], days, None, NOW)
        return cls(root)

    def invite(self, name: str, *, days: int = 14, now: datetime = NOW) -> bytes:
        return Path(invite(self.folder, name, None, days, now).file).read_bytes()

    def request(
        self,
        invitation: bytes,
        keys: KeyPair,
        *,
        replaced: KeyPair | None = None,
        created: datetime = NOW,
        changes: dict[str, object] | None = None,
    ) -> bytes:
        """By this invitation, with parts of the content changed before every key signs it."""
        said = open_invitation(invitation)
        content = RequestContent(
            study_digest=said.study_digest,
            keys=keys.public(said.site),
            invitation=file_digest(invitation),
            token=said.token,
            created=time_text(created),
            renews=replaced is not None,
        )
        content = RequestContent.model_validate(content.model_dump() | (changes or {}))
        return sign_request(content, keys.node, keys.identity, replaced.identity if replaced else None)

    def enroll(self, request: bytes, *, now: datetime = NOW, fingerprint: str | None = None) -> SiteChanged:
        path = self.root / "request"
        path.write_bytes(request)
        return enroll(self.folder, path, fingerprint or open_request(request).fingerprint(), now)

    def enrolled(self, name: str, keys: KeyPair, *, now: datetime = NOW) -> bytes:
        """Invite, ask and enrol; returns the invitation."""
        invitation = self.invite(name, now=now)
        self.enroll(self.request(invitation, keys, created=now), now=now)
        return invitation

    def revoke(self, name: str, *, now: datetime = NOW) -> SiteChanged:
        return revoke(self.folder, name, "its node was stolen", now)

    def membership(self) -> Membership:
        return Coordinator.open(self.folder).registry.read()

    def roster(self) -> Roster:
        folder = CoordinatorFolder(self.folder)
        return opened(ROSTER, folder.roster.read_bytes(), [load_public_key(folder.public_key)])

    def events(self) -> list[str]:
        """Of the coordinator's journal."""
        return [entry.event for entry in read_journal(CoordinatorFolder(self.folder).journal)]

    def active(self, now: datetime = NOW) -> list[str]:
        return [site.name for site in self.membership().active(now)]


def days(number: float) -> timedelta:
    return timedelta(days=number)


def signed_again(envelope: bytes, key: Ed25519PrivateKey, **changes: object) -> bytes:
    """What an envelope says with parts of its predicate changed, signed by this key."""
    statement = json.loads(unverified(envelope)[1])
    statement["predicate"] |= changes
    return sign(json.dumps(statement, separators=(",", ":"), ensure_ascii=False).encode(), key)
