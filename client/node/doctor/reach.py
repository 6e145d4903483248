"""What was seen of the coordinator's door, judged: reached, trusted, answering, on the same time, past which proxy."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from ....common.enrolment.address import Address
from ....common.enrolment.certificates import certificate_of
from .door import DoorSeen, proxy_for
from .finding import Outcome, green, red, yellow

SKEW_YELLOW_S = 30.0
SKEW_RED_S = 240.0
"""A SuperLink takes a node's signature for 300 s (flwr 1.41)."""
SOON = timedelta(days=30)

_SEE_ABOVE = "See 'coordinator reached'."


def check_reached(address: Address, seen: DoorSeen) -> Outcome:
    """Whether there is a connection at all."""
    if seen.stage == "unreached":
        return red(
            f"{address} is not reached: {seen.why}",
            "Ask the hospital's network for outgoing TCP to it, or the coordinator whether 'server start' runs.",
        )
    return green(f"{address} is reached" + (" through the HTTP proxy" if seen.proxied else ""))


def check_certificate(seen: DoorSeen, authority: Path, now: datetime) -> Outcome:
    """Whether the door's certificate and its authority hold, and for how long.

    Raises:
        ValueError: the authority's certificate cannot be read.
    """
    if seen.stage == "unreached":
        return yellow("not known: the coordinator was not reached", _SEE_ABOVE)
    if seen.stage == "untrusted" or seen.expires is None:
        return red(
            seen.why or "it shows none",
            "Set this machine's clock; see that no proxy opens TLS on the way; else the coordinator renews it"
            " ('fedphantom server renew').",
        )
    pinned = certificate_of(authority.read_bytes()).not_valid_after_utc
    end = min(seen.expires, pinned)
    said = f"signed by the study's own authority, holds until {end:%Y-%m-%d}"
    if end - now < SOON:
        return yellow(
            said,
            "Ask the coordinator to run 'fedphantom server renew'."
            if seen.expires < pinned
            else "The study's authority itself ends: ask the coordinator for a new study and invitation.",
        )
    return green(said)


def check_answer(seen: DoorSeen) -> Outcome:
    """Whether the coordinator's SuperLink answers behind its door."""
    if seen.stage in ("unreached", "untrusted"):
        return yellow("not known: there is no trusted connection", _SEE_ABOVE)
    if seen.status == 200:
        return green("GET /health is answered with 200")
    said = f"GET /health is answered with {seen.status}" if seen.status else seen.why
    return red(said, "Tell the coordinator: the door is there, but no SuperLink behind it.")


def check_clock(seen: DoorSeen) -> Outcome:
    """Whether this machine's clock agrees with the coordinator's."""
    if seen.skew_s is None:
        return yellow("not known: the coordinator told no time", _SEE_ABOVE)
    off = abs(seen.skew_s)
    said = f"{off:.0f} s {'behind' if seen.skew_s > 0 else 'ahead of'} the coordinator's"
    fix = "Set this machine's clock by NTP (timedatectl); if it is right, tell the coordinator."
    if off >= SKEW_RED_S:
        return red(f"{said}; beyond 300 s nothing that this site signs is taken", fix)
    return yellow(said, fix) if off >= SKEW_YELLOW_S else green(said)


def check_proxy(address: Address, outside: Mapping[str, str], node: Mapping[str, str]) -> Outcome:
    """Whether an HTTP proxy stands between, and sees no loopback request.

    Args:
        address: Of the invitation.
        outside: This process's environment.
        node: The SuperNode's.
    """
    if not any(outside.get(name) or outside.get(name.lower()) for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")):
        return green("none is set")
    passed = "is asked for the coordinator" if proxy_for(address, node) else "is passed by for the coordinator"
    if proxy_for(Address("127.0.0.1", 1), node):
        return red(
            "an HTTP proxy would see the node's own loopback requests",
            "Put 127.0.0.1 and localhost into NO_PROXY.",
        )
    if proxy_for(Address("127.0.0.1", 1), outside):
        return yellow(
            f"an HTTP proxy {passed}; NO_PROXY lacks the loopback, which the node's own processes add",
            "Put 127.0.0.1 and localhost into NO_PROXY for whatever else runs here.",
        )
    return green(f"an HTTP proxy {passed}, and by-passed on the loopback")
