"""What each structure looks like on average: the mean and the mean square of every channel over a label's voxels, and a
generator's distance from them.

Such means are far less one patient's than an image is, and far more a scanner's. Matching them is matching the first
moments of a kernel embedding (Li et al. 2015, arXiv 1502.02761; under differential privacy Harder et al. 2021, arXiv
2002.11603), label by label. A discriminator's features beside them were measured to add nothing but noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..device import Device
from ..study import Study
from .patches import WHOLE
from .training import Pairs, cut

FEWEST_VOXELS = 8
"""A label with fewer counts as absent."""
SMALLEST_SCALE = 0.02
"""Of a mean's spread over public scans; one that hardly varies there must not count without bound."""


def label_means(given: Tensor, volumes: Tensor) -> tuple[Tensor, Tensor]:
    """Means over the voxels of every label but the background.

    Args:
        given: One-hot label maps (B, L, X, Y, Z).
        volumes: (B, C, X, Y, Z).

    Returns:
        Means (B, L - 1, 2 C) of the channels and of their squares, zero where a label is absent; and presence
        (B, L - 1), 1 or 0.
    """
    labels, values = given[:, 1:].float(), volumes.float()
    voxels = labels.sum(dim=(2, 3, 4))
    presence = (voxels >= FEWEST_VOXELS).float()
    sums = torch.einsum("blxyz,bfxyz->blf", labels, torch.cat([values, values.square()], dim=1))
    return sums / voxels.clamp(min=1)[..., None] * presence[..., None], presence


@dataclass(frozen=True, eq=False)
class PublicMeans:
    """Means over public scans: where patients' are measured from, and in which unit.

    Attributes:
        centre: (L - 1, 2 C), over the public scans that have the label.
        scale: (L - 1, 2 C), standard deviation over them.
    """

    centre: Tensor
    scale: Tensor

    def shift(self, means: Tensor, presence: Tensor) -> Tensor:
        """How far means (B, L - 1, 2 C) lie from the public ones, in their unit; 0 where a label is absent."""
        return (means - self.centre) / self.scale * presence[..., None]


def public_means(pairs: Pairs, study: Study, device: Device) -> PublicMeans:
    """Of public scans; a label that fewer than two of them have gets the scale 1."""
    found = [label_means(*cut(pairs, [(row, WHOLE)], study, device)) for row in range(len(pairs.classes))]
    means, presence = (torch.cat(parts) for parts in zip(*found, strict=True))
    number = presence.sum(dim=0)[..., None]
    centre = means.sum(dim=0) / number.clamp(min=1)
    variance = ((means - centre).square() * presence[..., None]).sum(dim=0) / number.clamp(min=1)
    return PublicMeans(centre, variance.sqrt().clamp(min=SMALLEST_SCALE).where(number > 1, torch.ones_like(centre)))


@dataclass(frozen=True, eq=False)
class TargetMeans:
    """Means that a generator is to match.

    Attributes:
        shift: (L - 1, 2 C), from the public centre in the public unit.
        weight: (L - 1,), how far each label's may be relied on, 0 to 1.
    """

    shift: Tensor
    weight: Tensor


def means_loss(public: PublicMeans, target: TargetMeans, given: Tensor, fake: Tensor) -> Tensor:
    """How far a batch's means lie from the target's.

    Huber, so that a few that cannot be matched do not drown the others.

    Args:
        public: As of the target.
        target: To be matched.
        given: One-hot public label maps (B, L, X, Y, Z).
        fake: What was made of them (B, C, X, Y, Z).
    """
    means, presence = label_means(given, fake)
    number = presence.sum(dim=0)
    shift = public.shift(means, presence).sum(dim=0) / number.clamp(min=1)[:, None]
    weight = target.weight * (number > 0)
    distance = nn.functional.huber_loss(shift, target.shift, reduction="none", delta=2.0).mean(dim=1)
    return (weight * distance).sum() / weight.sum().clamp(min=1e-6)
