"""A hospital that is made from an invitation, asks, and joins; each step as its command takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from enrolment import NOW, Study
from tiny_cohorts import write_tiny_cohort

from fedphantom.client.node.joining import SiteJoined, join
from fedphantom.client.node.setup import SiteMade, init_site
from fedphantom.server.coordinator.coordinator import Coordinator


def invited(root: Path) -> Path:
    """A coordinator that invited site-a, a cohort for it, and the site's folder; returns what they lie in."""
    study = Study.make(root)
    write_tiny_cohort(root / "cohort", 2)
    (root / "invitation").write_bytes(study.invite("site-a"))
    init(root)
    return root


def init(root: Path, *, site: Path | None = None, **changes: Any) -> SiteMade:
    arguments: dict[str, Any] = {
        "root": root / (site or "site"),
        "invitation_file": root / "invitation",
        "cohort": root / "cohort",
        "ledgers": None,
        "start": None,
        "now": NOW,
        "stage": lambda name: lambda done, total: None,
    }
    return init_site(**(arguments | changes))


def again(root: Path, made: Path, **changes: Any) -> SiteMade:
    return init(root, cohort=made / "cohort", **changes)


def enroll(root: Path, *, now: Any = NOW) -> None:
    Study(root).enroll((root / "site" / "site-a.request.dsse.json").read_bytes(), now=now)


def joined(root: Path, *, now: Any = NOW, roster: Path | None = None, fingerprint: str | None = None) -> SiteJoined:
    coordinator = Coordinator.open(root / "coordinator")
    return join(root / "site", roster or coordinator.folder.roster, fingerprint or coordinator.fingerprint(), now)


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
