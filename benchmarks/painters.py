"""Other generators than the product's, for experiments that ask whether they paint scans of more use."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedphantom.common.gan.training_state import TrainingState
from fedphantom.common.randomness import derived_seed
from fedphantom.common.study import Study


class NoiseAfter(nn.Module):
    """A block, and noise of its own on each of its features, in amounts that are learnt from nothing up.

    Source: Karras et al. 2019 (arXiv 1812.04948), section 3.2.

    Args:
        block: Gives ``features`` feature maps.
        features: How many.
        seed: Of the noise, which no two calls share.
    """

    def __init__(self, block: nn.Module, features: int, seed: int) -> None:
        super().__init__()
        self.block, self.amount = block, nn.Parameter(torch.zeros(1, features, 1, 1, 1))
        self._random = torch.Generator().manual_seed(seed)

    def forward(self, given: Tensor) -> Tensor:
        """(B, F, X, Y, Z) of the block, and one noise (B, 1, X, Y, Z) times each feature's amount."""
        features: Tensor = self.block(given)
        noise = torch.randn(len(features), 1, *features.shape[2:], generator=self._random)
        return features + self.amount * noise.to(features)


def noisy_blocks(state: TrainingState, study: Study) -> None:
    """Noise after every block of the generator's way up, and an optimiser that learns its amounts too."""
    generator = state.generator
    for level, block in enumerate(generator.merge):
        features = generator.widths[-2 - level]
        noisy = NoiseAfter(block, features, derived_seed(study.seed, f"noise after block {level}"))
        generator.merge[level] = state.device.place(noisy)
    lr, betas = study.training.generator_lr, (0.5, 0.999)
    state.generator_optimiser = torch.optim.Adam(generator.parameters(), lr, betas)
