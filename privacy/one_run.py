"""What right guesses of one training's coins prove (Steinke, Nasr & Jagielski 2023, arXiv 2305.08846; PRIVACY §3.3).

A training is run once, on every patient whose fair coin said so. Whoever guesses r of m coins from what it released is
right no more often than the formal promise allows: one run bounds ε, with no other assumption than the coins.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

_PRECISION = 1e-6


def one_run_p_value(correct: int, guesses: int, coins: int, epsilon: float = 0.0, delta: float = 0.0) -> float:
    """Probability of at least so many right guesses if the training is (ε, δ)-differentially private; at most 1.

    Pr[Bin(r, e^ε / (1 + e^ε)) >= v] + 2 m δ max_{1 <= i <= v} Pr[v - i <= Bin < v] / i.

    Args:
        correct: v, of the guesses.
        guesses: r, their number, fixed beforehand.
        coins: m, of all patients who had one.
        epsilon: Of the promise; 0: nothing at all can be told.
        delta: Of the promise.
    """
    binomial = stats.binom(guesses, 1 / (1 + np.exp(-epsilon)))
    p = float(binomial.sf(correct - 1))
    if delta > 0 and correct > 0:
        i = np.arange(1, correct + 1)
        just_below = binomial.cdf(correct - 1) - binomial.cdf(correct - 1 - i)
        p += 2 * coins * delta * float((just_below / i).max())
    return min(p, 1.0)


def one_run_epsilon(correct: int, guesses: int, coins: int, delta: float = 0.0, alpha: float = 0.05) -> float:
    """Largest ε that is refuted with confidence 1 - α, every smaller one with it; 0 where none is."""

    def refuted(epsilon: float) -> bool:
        return one_run_p_value(correct, guesses, coins, epsilon, delta) <= alpha

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, high + 1
    while high - low > _PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
