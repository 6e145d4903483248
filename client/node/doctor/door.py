"""The coordinator's door as this machine sees it: reached or not, by which certificate, with which clock.

One connection, made as the site's SuperNode makes it: through the HTTP proxy that the environment names, trusting the
study's own authority alone.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # public in CPython, not in the stub

from ....common.enrolment.address import Address

ANSWER_S = 10.0
"""How long each step of the connection may take."""

Stage = Literal["unreached", "untrusted", "silent", "answered"]

_CERTIFICATE = {
    9: "its certificate does not hold yet, by this machine's clock",
    10: "its certificate, or the authority's, has expired by this machine's clock",
    18: "its certificate is signed by itself",
    19: "its certificate is signed by another authority than the study's",
    20: "its certificate is signed by another authority than the study's",
    62: "its certificate is for another name than the invitation's",
    64: "its certificate is for another address than the invitation's",
}
"""OpenSSL's X509_V_ERR numbers."""


@dataclass(frozen=True)
class DoorSeen:
    """What was seen.

    Attributes:
        stage: How far it came.
        why: In words, where it came no further.
        expires: Last moment of the door's certificate.
        status: Of the answer to ``GET /health``.
        skew_s: The coordinator's clock minus this one, in seconds, to about one.
        proxied: Whether an HTTP proxy stood between.
    """

    stage: Stage
    why: str = ""
    expires: datetime | None = None
    status: int | None = None
    skew_s: float | None = None
    proxied: bool = False


def proxy_for(address: Address, environment: Mapping[str, str]) -> SplitResult | None:
    """The HTTP proxy through which a process with this environment reaches the address; None where it goes directly."""
    found = {name: environment.get(name.lower()) or environment.get(name) for name in ("HTTPS_PROXY", "NO_PROXY")}
    proxy = found["HTTPS_PROXY"]
    if not proxy or proxy_bypass_environment(str(address), {"no": found["NO_PROXY"] or ""}):
        return None
    return urlsplit(proxy if "//" in proxy else f"http://{proxy}")


def look_at_door(address: Address, authority: Path, environment: Mapping[str, str]) -> DoorSeen:
    """Connect, look at the certificate, ask ``GET /health``.

    Args:
        address: Of the invitation.
        authority: Certificate of the only authority that is trusted.
        environment: Of the SuperNode's process.
    """
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except (OSError, ssl.SSLError):
        return DoorSeen("untrusted", "the authority's certificate in the site's folder cannot be read")
    try:
        connection = _connection(address, context, proxy_for(address, environment))
    except ValueError:
        return DoorSeen("unreached", "HTTPS_PROXY is not the address of an HTTP proxy")
    proxied = connection.host != address.host or connection.port != address.port
    try:
        connection.connect()
        certificate = connection.sock.getpeercert() or {}
        expires = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
    except ssl.SSLCertVerificationError as error:
        return DoorSeen(
            "untrusted", _CERTIFICATE.get(error.verify_code, "its certificate does not hold"), None, proxied=proxied
        )
    except ssl.SSLError:
        return DoorSeen("untrusted", "what answers there does not speak TLS", proxied=proxied)
    except (OSError, http.client.HTTPException) as error:
        return DoorSeen("unreached", _unreached(error, proxied=proxied), proxied=proxied)
    try:
        before = datetime.now(UTC)
        connection.request("GET", "/health")
        answer = connection.getresponse()
        middle = before + (datetime.now(UTC) - before) / 2
    except (OSError, http.client.HTTPException):
        return DoorSeen("silent", "no answer to GET /health", expires, proxied=proxied)
    finally:
        connection.close()
    return DoorSeen("answered", "", expires, answer.status, _skew(answer.getheader("Date"), middle), proxied)


def _connection(address: Address, context: ssl.SSLContext, proxy: SplitResult | None) -> http.client.HTTPSConnection:
    if proxy is None:
        return http.client.HTTPSConnection(address.host, address.port, timeout=ANSWER_S, context=context)
    if proxy.scheme != "http" or not proxy.hostname:
        raise ValueError("no HTTP proxy")
    connection = http.client.HTTPSConnection(proxy.hostname, proxy.port or 80, timeout=ANSWER_S, context=context)
    headers = {}
    if proxy.username:
        secret = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(secret).decode()}"
    connection.set_tunnel(address.host, address.port, headers)
    return connection


def _unreached(error: Exception, *, proxied: bool) -> str:
    """In words; the system's own text may name machines of the hospital's."""
    if isinstance(error, socket.gaierror):
        return "the name of the HTTP proxy is not known here" if proxied else "its name is not known here (DNS)"
    if isinstance(error, TimeoutError):
        return f"no answer in {ANSWER_S:.0f} s"
    if isinstance(error, ConnectionRefusedError):
        return "the HTTP proxy refuses connections" if proxied else "nothing listens there"
    return "the HTTP proxy lets no connection through" if proxied else "no way to it, or the connection was cut"


def _skew(date: str | None, here: datetime) -> float | None:
    with suppress(TypeError, ValueError):
        # The header counts whole seconds, rounded down: half a second more is as likely as not.
        return (parsedate_to_datetime(str(date)) - here).total_seconds() + 0.5
    return None
