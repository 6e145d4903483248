"""The many names of one MRI channel, and the order in which channels are listed."""

from __future__ import annotations

import re
from collections.abc import Iterable

CANONICAL = ("T1", "T1c", "T2", "FLAIR")
"""Names every layout shares, in the order cohorts list them; other channels follow alphabetically."""

_ALIASES = {
    "t1": "T1",
    "t1w": "T1",
    "t1n": "T1",
    "t1native": "T1",
    "t1weighted": "T1",
    "t1c": "T1c",
    "t1ce": "T1c",
    "t1cw": "T1c",
    "t1wc": "T1c",
    "t1wce": "T1c",
    "t1gd": "T1c",
    "t1wgd": "T1c",
    "t1km": "T1c",
    "t1post": "T1c",
    "t1contrast": "T1c",
    "t2": "T2",
    "t2w": "T2",
    "t2weighted": "T2",
    "flair": "FLAIR",
    "fla": "FLAIR",
    "flairw": "FLAIR",
    "t2f": "FLAIR",
    "t2flair": "FLAIR",
    "t2wflair": "FLAIR",
}


def known_channel(name: str) -> str | None:
    """T1, T1c, T2 or FLAIR where ``name`` is one of their aliases, whatever its case and separators; else None."""
    return _ALIASES.get(re.sub(r"[^a-z0-9]", "", name.lower()))


def canonical_channel(name: str) -> str:
    """The canonical name of a known alias; any other name in the spelling that ``study.toml`` allows.

    Idempotent. A name without a letter or digit becomes ``channel``.
    """
    known = known_channel(name)
    if known is not None:
        return known
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:32].rstrip("-_") or "channel"


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct names: T1, T1c, T2, FLAIR first, then the rest with numbers in numeric order."""
    rank = {name: position for position, name in enumerate(CANONICAL)}

    def key(name: str) -> tuple[int, tuple[tuple[int, str], ...]]:
        parts = re.findall(r"\d+|\D+", name)
        return rank.get(name, len(rank)), tuple((int(p), "") if p.isdecimal() else (-1, p) for p in parts)

    return tuple(sorted(set(names), key=key))
