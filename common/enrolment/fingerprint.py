"""Fingerprints of public bytes that two people read to each other: five groups of five letters, 125 bits.

Source: alphabet and what is forgiven of it as in Crockford's base 32 (https://www.crockford.com/base32.html).
"""

from __future__ import annotations

import hashlib
import hmac
import re

from ..errors import ConfigError, SignatureInvalid

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_GROUP, _GROUPS = 5, 5
_LETTERS = _GROUP * _GROUPS
_BITS = 5
_MISREAD = str.maketrans("OIL", "011")
_BETWEEN = re.compile(r"[\s\u2010-\u2015-]+")
"""Spaces and hyphens, also those that a mail program puts in a hyphen's place."""


def fingerprint(what: str, *parts: bytes) -> str:
    """The fingerprint of something's public parts, e.g. ``4Z9QK-0H3TB-XV2MD-7RWEC-P15GY``.

    Args:
        what: A word for it: the same bytes as something else have another fingerprint.
        parts: In a fixed order; each is hashed with its length, so none can run into the next.
    """
    digest = hashlib.sha256()
    for part in (what.encode(), *parts):
        digest.update(len(part).to_bytes(8, "big") + part)
    number = int.from_bytes(digest.digest(), "big") >> (256 - _BITS * _LETTERS)
    letters = [_ALPHABET[(number >> (_BITS * place)) & 31] for place in reversed(range(_LETTERS))]
    return _grouped("".join(letters))


def parse_fingerprint(text: str) -> str:
    """A fingerprint as a person typed it, in its one spelling.

    Case, spaces and hyphens do not matter; O is read as 0, I and L as 1.

    Raises:
        ConfigError: not 25 letters of the alphabet.

    >>> parse_fingerprint("4z9qk 0h3tb xv2md-7rwecp15gy"), parse_fingerprint("oOoOo-IiLl1-0000000000-00000")[:11]
    ('4Z9QK-0H3TB-XV2MD-7RWEC-P15GY', '00000-11111')
    """
    letters = _BETWEEN.sub("", text).upper().translate(_MISREAD)
    if len(letters) != _LETTERS or not set(letters) <= set(_ALPHABET):
        raise ConfigError(
            "a fingerprint that was not read or typed to its end, or with letters that no fingerprint has",
            expected=f"{_GROUPS} groups of {_GROUP} letters and digits; U is none of them",
            remedy="Have it read out again, and type it as XXXXX-XXXXX-XXXXX-XXXXX-XXXXX.",
        )
    return _grouped(letters)


def refuse_other_fingerprint(typed: str, made: str, whose: str) -> None:
    """Find that a person was read the fingerprint of what lies here.

    Args:
        typed: As the person typed it.
        made: By :func:`fingerprint`.
        whose: Whom it was to be heard from, for the message.

    Raises:
        ConfigError: as :func:`parse_fingerprint`.
        SignatureInvalid: it is another one.
    """
    if not hmac.compare_digest(parse_fingerprint(typed).encode(), made.encode()):
        raise SignatureInvalid(
            "another fingerprint than the one that was read to you",
            expected=f"the fingerprint that {whose} reads out from their own screen",
            remedy="Have it read out once more, by telephone. If it still differs, somebody exchanged keys on the way:"
            " use nothing of this file, and ask for it on another way.",
        )


def _grouped(letters: str) -> str:
    return "-".join(letters[start : start + _GROUP] for start in range(0, _LETTERS, _GROUP))
