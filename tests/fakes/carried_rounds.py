"""A coordinator and hospitals whose rounds are carried by hand: enrolled and approved for real, trained linearly."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from linear_site import LinearTrainer, linear_generator

from fedphantom.client.node.approval import approve, propose
from fedphantom.client.node.file_round import ReplyHandedOut, answer_request, export_reply
from fedphantom.client.node.folder import NodeFolder
from fedphantom.client.node.joining import join
from fedphantom.client.node.keys import make_keys
from fedphantom.client.node.limits import LIMITS_FILE, LIMITS_TEXT
from fedphantom.client.node.setup import make_request
from fedphantom.client.site_round import OpenTrainer
from fedphantom.client.site_setup import create_site_folder, read_egress_rule
from fedphantom.common.atomic import write_atomic
from fedphantom.common.enrolment.invitation import read_invitation
from fedphantom.common.gan.parameters import ParameterSpec
from fedphantom.common.journal import read_journal
from fedphantom.common.site_folder import SiteFolder
from fedphantom.common.study import parse_study
from fedphantom.server.coordinator.coordinator import Coordinator
from fedphantom.server.coordinator.enrolling import enroll, invite, revoke
from fedphantom.server.coordinator.file_rounds import (
    RepliesImported,
    RequestExported,
    export_request,
    import_replies,
)
from fedphantom.server.coordinator.setup import make_coordinator

NOW = datetime(2027, 3, 1, 12, 0, 0, tzinfo=UTC)
SITES = ("site-a", "site-b")


@dataclass(frozen=True)
class Carried:
    """Everybody's folders beside each other: ``lead``, one folder a site, ``cohorts``, and files on their way."""

    root: Path

    @classmethod
    def make(cls, root: Path, text: str, sites: Sequence[str] = SITES) -> Carried:
        root.mkdir(parents=True, exist_ok=True)
        (root / "study.toml").write_text(text)
        make_coordinator(root / "lead", root / "study.toml", "fed.example.org:443", [], 365, None, NOW)
        carried = cls(root)
        for site in sites:
            carried.enrol(site)
        for site in sites:
            carried.join(site)
        return carried

    def copy(self, root: Path) -> Carried:
        """The same elsewhere; cohorts stay where they are."""
        return Carried(Path(shutil.copytree(self.root, root)))

    @property
    def lead(self) -> Path:
        return self.root / "lead"

    def site(self, name: str) -> Path:
        return self.root / name

    def enrol(self, name: str) -> None:
        text = (self.lead / "study.toml").read_text()
        cohort = self.root / "cohorts" / name
        cohort.mkdir(parents=True, exist_ok=True)
        sent = Path(invite(self.lead, name, None, 14, NOW).file)
        spec = ParameterSpec.of(linear_generator(parse_study(text)))
        site = create_site_folder(self.site(name), name, cohort, text, spec, coins_from="system")
        (site.root / LIMITS_FILE).write_text(LIMITS_TEXT.replace("sites = 2 ", "sites = 1 "))
        node = NodeFolder(site.root)
        keys = make_keys(node.keys)
        write_atomic(node.authority, read_invitation(sent)[0].authority.encode())
        write_atomic(node.invitation, sent.read_bytes())
        request = make_request(node, site, keys, None, NOW)
        enroll(self.lead, node.request(name), request.fingerprint(), NOW)

    def join(self, name: str) -> None:
        """By the newest roster, and approve what then stands there."""
        coordinator = Coordinator.open(self.lead)
        join(self.site(name), coordinator.folder.roster, coordinator.fingerprint(), NOW)
        folder = SiteFolder.open(self.site(name))
        proposal = propose(folder, patients=20, reply_bytes=read_egress_rule(folder).max_bytes)
        approve(folder, proposal, proposal.seen.word())

    def revoke(self, name: str) -> None:
        revoke(self.lead, name, "its node was stolen", NOW)

    def export(self, out: Path | None = None) -> RequestExported:
        return export_request(self.lead, out, linear_generator, NOW)

    def train(
        self,
        name: str,
        request: Path | None = None,
        out: Path | None = None,
        open_trainer: OpenTrainer = LinearTrainer.open,
        now: datetime = NOW,
    ) -> Path:
        """The site's reply to a request, by default the one that was written last; returns the file."""
        reply = out or self.root / f"{name}.reply"
        if out is None:
            reply.unlink(missing_ok=True)
        answer_request(self.site(name), request or Path(self.export().file), reply, open_trainer, now)
        return reply

    def export_reply(self, name: str, out: Path) -> ReplyHandedOut:
        return export_reply(self.site(name), out, NOW)

    def take(self, *replies: Path, close: bool = False, now: datetime = NOW) -> RepliesImported:
        return import_replies(self.lead, replies, now, close=close)

    def round(self, sites: Sequence[str] = SITES) -> RepliesImported:
        request = Path(self.export().file)
        return self.take(*[self.train(site, request) for site in sites])

    def run_events(self) -> list[str]:
        return [entry.event for entry in read_journal(self.lead / "run" / "journal.jsonl")]

    def events(self, name: str) -> list[str]:
        return [entry.event for entry in read_journal(self.site(name) / "journal.jsonl")]

    @property
    def generator(self) -> Path:
        return self.lead / "run" / "generator.safetensors"


def later(days: float) -> datetime:
    return NOW + timedelta(days=days)
