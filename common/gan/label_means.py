"""What each structure looks like on average: means of features over a label's voxels, and a generator's distance from
such means.

Features are the channels, their squares, and what a discriminator makes of them at each of its levels; the mean over a
label's voxels is far less one patient's than an image is, and far more a scanner's. Matching them is matching the first
moments of a kernel embedding (Li et al. 2015, arXiv 1502.02761; under differential privacy Harder et al. 2021, arXiv
2002.11603), label by label, as a projection discriminator's last layer would (Miyato & Koyama 2018, arXiv 1802.05637).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..device import Device
from ..study import Study
from .networks import Discriminator
from .patches import WHOLE
from .training import Pairs, cut

FEWEST_VOXELS = 8
"""A label with fewer counts as absent."""
SMALLEST_SCALE = 0.02
"""Of a feature's spread over public scans; a feature that hardly varies there must not count without bound."""


def label_means(discriminator: Discriminator, given: Tensor, volumes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean features of every label but the background.

    Args:
        discriminator: Whose features are taken; public, and not updated.
        given: One-hot label maps (B, L, X, Y, Z).
        volumes: (B, C, X, Y, Z).

    Returns:
        Means (B, L - 1, F), zero where a label is absent, and presence (B, L - 1), 1 or 0. On coarser levels a voxel
        counts by the label's share of it.
    """
    _, levels = discriminator(given, volumes)
    maps = [torch.cat([volumes, volumes.square()], dim=1), *levels]
    presence = (given[:, 1:].sum(dim=(2, 3, 4)) >= FEWEST_VOXELS).float()
    means = []
    for features in maps:
        size = (features.shape[2], features.shape[3], features.shape[4])
        shares = nn.functional.adaptive_avg_pool3d(given[:, 1:], size).float()
        sums = torch.einsum("blxyz,bfxyz->blf", shares, features.float())
        means.append(sums / shares.sum(dim=(2, 3, 4)).clamp(min=1e-6)[..., None])
    return torch.cat(means, dim=2) * presence[..., None], presence


@dataclass(frozen=True, eq=False)
class PublicMeans:
    """Mean features of public scans: where patients' are measured from, and in which unit.

    Attributes:
        centre: (L - 1, F), over the public scans that have the label.
        scale: (L - 1, F), standard deviation over them.
    """

    centre: Tensor
    scale: Tensor

    def standardised(self, means: Tensor, presence: Tensor) -> Tensor:
        """How far means (B, L - 1, F) lie from the public ones, in their unit; 0 where a label is absent."""
        return (means - self.centre) / self.scale * presence[..., None]


def public_means(discriminator: Discriminator, pairs: Pairs, study: Study, device: Device) -> PublicMeans:
    """Of public scans; a label that none of them has gets the centre 0 and the scale 1."""
    found = []
    with torch.no_grad():
        for row in range(len(pairs.classes)):
            found.append(label_means(discriminator, *cut(pairs, [(row, WHOLE)], study, device)))
    means, presence = (torch.cat(parts) for parts in zip(*found, strict=True))
    number = presence.sum(dim=0)[..., None]
    centre = means.sum(dim=0) / number.clamp(min=1)
    variance = ((means - centre).square() * presence[..., None]).sum(dim=0) / number.clamp(min=1)
    scale = torch.where(number > 1, variance.sqrt().clamp(min=SMALLEST_SCALE), torch.ones(()))
    return PublicMeans(centre, scale)


@dataclass(frozen=True, eq=False)
class TargetMeans:
    """Mean features that a generator is to match.

    Attributes:
        shift: (L - 1, F), from the public centre in the public unit.
        weight: (L - 1,), how far each label's may be relied on, 0 to 1.
    """

    shift: Tensor
    weight: Tensor


def means_loss(
    discriminator: Discriminator, public: PublicMeans, target: TargetMeans, given: Tensor, fake: Tensor
) -> Tensor:
    """How far a batch's mean features lie from the target's.

    Huber, so that a few features that cannot be matched do not drown the others.

    Args:
        discriminator: As of the target.
        public: As of the target.
        target: To be matched.
        given: One-hot public label maps (B, L, X, Y, Z).
        fake: What was made of them (B, C, X, Y, Z).
    """
    means, presence = label_means(discriminator, given, fake)
    number = presence.sum(dim=0)
    shift = public.standardised(means, presence).sum(dim=0) / number.clamp(min=1)[:, None]
    weight = target.weight * (number > 0)
    distance = nn.functional.huber_loss(shift, target.shift, reduction="none", delta=2.0).mean(dim=1)
    return (weight * distance).sum() / weight.sum().clamp(min=1e-6)
