"""An audit's own sentences with the names that the page has for attacks and controls, and words for signs."""

from __future__ import annotations

import re

from ..evidence import BLIND, TESTS
from .names import attack_name, attacker_holds, control_name

_TESTS = "|".join(map(re.escape, sorted(TESTS, key=len, reverse=True)))
_ATTACK = re.compile(rf"(?<![\w/-])({_TESTS})(?![\w/-])( \((?=AUC))?")
_LISTED = re.compile(rf"(?<![\w/-])({_TESTS}|{BLIND}), (?=(?:{_TESTS}|{BLIND})(?![\w/-]))")
_CONTROL = re.compile(r"control '([\w-]+)'")
_THREAT_MODEL = re.compile(r"of threat model (\w+)")
_SIGNS = (
    (re.compile(r"\|AUC - 0\.5\|"), "distance of an AUC from 0.5"),
    (re.compile(r"\bL95\b"), "lower bound"),
    (re.compile(r"\bU95\b"), "upper bound"),
    (re.compile(r">= "), "at least "),
    (re.compile(r"<= "), "at most "),
    (re.compile(rf"\b{BLIND}\b"), "the blind baseline"),
)


def plainly(sentence: str) -> str:
    """A reason, or what a control required or showed, for who does not know the codes.

    >>> plainly("The control 'blind' was not run.")
    'The control ‘guessing without a generator’ was not run.'
    >>> plainly("A1 AUC >= 0.90 and L95 >= 0.75")
    'A1 (reconstruction) AUC at least 0.90 and lower bound at least 0.75'
    """
    # A name may hold a comma.
    told = _LISTED.sub(r"\1; ", sentence)
    told = _ATTACK.sub(_named, told)
    told = _CONTROL.sub(lambda found: f"control ‘{control_name(found[1])}’", told)
    told = _THREAT_MODEL.sub(lambda found: f"by somebody who has {attacker_holds(found[1])}", told)
    for sign, words in _SIGNS:
        told = sign.sub(words, told)
    return told


def _named(found: re.Match[str]) -> str:
    name = attack_name(found[1])
    return f"{found[1]} ({name}, " if found[2] else f"{found[1]} ({name})"
