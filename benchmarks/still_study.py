"""A study and a generator of any size, for rounds in which nobody trains; made without torch."""

from __future__ import annotations

import numpy as np

from fedphantom.common.exchange import Parameters

LAYERS = 20
"""Tensors of the generator, all of one size."""


def still_generator(megabytes: float) -> Parameters:
    """Noise of that size: as little to be compressed as a trained generator."""
    random, values = np.random.default_rng(1), int(megabytes * 1e6 / 4 / LAYERS)
    return {f"layer-{n:02d}": 0.05 * random.standard_normal(values, dtype=np.float32) for n in range(LAYERS)}


SECURE = "secure_aggregation = { threshold = 3, clip = 100.0 }"
"""Of a study whose coordinator sees sums alone."""


def still_study(rounds: int, quorum: int, federation: str = "") -> str:
    """A study's text: how many sites have to answer, and whatever else its ``[federation]`` says."""
    return f"""
name = "still"
seed = 1
channels = ["T1"]
labels = {{ background = 0, tumour = 1 }}
[grid]
shape = [16, 8, 8]
spacing_mm = [1.0, 1.0, 1.0]
[training]
rounds = {rounds}
[federation]
quorum = {quorum}
deadline_s = 600
{federation}
"""
