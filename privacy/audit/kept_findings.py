"""What attacks and searches found, kept until their audit is written, so that one broken off goes on with the next.

These are scores of single patients: they lie in the audit's folder at the site, for its owner alone, and are removed
with the audit's last line. Each names what it depends on (:mod:`.inputs`); of anything else none is read, and those
that are there are removed when an audit begins.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ...common.atomic import for_owner_alone, write_atomic
from ...common.storage import storage_errors
from ..attacks.once import Arrays

FINDINGS = "findings"
"""Their folder, in the audit's own."""

WORTH_KEEPING_S = 0.2
"""Seconds below which a finding is sooner made again than written."""

_TURN = "turn.json"
_ENDING = ".finding"


@dataclass(frozen=True)
class KeptFindings:
    """Where they lie, and what all of them depend on.

    Attributes:
        folder: Of the audit's own, held by this process alone (``common.folder_lock``).
        inputs: Digest of all that an audit depends on.
    """

    folder: Path
    inputs: str

    def turn(self) -> str | None:
        """Which audit, of these very inputs, was broken off here; None where none was."""
        try:
            kept = json.loads((self.folder / _TURN).read_text(encoding="utf-8"))
            return str(kept["audit"]) if kept["inputs"] == self.inputs else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin(self, audit: str) -> None:
        """An audit begins: whatever another left is gone.

        Raises:
            StorageError: the disk is full, read-only or forbidden.
        """
        with storage_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            for file in self.folder.glob(f"*{_ENDING}"):
                file.unlink()
        for_owner_alone(self.folder)
        content = json.dumps({"audit": audit, "inputs": self.inputs}).encode()
        write_atomic(self.folder / _TURN, content, mode=0o600)

    def once(self, what: str, find: Callable[[], Arrays]) -> Arrays:
        """What an earlier call found, or what is found now, and kept; see :data:`~..attacks.once.Once`.

        Raises:
            StorageError: the disk is full, read-only or forbidden.
        """
        file = self.folder / (hashlib.sha256(what.encode()).hexdigest()[:32] + _ENDING)
        kept = self._read(file)
        if kept is not None and kept[0] == what:
            return kept[1]
        begun = time.monotonic()
        found = find()
        if found and time.monotonic() - begun >= WORTH_KEEPING_S:
            body = io.BytesIO()
            np.savez(body, allow_pickle=False, **found)
            head = {"what": what, "inputs": self.inputs, "sha256": hashlib.sha256(body.getvalue()).hexdigest()}
            write_atomic(file, json.dumps(head).encode() + b"\n" + body.getvalue(), mode=0o600)
        return found

    def finished(self) -> tuple[str, ...]:
        """What is kept, in the order in which it was found."""
        files = sorted(self.folder.glob(f"*{_ENDING}"), key=lambda file: (file.stat().st_mtime_ns, file.name))
        return tuple(kept[0] for file in files if (kept := self._read(file)) is not None)

    def forget(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, file: Path) -> tuple[str, Arrays] | None:
        """What was found and its arrays; None where there is none, a damaged one, or one of other inputs."""
        try:
            head, _, body = file.read_bytes().partition(b"\n")
            facts = json.loads(head)
            if facts["inputs"] != self.inputs or facts["sha256"] != hashlib.sha256(body).hexdigest():
                return None
            with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
                return str(facts["what"]), {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, KeyError, TypeError, BadZipFile):
            return None
