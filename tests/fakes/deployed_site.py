"""A site that joined a coordinator of a tiny study, and the coordinator's door with its clock and certificate."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

from enrolment import Study
from tiny_cohorts import tiny_text, write_tiny_cohort

from fedphantom.client.node.approval import approve
from fedphantom.client.node.approval_text import proposal_of
from fedphantom.client.node.joining import join
from fedphantom.client.node.limits import LIMITS_FILE, LIMITS_TEXT
from fedphantom.client.node.setup import init_site
from fedphantom.common.flower_programs import LOOPBACK, free_ports
from fedphantom.common.site_folder import SiteFolder, site_material
from fedphantom.server.coordinator.authority import issue, read_certified
from fedphantom.server.coordinator.coordinator import Coordinator
from fedphantom.server.coordinator.folder import CoordinatorFolder
from fedphantom.server.coordinator.setup import make_coordinator

PATIENT = "Meier-Anna-19610304"
"""Of patients: nothing that may be sent holds it."""


@dataclass(frozen=True)
class Deployed:
    """A site and its coordinator.

    Attributes:
        root: Above both folders.
        port: Where the coordinator's door is to listen.
    """

    root: Path
    port: int

    @property
    def site(self) -> SiteFolder:
        return SiteFolder.open(self.root / "site")

    @property
    def coordinator(self) -> CoordinatorFolder:
        return CoordinatorFolder(self.root / "coordinator")


def deploy(root: Path, patients: int = 4, *, text: str | None = None, days: int = 365) -> Deployed:
    """Both folders, the site joined and its roles drawn; its patients have telling names."""
    now, port = datetime.now(UTC), free_ports(1)[0]
    (root / "study.toml").write_text(text or tiny_text())
    make_coordinator(root / "coordinator", root / "study.toml", f"{LOOPBACK}:{port}", [], days, None, now)
    study = Study(root)
    write_tiny_cohort(root / "cohort", patients, prefix=PATIENT.replace("-", ""))
    (root / "invitation").write_bytes(study.invite("site-a", now=now))
    init_site(
        root / "site", root / "invitation", root / "cohort", None, None, now, lambda name: lambda done, total: None
    )
    study.enroll((root / "site" / "site-a.request.dsse.json").read_bytes(), now=now)
    coordinator = Coordinator.open(root / "coordinator")
    join(root / "site", coordinator.folder.roster, coordinator.fingerprint(), now)
    deployed = Deployed(root, port)
    site_material(deployed.site, deployed.site.study())
    return deployed


def approve_as_it_stands(site: SiteFolder) -> SiteFolder:
    """Approve its study, with limits that a site of four patients keeps."""
    limits = site.root / LIMITS_FILE
    limits.write_text(LIMITS_TEXT.replace("patients = 10 ", "patients = 1 ").replace("sites = 2 ", "sites = 1 "))
    proposal = proposal_of(site)
    approve(site, proposal, proposal.seen.word())
    return site


def issue_door(
    deployed: Deployed, *, begins: float = 0.0, lasts: int = 365, hosts: tuple[str, ...] = (LOOPBACK,)
) -> tuple[Path, Path]:
    """A certificate for the door and its key, by the study's authority; it begins so many days from now."""
    authority = read_certified(
        deployed.coordinator.certificate("sites-ca"), deployed.coordinator.certificate_key("sites-ca")
    )
    paths = deployed.root / "door.crt", deployed.root / "door.key"
    issue(authority, hosts, lasts, datetime.now(UTC) + timedelta(days=begins)).write(*paths)
    return paths


@contextlib.contextmanager
def door(port: int, certificate: Path, key: Path, *, skew_s: float = 0.0, status: int = 200) -> Iterator[list[str]]:
    """Answers GET over TLS with a Date of its own; yields what it was asked."""
    asked: list[str] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response_only(status)
            when = datetime.now(UTC) + timedelta(seconds=skew_s)
            self.send_header("Date", format_datetime(when, usegmt=True))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:  # a client that trusts it not hangs up
            pass

    server = Server((LOOPBACK, port), Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
