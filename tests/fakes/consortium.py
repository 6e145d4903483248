"""Two sites that approve one release of a generator that both trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from officers import LAST_DAY, OFFICERS, SECONDS, STRANGER, a_site, key_files, policy_text
from tiny_release import KEY, STUDY, Releasable

from fedphantom.cli import run as fedphantom
from fedphantom.common.journal import read_journal, verify_journal
from fedphantom.common.keys import key_id
from fedphantom.privacy.policy import parse_policy
from fedphantom.privacy.release.approval import approval_file

SITES = tuple(OFFICERS)
EVERYONE = {"packer": KEY, **OFFICERS, **{f"{site}-second": key for site, key in SECONDS.items()}, "stranger": STRANGER}


@dataclass(frozen=True)
class Consortium:
    """A packed release, and two sites with their keys, policies and copies of it."""

    root: Path

    def key(self, who: str) -> str:
        return str(self.root / "keys" / f"{who}.pem")

    def public(self, *who: str) -> list[str]:
        return [word for one in who for word in ("--key", str(self.root / "keys" / f"{one}.pub.pem"))]

    @property
    def release(self) -> Path:
        return self.root / "release"

    def site(self, name: str) -> Path:
        return self.root / name

    def approve(self, site: str, *more: str, who: str | None = None, release: Path | None = None) -> int:
        line = ["release", "approve", str(release or self.release), "--key", self.key(who or site)]
        line += ["--policy", str(self.root / f"{site}.toml"), "--site", str(self.site(site))]
        return fedphantom([*line, "--packed-by", str(self.root / "keys" / "packer.pub.pem"), *more])

    def verify(self, *who: str) -> int:
        return fedphantom(["release", "verify", str(self.release), "--json", *self.public("packer", *who)])

    def approval(self, who: str) -> Path:
        return self.release / approval_file(key_id(EVERYONE[who].public_key()))

    def events(self, site: str) -> list[str]:
        verify_journal(self.site(site) / "journal.jsonl")
        return [entry.event for entry in read_journal(self.site(site) / "journal.jsonl")]


def consort(
    root: Path, releasable: Releasable, heads: dict[str, str], expires: str = LAST_DAY, **changes: Any
) -> Consortium:
    texts = {site: policy_text(site, heads.get(site, 'tier = "internal"'), expires=expires) for site in SITES}
    for name, key in EVERYONE.items():
        key_files(root / "keys", name, key)
    for site, text in texts.items():
        (root / f"{site}.toml").write_text(text)
        a_site(root / site, site, STUDY, [releasable.audit.read_bytes()])
    releasable.pack(out=root / "release", policies=[parse_policy(text) for text in texts.values()], **changes)
    return Consortium(root)
