"""The registry: the membership's file, each change of it in the journal first, and neither without the other.

A change is written as ``registry.json.next``, then journalled with its hash, then put in place. Cut off after the
journal's line it is put in place by whoever looks next; before it, it never was. So a registry from before a
revocation, put back by accident, is found out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ...common.atomic import sync_folder, write_atomic
from ...common.errors import VerificationFailed
from ...common.journal import Fact, Journal, JournalEntry
from ...common.storage import storage_errors
from .folder import CoordinatorFolder
from .membership import Membership, parse_membership

_NOTED = "registry"
"""Fact of every event that changed the registry: SHA-256 of the file from then on."""


class Registry:
    """One coordinator's; any number of processes may ask and change it."""

    def __init__(self, folder: CoordinatorFolder) -> None:
        self._path, self._journal = folder.registry, Journal(folder.journal)

    def begin(self, membership: Membership, **facts: Fact) -> None:
        """Write the first state, in a folder that has none."""
        self._write(membership, lambda digest: self._journal.append("coordinator-made", **facts, registry=digest))

    def read(self) -> Membership:
        """The state, as the journal knows it.

        Raises:
            VerificationFailed: the file or the journal is missing or was changed, or an older file lies there.
            StorageError: the disk is full, read-only or forbidden.
        """
        with self._journal.held() as journal:
            return self._current(journal.entries())

    def change(self, event: str, change: Callable[[Membership], Membership], **facts: Fact) -> Membership:
        """Change the state; it is on the disk when this returns.

        Args:
            event: What happened, for the journal.
            change: From the state that is found to the new one; what it raises changes nothing.
            facts: The event's particulars.

        Raises:
            VerificationFailed: as :meth:`read`.
            StorageError: likewise.
        """
        with self._journal.held() as journal:
            changed = change(self._current(journal.entries()))
            self._write(changed, lambda digest: journal.append(event, **facts, registry=digest))
        return changed

    @property
    def _next(self) -> Path:
        return self._path.with_name(f"{self._path.name}.next")

    def _write(self, membership: Membership, note: Callable[[str], None]) -> None:
        content = membership.model_dump_json(indent=1).encode() + b"\n"
        write_atomic(self._next, content, mode=0o600)
        note(hashlib.sha256(content).hexdigest())
        self._put_in_place()

    def _put_in_place(self) -> None:
        with storage_errors():
            os.replace(self._next, self._path)
            sync_folder(self._path.parent)

    def _current(self, entries: Sequence[JournalEntry]) -> Membership:
        noted = next((entry.facts[_NOTED] for entry in reversed(entries) if _NOTED in entry.facts), None)
        content = _content(self._path)
        if _digest(content) != noted and _digest(_content(self._next)) == noted:
            self._put_in_place()
            content = _content(self._path)
        if noted is None or _digest(content) != noted:
            raise VerificationFailed(
                "a registry.json other than the one that the journal names last",
                expected="the registry as the last change left it",
                remedy="Restore registry.json and journal.jsonl from the same, newest backup; an older registry may"
                " hold sites that were revoked since.",
            )
        return parse_membership(content)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
