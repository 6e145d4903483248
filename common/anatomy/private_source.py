"""How a label map made of a private scan names its source: by an HMAC with the site's secret, and by nothing else.

Whoever has the secret can find the scan again; nobody else can confirm a guess (DESIGN §4.5).
"""

from __future__ import annotations

import hashlib
import hmac

from ..labels.chain import LabelSource

PRIVATE_LICENCE = "private: for use inside the site"


def private_source(secret: bytes, scan_id: str) -> LabelSource:
    """A source that no release accepts. Its voxels' hash is left out: it would confirm a guessed map."""
    name = hmac.new(secret, scan_id.encode(), hashlib.sha256).hexdigest()
    return LabelSource(kind="private", name=name, licence=PRIVATE_LICENCE, sha256="0" * 64)
