"""How a network from images to labels comes to read scanners it never saw: half of what it trains on is made up.

Shapes and places (affine, smooth warp, mirror), contrasts (each channel's own intensities bent by a random curve, or
painted anew from the label map with random tissue intensities), bias field, blur, noise, and channels left out, so
that a cohort with T1 alone can be read by a network of four channels. The other half of the scans are seen as they
are, but for channels and mirror: in few steps a network else learns its own scanners worse (docs/experiments.md).

Sources: random contrast from label maps, Billot et al. 2023 (SynthSeg, doi:10.1016/j.media.2023.102789); random
intensity curves, Zhou et al. 2021 (Models Genesis, doi:10.1016/j.media.2020.101840).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..cohorts.preparation import ABSENT, HIGH, LOW
from ..study import Study
from .augmentation import SpatialAugmentation, warp

SHAPES = SpatialAugmentation(rotation_deg=12.0, scale=0.15, displacement=1.0, cell=10)
AS_SCANNED = 0.5  # share of scans whose shapes and contrasts are left as they are
PAINTED = 0.4  # share of channels whose contrast is painted anew from the label map
INVERTED = 0.1  # share of intensity curves that fall instead of rise
LEFT_OUT = 0.6  # share of scans that lose channels; half of those keep a single one
KNOTS = 5  # of an intensity curve, its ends among them
BIAS = 0.3  # largest standard deviation of the logarithm of the bias field
BIAS_CELLS = 4  # control points of the bias field along an axis
BLUR = 0.9  # largest standard deviation of the point spread, in voxels
SHARED = 0.35  # least blur of a painted contrast, in voxels: neighbouring tissues share a voxel
NOISE = 0.05  # largest standard deviation of added noise; intensities run from 0 to 1 here
TEXTURE = 0.08  # largest standard deviation within a painted tissue, smooth and fine each


def varied(images: Tensor, classes: Tensor, study: Study, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """What a step sees of its scans, and what it should infer.

    Args:
        images: (B, C, X, Y, Z) in [-1, 1], background and absent channels -1.
        classes: Positions in ``Study.label_values``, (B, X, Y, Z).
        study: Which labels are inferred, and which laid over.
        random: Source of chance.

    Returns:
        Images as they came, and the network's classes (B, X, Y, Z) as :func:`inferred_classes` numbers them.
    """
    shape = (int(images.shape[2]), int(images.shape[3]), int(images.shape[4]))
    there = (images > ABSENT).flatten(2).any(dim=2)  # (B, C)
    head = (images > ABSENT).any(dim=1, keepdim=True).float()
    grid = SHAPES.draw(len(images), shape, random)
    moved, places = warp(torch.cat([images, head], dim=1), classes, len(study.labels), grid)
    out = torch.full_like(images, ABSENT)
    for number, (scan, index) in enumerate(zip(out, places, strict=True)):
        if _uniform(random) < AS_SCANNED:
            scan.copy_(images[number])
            index.copy_(classes[number])
        else:
            _rescan(scan, moved[number], index, there[number], random)
        _leave_channels_out(scan, random)
        if _uniform(random) < 0.5:
            scan.copy_(scan.flip(1))
            index.copy_(index.flip(0))
    return out, torch.from_numpy(inferred_classes(study))[places.long()]


def _rescan(scan: Tensor, image: Tensor, index: Tensor, present: Tensor, random: torch.Generator) -> None:
    """Other contrasts of one scan, written into ``scan`` (C, X, Y, Z); ``image`` holds the head as a last channel."""
    labels, inside = int(index.max()) + 1, (image[-1] > 0.5) | (index > 0)
    for channel in range(len(scan)):
        if _uniform(random) < PAINTED:
            contrast = _scanned(_painted(index, labels, random), inside, SHARED, random)
        elif present[channel]:
            contrast = _scanned(_bent(image[channel], random), inside, 0.0, random)
        else:
            continue
        scan[channel] = _as_prepared(contrast, inside)


def inferred_classes(study: Study) -> np.ndarray:
    """The network's class of each position in ``Study.label_values``; all that is laid over is one class, the last."""
    inferred = study.inferred_labels
    return np.array([inferred.index(v) if v in inferred else len(inferred) for v in study.label_values], np.int64)


