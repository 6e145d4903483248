"""A new coordinator: keys, two authorities, server certificates, and an empty registry for one study."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ...common.atomic import atomic_folder, for_owner_alone, write_atomic
from ...common.errors import about
from ...common.flower_programs import LOOPBACK
from ...common.in_toto import time_text
from ...common.keys import generate_key
from ...common.study import Study, parse_study, read_study_text
from .authority import Certified, issue, make_authority, read_certified
from .configuration import CoordinatorTable, new_configuration
from .coordinator import Coordinator
from .folder import CoordinatorFolder
from .membership import Membership
from .registry import Registry

AUTHORITY_DAYS = 3650
"""Sites trust an authority from their invitation on, and would all have to be told of another."""
AUTHORITIES = {"sites-ca": "proxy", "internal-ca": "link"}
"""Authority to the server certificate that it signs."""


@dataclass(frozen=True)
class CoordinatorMade:
    """What ``server init`` made.

    Attributes:
        folder: Where.
        study: The study's name.
        study_digest: Its digest.
        address: Where sites will reach it.
        fingerprint: Of the coordinator's key.
        certificates_expire: When server certificates do, UTC.
    """

    folder: str
    study: str
    study_digest: str
    address: str
    fingerprint: str
    certificates_expire: str

    def text(self) -> str:
        """For a terminal."""
        folder = shlex.quote(self.folder)
        return "\n".join(
            (
                f"made the coordinator of '{self.study}' ({self.study_digest[:16]}) in {self.folder}; sites will reach"
                f" it at {self.address}",
                f"fingerprint of its key, to read out to every site: {self.fingerprint}",
                f"private keys lie in {self.folder}/keys and {self.folder}/pki, without a password: keep the folder to"
                " yourself, and back it up",
                f"server certificates expire on {self.certificates_expire[:10]}; 'fedphantom server renew {folder}'"
                " issues new ones",
                f"next: fedphantom server invite {folder} NAME",
            )
        )


def make_coordinator(
    out: Path, study: Path, address: str, also: Sequence[str], days: int, start: Path | None, now: datetime
) -> CoordinatorMade:
    """Make the folder whole, or not at all.

    Args:
        out: A new folder.
        study: The study's file; copied.
        address: ``HOST:PORT`` at which sites will reach the coordinator.
        also: Further names and IP addresses of that host.
        days: How long server certificates and enrolments hold.
        start: The public start file, where the study goes out from one; copied.
        now: In UTC.

    Raises:
        ConfigError: a study, a public start or an address that does not hold.
        OutputTaken: the folder is there and not empty.
        StorageError: the disk is full, read-only or forbidden.
    """
    with about("--study"):
        text = read_study_text(study)
        digest = parse_study(text).digest()
    beginning = _public_start(parse_study(text), start)
    configuration = new_configuration(address, tuple(also), days)
    with about("DIR"), atomic_folder(out) as root:
        for_owner_alone(root)
        folder = CoordinatorFolder(root)
        write_atomic(folder.study, text.encode())
        if beginning is not None:
            write_atomic(folder.public_start, beginning)
        generate_key(folder.keys)
        for name in AUTHORITIES:
            make_authority(f"{parse_study(text).name} {name}", AUTHORITY_DAYS, now).write(
                folder.certificate(name), folder.certificate_key(name)
            )
        issued = issue_server_certificates(folder, configuration, now)
        membership = Membership(study_digest=digest, changed=time_text(now))
        Registry(folder).begin(membership, study=digest, address=configuration.address)
        write_atomic(folder.configuration, configuration.to_toml().encode())
        coordinator = Coordinator.open(root)
        coordinator.write_roster(membership)
        return CoordinatorMade(
            folder=str(out),
            study=coordinator.study().name,
            study_digest=digest,
            address=configuration.address,
            fingerprint=coordinator.fingerprint(),
            certificates_expire=time_text(issued["proxy"].certificate.not_valid_after_utc),
        )


def _public_start(study: Study, start: Path | None) -> bytes | None:
    """The public start's bytes, once it was found to be the study's; None where the study needs none."""
    if not study.from_public_start and start is None:
        return None
    # Here, so that a coordinator of another study does not wait for torch.
    from ...common.gan.public_start import first_parameters
    from ...common.site_folder import PUBLIC_START

    first_parameters(study, start)
    return (start or Path(PUBLIC_START)).read_bytes()


def issue_server_certificates(
    folder: CoordinatorFolder, configuration: CoordinatorTable, now: datetime
) -> dict[str, Certified]:
    """Issue the proxy's and the SuperLink's certificates anew, each by its authority. Returns them by name.

    Raises:
        ConfigError: an authority is missing, or expired.
    """
    hosts = {"proxy": configuration.hosts, "link": ("localhost", LOOPBACK)}
    issued = {}
    for authority, name in AUTHORITIES.items():
        signer = read_certified(folder.certificate(authority), folder.certificate_key(authority))
        issued[name] = issue(signer, hosts[name], configuration.valid_days, now)
        issued[name].write(folder.certificate(name), folder.certificate_key(name))
    return issued
