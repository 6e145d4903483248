"""What an ε and its δ mean, in one sentence without a symbol to look up; right for (ε, δ), and no more than it says."""

from __future__ import annotations

import math


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
    factor = math.exp(epsilon)
    told = f"{math.ceil(10 * factor) / 10:g}" if factor < 100 else f"{_up(factor):,}"
    return (
        f"Whatever anybody concludes from {what}, one patient's taking part makes it at most e^ε ≈ {told} times as"
        f" likely, plus a probability of δ = {delta:g}."
    )


def _up(factor: float) -> int:
    """Two figures, rounded up."""
    scale = int(10 ** (math.floor(math.log10(factor)) - 1))
    return math.ceil(factor / scale) * scale
