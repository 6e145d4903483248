"""How long a patient's vector of means can be, whoever it is: known without looking at anybody, and without torch."""

from __future__ import annotations

import math
from typing import Final

LARGEST_SHIFT: Final = 3.0
"""In public standard deviations; what lies further counts as so far."""


def longest_means(channels: int) -> float:
    """The longest vector of :func:`.means.noised_vector` that there is, in units of the clip norm.

    For every label both moments of each channel at the largest shift, and presence, over the root of how many numbers
    that is: how many labels there are does not matter. A clip norm above it lets no more of a patient pass, and noise
    grows with it.

    >>> round(longest_means(1), 2), round(longest_means(4), 2)
    (2.52, 2.85)
    """
    return math.sqrt((LARGEST_SHIFT**2 * 2 * channels + 1) / (2 * channels + 1))
