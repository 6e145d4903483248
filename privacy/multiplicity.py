"""Many attacks, and many audits of one holdout: what may still be called a find, and what a claim (PRIVACY §3.1, §3.3).

Every audit of a holdout, of whichever generator, is a further try at finding a leak by chance and a further try at
missing one by chance. A *find* ("leak") is therefore judged by Holm over the p-values of every audit of that holdout:
of each attack's AUC, and of the members that it names without one false alarm.
A *claim* ("no leak above τ") made by audit k holds with confidence 1 - 0.05 / k. The attacks within one audit need no
such share of the claim: all of them have to lie below τ.

What this does not give: audit j spends 0.05 / j, so that the chance that *some* audit of k claims wrongly is bounded by
0.05 · (1 + 1/2 + … + 1/k) and not by 0.05. A holdout wears out; a new one is better than a tenth audit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from .evidence import ATTACKS, OUTLIERS, TESTS
from .statistics import holm

ALPHA = 0.05

PValues = Mapping[str, float]
"""Test to its p-value, of one audit."""

NO_FALSE_ALARM = "/no-false-alarm"
"""Suffix of an attack's identifier for the test of the members that it names without one false alarm."""

HYPOTHESES = len(TESTS) + len(ATTACKS)
"""Tests in a whole audit: of each AUC, and, of everybody, of the members named without one false alarm."""


class Tested(Protocol):
    """An attack's p-values, wherever they were read from."""

    @property
    def id(self) -> str:
        """As PRIVACY §3.2 numbers attacks."""

    @property
    def threat_model(self) -> str:
        """What the attacker holds."""

    @property
    def p_value(self) -> float | None:
        """Of its AUC."""

    @property
    def no_false_alarm_p_value(self) -> float | None:
        """Of the members that it names without one false alarm."""


def p_values(attacks: Iterable[Tested]) -> dict[str, float]:
    """Every test of "no leak" that these attacks are, 1 where its p-value is not told; the blind baseline is none."""
    found: dict[str, float] = {}
    for attack in attacks:
        if attack.threat_model != "none":
            tests = {attack.id: attack.p_value}
            if not attack.id.endswith(OUTLIERS):
                tests[attack.id + NO_FALSE_ALARM] = attack.no_false_alarm_p_value
            found |= {name: 1.0 if p is None else p for name, p in tests.items()}
    return found


def rejecting(attacks: Iterable[Tested], earlier: Sequence[PValues | None]) -> dict[str, tuple[bool, bool]]:
    """Which attacks reject "no leak" by either test, after Holm: over all audits of the holdout, over this one alone.

    Args:
        attacks: This audit's.
        earlier: As :func:`finds`.
    """
    tests = p_values(attacks)
    tried = list(tests.values())
    found: dict[str, tuple[bool, bool]] = {}
    for name, over_all, alone in zip(tests, finds(tried, earlier), holm(tried, ALPHA), strict=True):
        attack = name.removesuffix(NO_FALSE_ALARM)
        before = found.get(attack, (False, False))
        found[attack] = before[0] or over_all, before[1] or alone
    return found


def finds(p_values: Sequence[float], earlier: Sequence[PValues | None]) -> tuple[bool, ...]:
    """Which tests of this audit Holm rejects over all audits of the holdout, in the order given.

    Never more than Holm rejects within this audit alone.

    Args:
        p_values: This audit's.
        earlier: Every audit before it; None where it was broken off. It was a look at the holdout too, and nobody
            knows what it showed: it counts as a whole audit in which nothing was found.
    """
    before = [p for audit in earlier for p in (_UNKNOWN if audit is None else audit.values())]
    return holm([*p_values, *before], ALPHA)[: len(p_values)]


_UNKNOWN = (1.0,) * HYPOTHESES


def claim_confidence(audit_number: int) -> float:
    """Confidence of the upper bound that audit k of a holdout holds against τ, one-sided."""
    return 1 - ALPHA / audit_number


_MOST_PERMUTATIONS = 200_000
"""Bounds what an attack takes to judge. A perfect attack is still told from chance in audit 200 of a holdout."""


def finest_permutations(audit_number: int) -> int:
    """How many tell the smallest p-value that Holm may ask for in audit k of a holdout, at ten that reach it."""
    return min(_MOST_PERMUTATIONS, round(10 * HYPOTHESES * audit_number / ALPHA))
