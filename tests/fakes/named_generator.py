"""A coordinator's statement for a site of a simulated run, which never joined anybody."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedphantom.common.enrolment.named_generator import NAMED_GENERATOR, NamedGenerator
from fedphantom.common.enrolment.signed_file import signed
from fedphantom.common.gan.parameters import parameters_digest
from fedphantom.common.gan.weights import load_weights, study_of
from fedphantom.common.keys import load_private_key
from fedphantom.server.coordinator.coordinator import Coordinator
from fedphantom.server.coordinator.enrolling import invite
from fedphantom.server.coordinator.setup import make_coordinator

NOW = datetime(2027, 3, 1, 12, 0, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Naming:
    """A coordinator of the study of a run, who invited its sites."""

    lead: Path

    @classmethod
    def of(cls, root: Path, run: Path) -> Naming:
        make_coordinator(root, run / "study.toml", "fed.example.org:443", [], 365, None, NOW)
        for site in sorted((run / "sites").iterdir()):
            shutil.copy(invite(root, site.name, None, 14, NOW).file, site / "invitation.dsse.json")
        return cls(root)

    def statement(self, out: Path, generator: Path, **changes: Any) -> Path:
        """That both sites' rounds made this generator; or something else."""
        parameters, metadata = load_weights(generator)
        said = {
            "study_digest": study_of(metadata).digest(),
            "parameters": parameters_digest(parameters),
            "rounds": 1,
            "sites": ("site-a", "site-b"),
        }
        key = load_private_key(Coordinator.open(self.lead).folder.private_key)
        out.write_bytes(signed(NAMED_GENERATOR, NamedGenerator(**(said | changes)), key))
        return out
