"""What an ε and its δ mean, in one sentence without a symbol to look up; right for (ε, δ), and no more than it says."""

from __future__ import annotations

import math
from typing import Final

_DECIMALS: Final = 9
"""As many at most; what is nearer to 1 is said to be no nearer."""


def meaning(epsilon: float, delta: float, what: str) -> str:
    """Plain words that stand before the figures.

    Args:
        epsilon: Infinite beyond any figure.
        delta: In (0, 1).
        what: What was released.

    >>> meaning(2.0, 0.001, "the generator").partition(", ")[2]
    "one patient's taking part makes it at most e^ε ≈ 7.4 times as likely, plus a probability of δ = 0.001."
    """
    if not math.isfinite(epsilon):
        return f"So much was spent that nothing is promised any more: {what} may tell anything of a patient."
    return (
        f"Whatever anybody concludes from {what}, one patient's taking part makes it at most e^ε ≈ {_factor(epsilon)}"
        f" times as likely, plus a probability of δ = {delta:g}."
    )


def _factor(epsilon: float) -> str:
    """e^ε, rounded up; near 1 what is beyond 1, which is all that it says, to two figures.

    >>> [_factor(one) for one in (0.0, 1e-12, 1e-6, 0.04, 0.5, 1.0, 8.0)]
    ['1', '1.000000001', '1.0000011', '1.041', '1.65', '2.8', '3,000']
    """
    factor, beyond = math.exp(epsilon), math.expm1(epsilon)
    if beyond < 1:
        decimals = min(_DECIMALS, 1 - math.floor(math.log10(beyond))) if beyond else 0
        return f"{1 + math.ceil(beyond * 10**decimals) / 10**decimals:.{decimals}f}"
    return f"{math.ceil(10 * factor) / 10:g}" if factor < 100 else f"{_up(factor):,}"


def _up(factor: float) -> int:
    """Two figures, rounded up."""
    scale = int(10 ** (math.floor(math.log10(factor)) - 1))
    return math.ceil(factor / scale) * scale
