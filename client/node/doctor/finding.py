"""One line of ``site doctor``: what was looked at, how it stands, what was found, how it is mended."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ....privacy.evidence import SMALLEST_CELL

Light = Literal["green", "yellow", "red"]
"""``red``: a round would fail, or the site may not start; ``yellow``: it works, but badly, or soon no longer."""

_COUNT = re.compile(r"\b([0-9]+) (patient|scan|person|people)(s?)\b")


@dataclass(frozen=True)
class Outcome:
    """What a check says.

    Attributes:
        light: How it stands.
        found: What was found: no identifier, no path, no name of a machine or person.
        fix: What to do; empty where there is nothing.
    """

    light: Light
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Finding:
    """The same under the check's name.

    Attributes:
        name: What was looked at; fixed words, the same in every version.
        light: How it stands.
        found: What was found.
        fix: What to do; empty where there is nothing.
    """

    name: str
    light: Light
    found: str
    fix: str

    @classmethod
    def of(cls, name: str, outcome: Outcome) -> Finding:
        """Under its name, no count of patients or scans below 20 left in it."""
        return cls(name, outcome.light, without_small_counts(outcome.found), without_small_counts(outcome.fix))


def green(found: str) -> Outcome:
    """All is well."""
    return Outcome("green", found)


def yellow(found: str, fix: str) -> Outcome:
    """It works, but badly, or soon no longer."""
    return Outcome("yellow", found, fix)


def red(found: str, fix: str) -> Outcome:
    """A round would fail, or the site may not start."""
    return Outcome("red", found, fix)


def without_small_counts(text: str) -> str:
    """The text with every count of patients or scans that is too small to be told replaced.

    >>> without_small_counts("19 patients then, 20 patients now, 1 scan left out")
    'fewer than 20 patients then, 20 patients now, fewer than 20 scans left out'
    """

    def told(match: re.Match[str]) -> str:
        few = f"fewer than {SMALLEST_CELL} {'people' if match[2] in ('person', 'people') else match[2] + 's'}"
        return few if int(match[1]) < SMALLEST_CELL else match[0]

    return _COUNT.sub(told, text)
