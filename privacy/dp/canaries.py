"""Canaries: is the noise that was promised the noise that is there? (PRIVACY §4)

A canary is the vector that moves a noised sum furthest: as long as the clip norm, always the same way. The noised steps
of a study are run many times over without any patient, the canary in on the toss of a coin; the coin is guessed from
what was released. Without noise every guess must come out right, or the test could find nothing; with the noise as
promised, the guesses must not prove more than ε, nor what was released vary less than the noise would have it. No
patient is touched and no budget spent. It is the noised sum that is asked, its sampling, clipping and noise, with the
study's q, σ, C and T; how a training calls it, and what else could betray a patient, it does not see (PRIVACY §4 asks
for canaries in a training of its own; that is not built).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ..statistics import epsilon_lower_bound
from .accounting import Mechanism, epsilon
from .provenance import mark
from .randomness import SecretRandom
from .step import NoisedSum, noised_mean

WITHOUT_NOISE = 1.5
"""What must be proved without noise."""
_MOST_RUNS, _FEWEST_RUNS, _MOST_STEPS = 2000, 200, 100_000


@dataclass(frozen=True)
class CanaryRun:
    """What the canaries proved.

    Attributes:
        runs: Coins tossed, each for both questions.
        bare: Lower bound of ε without noise, 95 % confidence.
        promised: With the noise of the study, all its steps.
        epsilon: What the accountant says of them.
        noise: Standard deviation of what was released without a canary, over the promised one.
    """

    runs: int
    bare: float
    promised: float
    epsilon: float
    noise: float

    @property
    def excess(self) -> bool:
        """Whether more was proved than was promised, or the noise is less: the implementation is wrong.

        So many coins prove no ε above 6 or so: beyond that it is the noise itself that tells. It falls short by chance
        of a tenth less than once in a million audits of 1,000 coins and more, and of a quarter in shorter ones.
        """
        return self.promised > self.epsilon or self.noise < (0.9 if self.runs >= 1000 else 0.75)


def run_canaries(steps: Mechanism, clip_norm: float, delta: float) -> CanaryRun:
    """Toss coins and guess them.

    Args:
        steps: All noised steps of a study.
        clip_norm: C.
        delta: Of the promise.
    """
    runs = max(_FEWEST_RUNS, min(_MOST_RUNS, _MOST_STEPS // steps.steps))
    random = SecretRandom(torch.device("cpu"))
    canary = [mark(torch.tensor([clip_norm], dtype=torch.float64))]

    def tossed(noise: float) -> tuple[float, float]:
        how = NoisedSum(clip_norm, noise, 1.0)
        coins = random.numpy.random(runs) < 0.5
        scores = np.zeros(runs)
        for run, coin in enumerate(coins):
            for _ in range(steps.steps):
                drawn = random.poisson_sample(int(coin), steps.sampling_rate).tolist()
                scores[run] += noised_mean(drawn, lambda _: canary, 1, how, random).item()
        # Half of what a canary moves the sum by, fixed beforehand.
        said = scores > steps.steps * steps.sampling_rate * clip_norm / 2
        of_in, of_out = said[coins], said[~coins]
        proved = epsilon_lower_bound(int(of_in.sum()), len(of_in), int(of_out.sum()), len(of_out), delta)
        return proved, float(scores[~coins].std())

    deviation = steps.noise_multiplier * clip_norm * math.sqrt(steps.steps)
    proved, spread = tossed(steps.noise_multiplier)
    return CanaryRun(runs, tossed(0.0)[0], proved, epsilon([steps], delta), spread / deviation)
