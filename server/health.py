"""Whether a SuperLink on this machine answers, by itself or through the proxy before it."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path

from ..common.flower_programs import LOOPBACK


def superlink_answers(port: int, authority: Path | None = None, *, through: str | None = None) -> bool:
    """Ask it over the loopback, or through the proxy that listens on a host of this machine.

    Args:
        port: That it, or the proxy, listens on.
        authority: Certificate of the authority that its own must be signed by; None where it speaks plain text.
        through: The proxy's host; its certificate is for the name by which sites know it, and not for this one.
    """
    connection: http.client.HTTPConnection
    if authority is None:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    else:
        context = ssl.create_default_context(cafile=str(authority))
        context.check_hostname = through is None
        connection = http.client.HTTPSConnection(through or LOOPBACK, port, timeout=2, context=context)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
