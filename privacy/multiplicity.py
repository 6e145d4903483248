"""Many attacks, and many audits of one holdout: what may still be called a find, and what a claim (PRIVACY §3.1, §3.3).

Every audit of a holdout, of whichever generator, is a further try at finding a leak by chance and a further try at
missing one by chance. A *find* ("leak") is therefore judged by Holm over the p-values of every audit of that holdout.
A *claim* ("no leak above τ") made by audit k holds with confidence 1 - 0.05 / k. The attacks within one audit need no
such share of the claim: all of them have to lie below τ.

What this does not give: audit j spends 0.05 / j, so that the chance that *some* audit of k claims wrongly is bounded by
0.05 · (1 + 1/2 + … + 1/k) and not by 0.05. A holdout wears out; a new one is better than a tenth audit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .evidence import TESTS
from .statistics import holm

ALPHA = 0.05

PValues = Mapping[str, float]
"""Attack to its p-value, of one audit."""

HYPOTHESES = len(TESTS)
"""Tests in a whole audit."""


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
