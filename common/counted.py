"""Counted nouns in sentences: "1 patient", "3 patients"."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """The number and its noun, in the singular only for exactly one.

    Args:
        number: How many.
        noun: One of them.
        plural: Several of them; the noun with an "s" unless given.

    >>> counted(1, "site"), counted(0, "site"), counted(2, "entry", "entries")
    ('1 site', '0 sites', '2 entries')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
