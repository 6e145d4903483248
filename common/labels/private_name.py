"""How a private label map is named: by a keyed hash, so that only the site itself can tell whose it is.

A plain hash would let whoever holds a candidate map confirm it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..atomic import write_atomic
from ..errors import ConfigError
from .chain import LabelSource, label_digest

_BYTES = 32


def site_secret(path: Path) -> bytes:
    """The site's secret; made from the operating system's randomness where the file does not exist yet.

    Raises:
        ConfigError: the file does not hold 64 hexadecimal digits.
        StorageError: it cannot be written.
    """
    if not path.exists():
        write_atomic(path, (secrets.token_hex(_BYTES) + "\n").encode(), mode=0o600)
    return known_secret(path)


def known_secret(path: Path) -> bytes:
    """The site's secret as an earlier command made it. Raises ConfigError as :func:`site_secret`."""
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        secret = b""
    if len(secret) != _BYTES:
        raise ConfigError(
            "no site's secret in the file named",
            expected=f"{2 * _BYTES} hexadecimal digits",
            remedy="Name the file that an earlier command made, or a new one.",
        )
    return secret


def private_source(labels: NDArray[np.uint8], secret: bytes) -> LabelSource:
    """The source of a chain that begins with a site's own label map, shape (X, Y, Z)."""
    return _named(label_digest(labels), secret)


def private_scan_source(scan_id: str, secret: bytes) -> LabelSource:
    """The source of a chain that begins with what was inferred from a site's own scan."""
    return _named(scan_id, secret)


def _named(text: str, secret: bytes) -> LabelSource:
    # No digest of voxels: whoever holds a candidate map could confirm it by one.
    name = hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
    return LabelSource(kind="private", name=name, licence="private", sha256="0" * 64)
