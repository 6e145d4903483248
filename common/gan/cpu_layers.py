"""A generator's layers as a CPU paints fastest: the same sums in another order, used only where nothing is learnt.

Two fifths of the time of painting on a CPU went into copies between memory layouts around the instance norms, and a
convolution to eight feature maps leaves half of a processor's sixteen lanes empty. On a GPU, and in training, these
layers are torch's own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_LANES = 16
"""Single-precision numbers in a vector of AVX-512; on a processor with fewer nothing is lost."""
_ROW = 64
"""Numbers summed side by side."""
_NEAR = 2048
"""Rows squared at once: so many stay in a core's own cache."""


class VolumeNorm(nn.InstanceNorm3d):
    """Instance norm without parameters that leaves ``channels_last_3d`` as it is."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, F, X, Y, Z) to the same, each feature map of each volume with mean 0 and variance 1.

        Painting, in place: what comes in is a convolution's output, which nobody else reads.
        """
        if not _painting_in_lanes(features):
            return super().forward(features)
        width, voxels = features.shape[1], math.prod(features.shape[2:])
        # Several voxels make one row, so that a sum over rows has work for whole vectors.
        together = math.gcd(voxels, max(1, _ROW // width))

        def mean(sums: Tensor) -> Tensor:
            return (sums.reshape(together, width).sum(dim=0) / voxels).repeat(together)

        for volume in features.permute(0, 2, 3, 4, 1):
            rows = volume.view(voxels // together, together * width)
            rows -= mean(rows.sum(dim=0))
            # A second pass: in single precision a mean of squares less a squared mean loses digits.
            squares = torch.stack([part.square().sum(dim=0) for part in rows.split(_NEAR)])
            rows *= torch.rsqrt(mean(squares.sum(dim=0)) + self.eps)
        return features


class PairedConvolution(nn.Conv3d):
    """A 3³ convolution to so few feature maps that two neighbours along Z fill a vector: both are found at once.

    Of a kernel one voxel longer, moved by two: each of the pair is multiplied with the other's end by a weight of 0.
    """

    @classmethod
    def instead_of(cls, conv: nn.Conv3d) -> PairedConvolution:
        """The same convolution, with the same parameters; its kernel is 3³, its stride 1 and it has no bias."""
        out = cls(conv.in_channels, conv.out_channels, 3, padding=1, bias=False, device="meta")
        out.weight = conv.weight
        return out

    def forward(self, features: Tensor) -> Tensor:
        """(B, F, X, Y, Z) to (B, G, X, Y, Z)."""
        if not _painting_in_lanes(features) or 2 * self.out_channels > _LANES or features.shape[-1] % 2:
            return super().forward(features)
        ahead, behind = nn.functional.pad(self.weight, (0, 1)), nn.functional.pad(self.weight, (1, 0))
        weight = torch.cat([ahead, behind]).contiguous(memory_format=torch.channels_last_3d)
        pairs = nn.functional.conv3d(features, weight, stride=(1, 1, 2), padding=1)  # (B, 2 G, X, Y, Z / 2)
        batch, _, *shape = features.shape
        return pairs.permute(0, 2, 3, 4, 1).reshape(batch, *shape, self.out_channels).permute(0, 4, 1, 2, 3)


class PointConvolution(nn.Conv3d):
    """A 1³ convolution as the matrix product that it is, which leaves ``channels_last_3d`` as it is."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, F, X, Y, Z) to (B, G, X, Y, Z)."""
        if not _painting_in_lanes(features):
            return super().forward(features)
        matrix = self.weight.reshape(self.out_channels, self.in_channels)
        return nn.functional.linear(features.permute(0, 2, 3, 4, 1), matrix, self.bias).permute(0, 4, 1, 2, 3)


def _painting_in_lanes(features: Tensor) -> bool:
    return (
        torch.is_inference_mode_enabled()
        and features.device.type == "cpu"
        and features.dtype == torch.float32
        and features.is_contiguous(memory_format=torch.channels_last_3d)
    )
