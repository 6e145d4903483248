"""A deployed coordinator, opened: its folder, settings, study, registry, and what it signs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ...common.atomic import write_atomic
from ...common.enrolment.invitation import coordinator_fingerprint
from ...common.enrolment.roster import ROSTER
from ...common.enrolment.signed_file import opened, signed
from ...common.enrolment.site_keys import identity_pem
from ...common.errors import FedPhantomError, VerificationFailed, about
from ...common.keys import load_private_key
from ...common.study import Study, parse_study, read_study_text
from .configuration import CoordinatorTable, read_configuration
from .folder import CoordinatorFolder
from .membership import Membership
from .registry import Registry


@dataclass(frozen=True)
class Coordinator:
    """What every command of the coordinator begins with."""

    folder: CoordinatorFolder
    configuration: CoordinatorTable
    study_text: str
    registry: Registry

    @classmethod
    def open(cls, root: Path) -> Self:
        """Read the folder.

        Raises:
            ConfigError: no such folder, or settings or a study that do not hold.
            VerificationFailed: another study than the folder was made for, or a registry that was changed.
        """
        with about("DIR"):
            folder = CoordinatorFolder.open(root)
            text, registry = read_study_text(folder.study), Registry(folder)
            if parse_study(text).digest() != registry.read().study_digest:
                raise VerificationFailed(
                    "another study.toml than the one that the folder was made for",
                    expected="the study that every site's invitation holds",
                    remedy="Put it back. A changed study is another study: make it a folder of its own.",
                )
            coordinator = cls(folder, read_configuration(folder.configuration), text, registry)
            coordinator.refresh_roster()
            return coordinator

    def study(self) -> Study:
        """The study."""
        return parse_study(self.study_text)

    def public_pem(self) -> str:
        """The key that signs invitations and rosters."""
        return identity_pem(load_private_key(self.folder.private_key).public_key())

    def fingerprint(self) -> str:
        """Of that key: what the coordinator reads out."""
        return coordinator_fingerprint(self.public_pem())

    def refresh_roster(self) -> None:
        """Write the roster again where it is older than the registry: a change was killed before it came to that."""
        membership = self.registry.read()
        if self._roster_serial() < membership.serial:
            self.write_roster(membership)

    def _roster_serial(self) -> int:
        """Of the roster that lies there; -1 where none does that this coordinator signed."""
        key = load_private_key(self.folder.private_key).public_key()
        try:
            return opened(ROSTER, self.folder.roster.read_bytes(), [key]).serial
        except (OSError, FedPhantomError):
            return -1

    def write_roster(self, membership: Membership) -> Path:
        """Sign the state for the sites. Returns the file's path."""
        key = load_private_key(self.folder.private_key)
        write_atomic(self.folder.roster, signed(ROSTER, membership.roster(), key))
        return self.folder.roster
