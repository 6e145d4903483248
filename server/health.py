"""Whether a SuperLink on this machine answers."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path

from ..common.flower_programs import LOOPBACK


def superlink_answers(port: int, authority: Path | None = None) -> bool:
    """Ask it over the loopback.

    Args:
        port: That it listens on.
        authority: Certificate of the authority that its own must be signed by; None where it speaks plain text.
    """
    connection: http.client.HTTPConnection
    if authority is None:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    else:
        context = ssl.create_default_context(cafile=str(authority))
        connection = http.client.HTTPSConnection(LOOPBACK, port, timeout=2, context=context)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
