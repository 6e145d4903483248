"""A whole volume painted slab after slab, in bounded memory, to the very voxels that painting it at once would give.

Only the first level's features are too many to hold for a whole volume: they are made for a slab along X at a time,
with what lies around it, once on the way down and once more on the way up. All below is an eighth of them and made
for the whole volume. Slabs overlap by more than a first-level voxel sees; where two overlap they agree, so nothing has
to be blended and there is no seam. This needs a generator whose output depends on its surroundings alone
(``Generator.local``).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..device import Device
from .networks import Generator, one_hot

OVERLAP = 8
"""Voxels on each side of a slab. Needed: 3 where it is painted (two convolutions and an interpolation), and 6 where
the second level is made (two convolutions at full resolution, two at half)."""


def paint_in_slabs(
    network: Generator, classes: NDArray[np.uint8], noise: Tensor, labels: int, device: Device, thickness: int
) -> NDArray[np.float32]:
    """Paint one volume.

    Args:
        network: On the device, with ``local``, in evaluation mode.
        classes: Class indices (X, Y, Z).
        noise: (1, N, X, Y, Z) on the CPU, drawn for the whole volume.
        labels: Number of classes.
        device: Where to run.
        thickness: Of a slab along X without its overlap; a multiple of 2.

    Returns:
        Volume (C, X, Y, Z) in [-1, 1].
    """
    depth = classes.shape[0]
    bounds = [(start, min(start + thickness, depth)) for start in range(0, depth, thickness)]

    def encoded(low: int, high: int) -> tuple[Tensor, Tensor]:
        indices = torch.from_numpy(np.array(classes[None, low:high])).to(device.torch)  # a byte a voxel to move
        given = one_hot(indices, labels).contiguous(memory_format=torch.channels_last_3d)
        return network.encode(given, device.tensor(noise[:, :, low:high])), given

    halves = []
    for start, end in bounds:
        low, high = _around(start, end, depth)
        half = network.down[1](encoded(low, high)[0])
        halves.append(half[:, :, (start - low) // 2 : math.ceil((end - low) / 2)])
    below = network.below(torch.cat(halves, dim=2))
    del halves, half

    out = np.empty((network.head.out_channels, *classes.shape), dtype=np.float32)
    for start, end in bounds:
        low, high = _around(start, end, depth)
        fine, given = encoded(low, high)
        part = network.paint(fine, below[:, :, low // 2 : math.ceil(high / 2)], given)
        out[:, start:end] = part[0, :, start - low : end - low].float().cpu().numpy()
    return out


def slab_thickness(network: Generator, shape: tuple[int, ...], device: Device) -> int:
    """How thick slabs may be, so that the features of one stay within bounds: 256 MiB on a CPU, 8 times that on a GPU.

    Three to five such feature maps are held at once.
    """
    features = network.widths[0] * shape[1] * shape[2]
    most = (1 << 29 if device.cuda else 1 << 26) // features - 2 * OVERLAP
    return max(OVERLAP, most // OVERLAP * OVERLAP)


def _around(start: int, end: int, depth: int) -> tuple[int, int]:
    return max(0, start - OVERLAP), min(depth, end + OVERLAP)
