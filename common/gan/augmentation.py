"""Random but replayable deformation of (volume, label map) pairs on the fly, in torch.

Chance is drawn from a generator passed in; applying is deterministic. Used for generator training (a generator
that will be asked to paint deformed public maps should have seen deformed maps) and for segmentation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

CPU = torch.device("cpu")


@dataclass(frozen=True)
class SpatialAugmentation:
    """Ranges of a random affine and a smooth displacement.

    Attributes:
        rotation_deg: About each axis, uniform in ±.
        scale: Each axis scaled by 1 ± this.
        displacement: Standard deviation of the smooth displacement, in voxels.
        cell: Voxels between the displacement's control points.
    """

    rotation_deg: float = 6.0
    scale: float = 0.08
    displacement: float = 1.0
    cell: int = 12

    def draw(
        self,
        batch: int,
        shape: tuple[int, int, int],
        random: torch.Generator,
        there: torch.device = CPU,  # where the grids are made of the few numbers that are drawn, on the CPU always
    ) -> Tensor:
        """Sampling grids (B, X, Y, Z, 3) in ``grid_sample``'s coordinates (last axis ordered Z, Y, X)."""
        angles = (torch.rand((batch, 3), generator=random) * 2 - 1) * math.radians(self.rotation_deg)
        factors = 1 + (torch.rand((batch, 3), generator=random) * 2 - 1) * self.scale
        cells = [n // self.cell + 2 for n in shape]
        control = torch.randn((batch, 3, *cells), generator=random) * self.displacement
        offset = nn.functional.interpolate(control.to(there), size=shape, mode="trilinear", align_corners=True)
        axes = [torch.arange(n, dtype=torch.float32, device=there) - (n - 1) / 2 for n in shape]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"))  # (3, X, Y, Z), voxels from the centre
        matrix = (_rotation(angles) * factors[:, None, :]).to(there)
        moved = torch.einsum("bij,jxyz->bixyz", matrix, points) + offset
        half = torch.tensor([(n - 1) / 2 for n in shape], device=there).view(1, 3, 1, 1, 1)
        return (moved / half).permute(0, 2, 3, 4, 1).flip(-1)


def warp(volume: Tensor, class_index: Tensor, classes: int, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Warp volumes (B, C, X, Y, Z) linearly and class indices (B, X, Y, Z) by linear one-hot and argmax."""
    masks = torch.stack([(class_index == c).float() for c in range(1, classes)], dim=1)
    both = nn.functional.grid_sample(torch.cat([volume, masks], dim=1), grid, align_corners=True, padding_mode="border")
    image, masks = both[:, : volume.shape[1]], both[:, volume.shape[1] :]
    background = 1 - masks.sum(dim=1, keepdim=True)
    return image, torch.cat([background, masks], dim=1).argmax(dim=1)


def _rotation(angles: Tensor) -> Tensor:
    """Angles (B, 3) in radians about X, Y, Z to matrices (B, 3, 3)."""
    (cx, cy, cz), (sx, sy, sz) = torch.cos(angles).T, torch.sin(angles).T
    zero, one = torch.zeros_like(cx), torch.ones_like(cx)
    about_x = torch.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx], dim=1).view(-1, 3, 3)
    about_y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], dim=1).view(-1, 3, 3)
    about_z = torch.stack([cz, -sz, zero, sz, cz, zero, zero, zero, one], dim=1).view(-1, 3, 3)
    return about_z @ about_y @ about_x
