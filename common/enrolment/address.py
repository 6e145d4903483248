"""Where a coordinator is reached: a host and a port."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True)
class Address:
    """A host as a name or an IP address, and its port.

    >>> str(Address.parse("Fed.Example:443")), str(Address.parse("[2001:db8::1]:9443"))
    ('fed.example:443', '[2001:db8::1]:9443')
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``HOST:PORT``, an IPv6 address in brackets. Raises ValueError for anything else."""
        host, colon, port = text.rpartition(":")
        if not colon or not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
            raise ValueError("write HOST:PORT, for example fed.example.org:443, or [2001:db8::1]:443")
        inside = host[1:-1] if host.startswith("[") and host.endswith("]") else None
        if (":" in host) != (inside is not None):
            raise ValueError("write an IPv6 address, and nothing else, in brackets: [2001:db8::1]:443")
        return cls(host_name(inside or host), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def host_name(text: str) -> str:
    """A host's name or IP address in its one spelling. Raises ValueError for anything else."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        name = text.lower()
    if not _NAME.fullmatch(name) or name.rpartition(".")[2].isdigit():
        raise ValueError("a host is a name of letters, digits, hyphens and dots, or an IP address")
    return name
