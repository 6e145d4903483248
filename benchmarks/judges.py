"""Discriminators that experiments put in the place of the product's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedphantom.common.gan.networks import PRESETS, Discriminator, given_and_made
from fedphantom.common.gan.training_state import TrainingState
from fedphantom.common.randomness import derived_seed
from fedphantom.common.study import Study

PROJECTED = (12, 24, 48)
"""Widths of the label finder's three upper levels."""


def judge_by(state: TrainingState, judge: nn.Module, study: Study) -> None:
    """Put a discriminator in the place of the state's, with an optimiser of its own."""
    state.discriminator = state.device.place(judge)  # type: ignore[assignment]  # it does all that one does
    lr, betas = study.training.discriminator_lr, (0.5, 0.999)
    state.discriminator_optimiser = torch.optim.Adam(judge.parameters(), lr, betas)


class ProjectionDiscriminator(nn.Module):
    """Judges the image, and then how its features go with the label map: their inner product with its embedding.

    The label map alone decides nothing: without features of the image its part of the logit is zero. Source: Miyato and
    Koyama 2018 (arXiv 1802.05637), voxel by voxel of the discriminator's last level.

    Args:
        study: Labels, channels, preset.
        seed: Of the first weights.
    """

    def __init__(self, study: Study, seed: int) -> None:
        super().__init__()
        labels, channels = given_and_made(study)
        widths = PRESETS[study.network.preset].discriminator
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, "projection"))
            self.image = Discriminator(0, channels, widths)
            self.embedding = nn.Conv3d(labels, widths[-1], kernel_size=1, bias=False)

    def forward(self, given: Tensor, made: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As :meth:`.Discriminator.forward`."""
        logits, features = self.image(given[:, :0], made)
        last = features[-1]
        x, y, z = last.shape[2:]
        embedded = self.embedding(nn.functional.adaptive_avg_pool3d(given, (x, y, z)))
        return logits + (embedded * last).mean(dim=1, keepdim=True), features


class ProjectedDiscriminator(nn.Module):
    """Judges scans by features of a network that is trained already and learns no more, level by level.

    Source: Projected GANs, Sauer et al. 2021 (arXiv 2111.01007), without their mixing across levels. The network is a
    U-Net that learnt to find label maps in public scans; each level's judge is given the label map too.

    Args:
        finder: MONAI's U-Net.
        labels: L.
        seed: Of the judges' first weights.
    """

    def __init__(self, finder: nn.Module, labels: int, seed: int) -> None:
        super().__init__()
        self._finder = [finder]  # in a list: its parameters are not this network's
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, "projected"))
            self.judges = nn.ModuleList(_judge(width + labels) for width in PROJECTED)

    def forward(self, given: Tensor, made: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As :meth:`.Discriminator.forward`: logits of all levels (B, 1, n, 1, 1), and the finder's features."""
        features = _levels(self._finder[0], made)
        logits = []
        for judge, one in zip(self.judges, features, strict=True):
            x, y, z = one.shape[2:]
            small = nn.functional.adaptive_avg_pool3d(given, (x, y, z))
            logits.append(judge(torch.cat([one, small], dim=1)).flatten(2))
        return torch.cat(logits, dim=2)[..., None, None], features


def _judge(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(width, 32, 3, padding=1),
        nn.GroupNorm(32, 32),
        nn.LeakyReLU(0.2),
        nn.Conv3d(32, 1, 3, padding=1),
    )


def _levels(finder: nn.Module, volumes: Tensor) -> list[Tensor]:
    """Features of the way down, from fine to coarse, of volumes (B, C, X, Y, Z)."""
    found, features, block = [], volumes, finder.get_submodule("model")
    for _ in PROJECTED:
        assert isinstance(block, nn.Sequential)
        features = block[0](features)  # way down, (skip past, the next block), way up
        found.append(features)
        block = block[1].get_submodule("submodule")
    return found
