"""How a label map made of a private scan names its source: by an HMAC with the site's secret, and by nothing else.

Whoever has the secret can find the scan again; nobody else can confirm a guess (DESIGN §4.5).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

from ..atomic import write_atomic
from ..errors import ConfigError
from ..labels.chain import LabelSource

SECRET_BYTES = 32
PRIVATE_LICENCE = "private: for use inside the site"


def site_secret(path: Path) -> bytes:
    """The secret at ``path``; drawn and written there first, readable by its owner alone, where there is none.

    Raises:
        ConfigError: a file that holds no such secret.
        StorageError: it cannot be written.
    """
    if not path.exists():
        write_atomic(path, secrets.token_hex(SECRET_BYTES).encode(), mode=0o600)
    try:
        found = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        found = b""
    if len(found) != SECRET_BYTES:
        raise ConfigError(
            "no site's secret in the file named",
            expected=f"{2 * SECRET_BYTES} hexadecimal digits, as FedPhantom writes them",
            remedy="Name the site's own file, or a new one, with --secret.",
        )
    return found


def private_source(secret: bytes, scan_id: str) -> LabelSource:
    """A source that no release accepts. Its voxels' hash is left out: it would confirm a guessed map."""
    name = hmac.new(secret, scan_id.encode(), hashlib.sha256).hexdigest()
    return LabelSource(kind="private", name=name, licence=PRIVATE_LICENCE, sha256="0" * 64)
