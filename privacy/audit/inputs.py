"""Everything that an audit's figures depend on, in one digest: what was found with one is never taken for another's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ...common.cohorts.preparation import PreparedScans
from ...common.cohorts.roles import Role
from ...common.round_record import FOLDER as ROUNDS
from ...common.site_folder import SiteFolder

_ROOMS = ("common", "privacy")
"""Whose code decides what an audit finds."""
_PARTS = ("numpy", "scipy", "scikit-learn", "torch", "monai")
"""And other people's."""
_ROWS = 16
"""Scans hashed at once: they lie on the disk."""


def inputs_digest(scans: PreparedScans, roles: Sequence[Role], facts: Iterable[object]) -> str:
    """SHA-256 (hex) over the scans, who holds which role, the code, and further facts.

    Args:
        scans: Of every role that an audit uses.
        roles: Of each scan's patient, as the coin records have it.
        facts: Digests of generator and synthetic set, sizes, thresholds: whatever has a whole ``repr``.
    """
    out = hashlib.sha256()
    for fact in (*facts, _code(), *(f"{part} {version(part)}" for part in _PARTS)):
        out.update(f"{fact!r}\n".encode())
    out.update("\0".join((*scans.patients, *scans.sites, *roles)).encode())
    for array in (scans.volumes, scans.classes, scans.headers):
        out.update(f"{array.shape} {array.dtype}\n".encode())
        for first in range(0, len(array), _ROWS):
            out.update(np.ascontiguousarray(array[first : first + _ROWS]).tobytes())
    return out.hexdigest()


def insiders_digest(folders: Sequence[SiteFolder]) -> str:
    """SHA-256 (hex) over what insiders and the coordinator saw, as the sites' folders keep it."""
    out = hashlib.sha256()
    for folder in folders:
        for path in (folder.committed, *sorted((folder.root / ROUNDS).glob("*.safetensors"))):
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none"
            out.update(f"{folder.name} {path.name} {digest}\n".encode())
    return out.hexdigest()


def _code() -> str:
    package, out = Path(__file__).parents[2], hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((package / room).rglob("*.py")):
            content = path.read_bytes()
            out.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode() + content)
    return out.hexdigest()
