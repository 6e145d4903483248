"""Names for patients and studies that only the site can tie to them: keyed hashes of their identifiers.

The same secret gives the same names in every import, so that a patient's later scans join the earlier ones.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Literal

_LENGTH = {"patient": 16, "study": 8}
"""Characters of five bits: no two of a million patients share a name with a probability above 1e-12."""


def pseudonym(kind: Literal["patient", "study"], identifier: str, secret: bytes) -> str:
    """Lower-case letters and the digits 2 to 7, as BIDS allows them; no date or record number can look like it."""
    digest = hmac.new(secret, f"dicom {kind}\0{identifier}".encode(), hashlib.sha256).digest()
    return base64.b32encode(digest).decode().lower()[: _LENGTH[kind]]