def _uniform(random: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand((), generator=random))


def _bent(voxels: Tensor, random: torch.Generator) -> Tensor:
    """A channel's intensities, from [-1, 1] to [0, 1], through a random curve that rises or falls."""
    heights = torch.rand(KNOTS, generator=random).sort().values
    if _uniform(random) < INVERTED:
        heights = heights.flip(0)
    else:
        own = _uniform(random)  # between the random curve and none
        heights = own * heights + (1 - own) * torch.linspace(0, 1, KNOTS)
    place = ((voxels + 1) / 2).clamp(0, 1) * (KNOTS - 1)
    left = place.floor().long().clamp(max=KNOTS - 2)
    return torch.lerp(heights[left], heights[left + 1], place - left)


def _painted(index: Tensor, labels: int, random: torch.Generator) -> Tensor:
    """A contrast nobody's scanner has: a random intensity a label, with smooth and fine texture in it."""
    means, smooth, fine = torch.rand((3, labels), generator=random)
    field = _smooth_field(index.shape, random)
    white = torch.randn(index.shape, generator=random)
    position = index.long()
    texture = smooth[position] * field + fine[position] * white
    return torch.add(means[position], texture, alpha=TEXTURE)


def _scanned(voxels: Tensor, inside: Tensor, least: float, random: torch.Generator) -> Tensor:
    """Through a scanner: blurred within the head (by ``least`` or more), under a bias field, with noise."""
    brain = inside.float()
    sigma = _uniform(random, least, BLUR)
    # Divided by the head's own blur, so that its rim does not darken into the removed skull.
    blurred = _gaussian(voxels * brain, sigma) / _gaussian(brain, sigma).clamp(min=1e-3)
    bias = torch.exp(_uniform(random, 0.0, BIAS) * _smooth_field(voxels.shape, random))
    return blurred * bias + _uniform(random, 0.0, NOISE) * torch.randn(voxels.shape, generator=random)


def _as_prepared(voxels: Tensor, inside: Tensor) -> Tensor:
    """As ``cohorts.preparation.normalise``: percentiles of the foreground become -1 and 1, background is -1."""
    if not inside.any():
        return torch.full_like(voxels, ABSENT)
    low, high = np.percentile(voxels[inside].numpy(), [LOW, HIGH])
    scaled = (voxels - low) * (2 / max(high - low, 1e-6)) - 1
    return torch.where(inside, scaled.clamp(-1, 1), torch.full_like(voxels, ABSENT))


def _leave_channels_out(scan: Tensor, random: torch.Generator) -> None:
    """Leave out some of the channels (C, X, Y, Z) that there are, never all of them; in place."""
    there = (scan > ABSENT).flatten(1).any(dim=1).nonzero().flatten()
    if len(there) < 2 or _uniform(random) >= LEFT_OUT:
        return
    kept = 1 if _uniform(random) < 0.5 else int(torch.randint(1, len(there), (), generator=random))
    scan[there[torch.randperm(len(there), generator=random)[kept:]]] = ABSENT


def _smooth_field(shape: torch.Size, random: torch.Generator) -> Tensor:
    """A smooth field of about unit variance at its control points, (X, Y, Z)."""
    control = torch.randn((1, 1, BIAS_CELLS, BIAS_CELLS, BIAS_CELLS), generator=random)
    return functional.interpolate(control, size=tuple(shape), mode="trilinear", align_corners=True)[0, 0]


def _gaussian(voxels: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (X, Y, Z), zero beyond the border; below a fifth of a voxel there is none."""
    if sigma < 0.2:
        return voxels
    reach = int(3 * sigma + 1)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    out = voxels[None, None]
    for axis in range(3):
        size, padding = [1, 1, 1], [0, 0, 0]
        size[axis], padding[axis] = len(kernel), reach
        out = functional.conv3d(out, kernel.view(1, 1, *size), padding=tuple(padding))
    return out[0, 0]
