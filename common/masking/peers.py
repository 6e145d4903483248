"""Who takes part in a study's sums: each site's public identity key, as a site approved it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..atomic import write_atomic
from ..errors import ConfigError
from ..exchange import check_site_name

_MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Peers:
    """Site name to identity key; no key under two names.

    Raises:
        ConfigError: a name that is none, or one key under two names: its owner could stand for both.
    """

    keys: Mapping[str, Ed25519PublicKey]

    def __post_init__(self) -> None:
        for site in self.keys:
            check_site_name(site)
        if len({key.public_bytes_raw() for key in self.keys.values()}) < len(self.keys):
            raise ConfigError(
                "one identity key under two sites' names",
                expected="a key of its own for every site",
                remedy="Have one of the two sites make new keys.",
            )

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over names and keys; both stand in what sites sign each round."""
        return hashlib.sha256(self._text().encode()).hexdigest()

    def _text(self) -> str:
        return json.dumps({site: self.keys[site].public_bytes_raw().hex() for site in sorted(self.keys)}, indent=1)


def write_peers(path: Path, peers: Peers) -> None:
    """Write the file that :func:`read_peers` reads. Raises StorageError."""
    write_atomic(path, (peers._text() + "\n").encode())


def read_peers(path: Path) -> Peers:
    """Read the sites that were approved.

    Raises:
        ConfigError: there is no such file, or it is not as :func:`write_peers` writes it.
    """
    try:
        with path.open("rb") as file:
            table = json.loads(file.read(_MOST_BYTES))
        return Peers({str(n): Ed25519PublicKey.from_public_bytes(bytes.fromhex(k)) for n, k in table.items()})
    except (OSError, ValueError, TypeError, AttributeError, UnsupportedAlgorithm, RecursionError):
        raise ConfigError(
            f"no readable '{path.name}'",
            expected="the identity keys of all sites of the study, which secure aggregation takes",
            remedy="Have the coordinator's list of sites approved again.",
        ) from None
