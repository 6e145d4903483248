"""The terms of the generator's and the discriminator's objectives, for both ways.

Least-squares adversarial loss (Mao et al. 2017, arXiv 1611.04076), L1 to the paired scan (Isola et al. 2017,
arXiv 1611.07004) and feature matching (Wang et al. 2018, arXiv 1711.11585). L1 and feature matching read the
paired real scan: with them there is no differential privacy (PRIVACY §1.1). So does what takes the place of L1 on
the way from images to labels: cross-entropy plus soft Dice (Milletari et al. 2016, arXiv 1606.04797).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def real_loss(logits: Tensor) -> Tensor:
    """Patch logits (B, 1, x, y, z) pulled to 1: the discriminator on real, the generator on fake."""
    return (logits.float() - 1).square().mean()


def fake_loss(logits: Tensor) -> Tensor:
    """Patch logits pulled to 0: the discriminator on fake."""
    return logits.float().square().mean()


def l1(fake: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference over all voxels and channels."""
    return (fake.float() - real.float()).abs().mean()


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of the discriminator's features, averaged over its layers."""
    return torch.stack([l1(f, r.detach()) for f, r in zip(fake, real, strict=True)]).mean()


def proximal(network: nn.Module, start: Mapping[str, Tensor], weight: float) -> Tensor:
    """``weight / 2`` times the squared Euclidean distance of all parameters from those in ``start``.

    Holds a site's training near the generator that the round began with, so that sites whose scans differ drift
    apart less between two averages. Source: FedProx, Li et al. 2020 (arXiv 1812.06127), its μ is ``weight``.
    """
    moved = [(value - start[name]).square().sum() for name, value in network.named_parameters()]
    return weight / 2 * torch.stack(moved).sum()


def cross_entropy_and_dice(probabilities: Tensor, truth: Tensor) -> Tensor:
    """Mean cross-entropy a voxel, plus one minus the mean soft Dice of the classes that the batch holds.

    A class that no scan of the batch holds has no Dice: healthy cohorts have no tumour to find.

    Args:
        probabilities: (B, M, X, Y, Z), over M summing to 1.
        truth: One-hot, of the same shape.
    """
    p, t = probabilities.float(), truth.float()
    entropy = -(t * (p + 1e-6).log()).sum(dim=1).mean()
    over = (0, 2, 3, 4)
    both, sizes, there = (p * t).sum(over), (p + t).sum(over), t.sum(over) > 0
    dice = ((2 * both + 1) / (sizes + 1))[there].mean()
    return entropy + 1 - dice
