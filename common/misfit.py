"""The first thing that does not fit in a file that was checked by pydantic, in our words and not in the library's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

_LONGEST_TEXT = 60
"""Characters of a value that are told again."""

_EXPECTED: Mapping[str, str] = {
    "bool": "true or false",
    "date": "a date",
    "dict": "a table",
    "dataclass": "a table",
    "finite": "a finite number",
    "float": "a number",
    "frozen": "a list without repetition",
    "int": "a whole number",
    "list": "a list",
    "mapping": "a table",
    "model": "a table",
    "none": "no value",
    "set": "a list without repetition",
    "string": "text",
    "tuple": "a list",
}
"""Beginning of a pydantic error's type to what is expected."""


_UNKNOWN = " is unknown"

_SIGNS = {"A-Za-z": "letters", "a-z": "lower-case letters", "0-9": "digits", " ": "spaces", "_": "'_'", "-": "'-'"}
"""Parts of a name's pattern in words."""


@dataclass(frozen=True)
class Misfit:
    """What does not fit, where, and what would.

    Attributes:
        where: Keys and positions from the file's top; empty for the file as a whole.
        found: A phrase that goes on after the place: "is -3", "is missing", ": must rise".
        expected: A phrase.
    """

    where: tuple[int | str, ...]
    found: str
    expected: str

    @property
    def is_unknown_key(self) -> bool:
        """Whether the key is none that the file can have there."""
        return self.found == _UNKNOWN

    @property
    def key(self) -> str:
        """The place as a file names it: ``training.rounds``; empty for the file as a whole."""
        return ".".join(str(part) for part in self.where)


def first_misfit(error: ValidationError, *, quote: bool = True) -> Misfit:
    """The error that tells most: an unknown key before all, for a misspelt one is both unknown and missing.

    Args:
        error: As pydantic raised it.
        quote: Whether values may be told again: those that a person wrote, never those of a stranger's file.
    """
    first: Mapping[str, Any] = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    where = tuple(part for part in first["loc"] if part != "[key]")
    context: Mapping[str, Any] = first.get("ctx", {})
    value = _in_words(first["input"]) if quote else "of another kind or out of range"
    match first["type"]:
        case "extra_forbidden":
            return Misfit(where, _UNKNOWN, "keys that the file can have, spelt as they are")
        case "missing":
            return Misfit(where, " is missing", "a value for every key that has no default")
        case "value_error" | "assertion_error":
            several = isinstance(first["input"], Mapping)
            told = f" (found {value})" if quote and not several else ""
            expected = "values that fit together" if several else "a value that this key can have"
            return Misfit(where, f": {context.get('error', 'not fit')}{told}", expected)
        case "union_tag_invalid":
            tag = str(context["tag"])[:_LONGEST_TEXT] if quote else "unknown"
            return Misfit(where, f" has {context['discriminator']} '{tag}'", f"one of {context['expected_tags']}")
        case "union_tag_not_found":
            return Misfit(where, f" has no {context['discriminator']}", f"a key {context['discriminator']}")
        case "literal_error" | "enum":
            return Misfit(where, f" is {value}", f"one of {context['expected']}")
        case kind:
            return Misfit(where, f" is {value}", _limit(kind, context))


def _limit(kind: str, context: Mapping[str, Any]) -> str:
    """What a number, text or list would have to be."""
    match kind:
        case "greater_than":
            return f"a number above {context['gt']:g}"
        case "greater_than_equal":
            return f"a number of {context['ge']:g} or more"
        case "less_than":
            return f"a number below {context['lt']:g}"
        case "less_than_equal":
            return f"a number of at most {context['le']:g}"
        case "string_too_short" | "too_short":
            return f"{_many(kind)} {context['min_length']} or more"
        case "string_too_long" | "too_long":
            return f"{_many(kind)} at most {context['max_length']}"
        case "string_pattern_mismatch":
            return f"text{_form(str(context['pattern']))}"
        case _:
            return _EXPECTED.get(kind.split("_")[0], "a value that this key can have")


def _form(pattern: str) -> str:
    """A name's pattern, ``[first][others]{0,n}``, in words.

    >>> _form("^[a-z0-9][a-z0-9-]{0,62}$")
    " of 1 to 63 lower-case letters, digits, '-'; the first a letter or digit"
    """
    name = re.fullmatch(r"\^\[(?:A-Za-z|a-z)0-9\]\[([^]]+)\]\{0,(\d+)\}\$", pattern)
    if name is None:
        return " of another form"
    words = [_SIGNS[signs] for signs in re.findall("|".join(map(re.escape, _SIGNS)), name[1])]
    return f" of 1 to {int(name[2]) + 1} {', '.join(words)}; the first a letter or digit"


def _many(kind: str) -> str:
    return "text whose number of characters is" if kind.startswith("string") else "a list whose number of entries is"


def _in_words(value: object) -> str:
    """A value and its kind."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"{value}"
        case str():
            return f"'{value[:_LONGEST_TEXT]}', which is text"
        case list() | tuple():
            return f"{str(list(value))[:_LONGEST_TEXT]}, a list of {len(value)}"
        case Mapping():
            return "a table"
        case None:
            return "nothing"
        case _:
            return f"a {type(value).__name__}"
