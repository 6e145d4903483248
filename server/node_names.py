"""Which site a connected node is: by the public key that it proved to the SuperLink, never by what it says.

A ServerApp learns of each connected node its :class:`NodeInfo`, the key that it was registered with among it; the
SuperLink lets a node in only if it signs with that key (SuperNode authentication). Its ``name`` is what somebody typed
at registration, and is not used.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
    load_ssh_public_key,
)
from flwr.serverapp import Grid

from ..common.errors import ConfigError


def sites_of_nodes(grid: Grid, sites_by_key: Mapping[str, str]) -> dict[int, str]:
    """Connected nodes of enrolled sites, by identifier.

    Args:
        grid: Asked now: who is connected changes.
        sites_by_key: OpenSSH public key, the text of a ``.pub`` file, to the site's name. Revoked keys are not in it.

    Raises:
        ConfigError: a key that is none, or one that stands for two sites.
    """
    registered: dict[bytes, str] = {}
    for key, site in sites_by_key.items():
        point = _point(key.encode())
        if point is None or registered.setdefault(point, site) != site:
            raise ConfigError(
                f"the node key of site '{site}' is not readable, or also another site's",
                expected="one OpenSSH public key for each enrolled site",
                remedy="Enrol the site again.",
            )
    found = ((node.node_id, registered.get(_point(node.public_key) or b"")) for node in grid.get_nodes())
    return {node: site for node, site in found if site is not None}


def _point(key: bytes) -> bytes | None:
    """The key itself, however it is written (OpenSSH, or PEM as the SuperLink has it); None for anything else."""
    load = load_pem_public_key if key.startswith(b"-----BEGIN") else load_ssh_public_key
    try:
        return load(key).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        return None
