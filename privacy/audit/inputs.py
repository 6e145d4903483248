"""Everything that an audit's figures depend on, in one digest: what was found with one is never taken for another's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib.metadata import version

import numpy as np

from ...common.cohorts.preparation import PreparedScans
from ...common.cohorts.roles import Role
from ...common.round_record import FOLDER as ROUNDS
from ...common.site_folder import SiteFolder

_PARTS = ("numpy", "scipy", "scikit-learn", "torch", "monai")
"""Other people's code that decides what an audit finds."""
_ROWS = 16
"""Scans hashed at once: they lie on the disk."""


def inputs_digest(material: str, facts: Iterable[object]) -> str:
    """SHA-256 (hex) over what an audit reads of patients, by which code, and further facts.

    Args:
        material: From :func:`material_digest`.
        facts: Digests of generator and synthetic set, sizes, thresholds: whatever has a whole ``repr``.
    """
    return hashlib.sha256("".join(f"{fact!r}\n" for fact in (*facts, material)).encode()).hexdigest()


def material_digest(scans: PreparedScans, roles: Sequence[Role], code: str) -> str:
    """SHA-256 (hex) over the scans, voxel by voxel, who holds which role, and the code that reads them.

    Args:
        scans: Of every role that an audit uses.
        roles: Of each scan's patient, as the coin records have it.
        code: Digest of the installed package.
    """
    out = hashlib.sha256()
    for fact in (code, *(f"{part} {version(part)}" for part in _PARTS)):
        out.update(f"{fact}\n".encode())
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
