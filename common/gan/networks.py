"""Generator and discriminator for label map → multi-parametric MRI, and for the way back, in 3-D, from MONAI blocks.

Axes: B batch, L label classes (one-hot), N noise channels, C MRI channels, X right, Y anterior, Z superior.
One design for both ways (``network.maps``): G channels are given, M are made of them. From labels to images G is L and
M is C in [-1, 1]; from images to labels G is C, M is the inferred classes' probabilities, and N is 0.
No BatchNorm anywhere: its statistics mix patients, break per-patient gradients and travel badly between
sites. Instance and group norms are per sample.

Source: U-Net generator with PatchGAN, Isola et al. 2017 (arXiv 1611.07004), as Shin et al. 2018 (arXiv
1807.10225) use it; in 3-D.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from monai.networks.blocks.convolutions import Convolution
from monai.networks.blocks.dynunet_block import UnetBasicBlock
from monai.networks.blocks.upsample import UpSample
from torch import Tensor, nn

from ..randomness import torch_generator
from ..study import Maps, Study
from .cpu_layers import PairedConvolution, PointConvolution, VolumeNorm

_Network = TypeVar("_Network", bound=nn.Module)

FINE_NOISE, COARSE_NOISE = 2, 2
COARSE_CELL = 8  # voxels: coarse noise varies at the scale of the U-Net's deepest level


@dataclass(frozen=True)
class Preset:
    """Feature maps per resolution level, full resolution first."""

    generator: tuple[int, ...]
    discriminator: tuple[int, ...]


PRESETS = {
    "tiny": Preset(generator=(8, 16, 32), discriminator=(8, 16, 32)),
    "small": Preset(generator=(8, 16, 32, 64), discriminator=(16, 32, 64)),
    "base": Preset(generator=(32, 64, 128, 256), discriminator=(32, 64, 128)),
}


class Generator(nn.Module):
    """U-Net from what is given and noise to all that is made at once: channels in [-1, 1], or class probabilities.

    Grids of any size.

    What is given also reaches the last convolution directly: each label's mean intensity is then learnt in a few
    steps, and rare labels are not drowned in features that an instance norm scales by the whole volume.

    Args:
        given: G.
        made: M.
        widths: Feature maps per resolution level, full resolution first.
        maps: Which way; decides on noise and on the last step.
        local: Every output voxel depends on its surroundings alone: features are normalised voxel by voxel, and
            interpolated at places that do not depend on the volume's size. So what was learnt on patches holds in
            the whole volume. False: instance norms, for networks that only ever see whole volumes.
    """

    def __init__(
        self,
        given: int,
        made: int,
        widths: tuple[int, ...],
        *,
        maps: Maps = "labels-to-images",
        local: bool = False,
    ) -> None:
        super().__init__()
        before = given + noise_channels(maps)
        self.widths, self.maps, self.local = widths, maps, local
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            self.down.append(_block(before, width, stride=1 if level == 0 else 2, local=local))
            before = width
        self.up = nn.ModuleList()
        self.merge = nn.ModuleList()
        for deep, shallow in zip(widths[:0:-1], widths[-2::-1], strict=True):
            # Interpolation, not transposed convolution: that one paints a checkerboard (Odena et al. 2016).
            self.up.append(
                UpSample(
                    3,
                    deep,
                    shallow,
                    scale_factor=2,
                    mode="nontrainable",
                    interp_mode="linear",
                    align_corners=not local,
                    pre_conv="default" if local else PointConvolution(deep, shallow, 1),
                )
            )
            self.merge.append(_block(2 * shallow, shallow, stride=1, local=local))
        self.head = (nn.Conv3d if local else PointConvolution)(widths[0] + given, made, kernel_size=1)

    def forward(self, given: Tensor, noise: Tensor) -> Tensor:
        """What is given (B, G, X, Y, Z) and noise (B, N, X, Y, Z) to what is made (B, M, X, Y, Z)."""
        fine = self.encode(given, noise)
        return self.paint(fine, self.below(self.down[1](fine)), given)

    def encode(self, given: Tensor, noise: Tensor) -> Tensor:
        """Features of the first level, (B, F, X, Y, Z)."""
        features: Tensor = self.down[0](torch.cat([given, noise], dim=1))
        return features

    def below(self, half: Tensor) -> Tensor:
        """Features of the second level, (B, F, X/2, Y/2, Z/2) rounded up, down to the deepest level and up again."""
        skips, features = [], half
        for block in self.down[2:]:
            skips.append(features)
            features = block(features)
        for up, merge in zip(self.up[:-1], self.merge[:-1], strict=True):
            features = merge(_joined(up(features), skips.pop()))
        return features

    def paint(self, fine: Tensor, half: Tensor, given: Tensor) -> Tensor:
        """What :meth:`encode` and :meth:`below` gave, and what is given again, to what is made (B, M, X, Y, Z)."""
        features = self.merge[-1](_joined(self.up[-1](half), fine))
        raw = self.head(torch.cat([features, given], dim=1))
        return torch.tanh(raw) if self.maps == "labels-to-images" else raw.float().softmax(dim=1)


class VoxelNorm(nn.Module):
    """Each voxel's features scaled to a mean square of 1 over the features: a function of that voxel alone.

    An instance norm's statistics are the whole volume's: of a patch full of brain they differ from those of a volume
    that is mostly air, and with them every intensity.

    Source: pixel norm, Karras et al. 2018 (arXiv 1710.10196).
    """

    def forward(self, features: Tensor) -> Tensor:
        """(B, F, X, Y, Z) to the same."""
        last = features.permute(0, 2, 3, 4, 1)
        return nn.functional.rms_norm(last, last.shape[-1:], eps=1e-5).permute(0, 4, 1, 2, 3)


def _block(before: int, width: int, stride: int, *, local: bool) -> UnetBasicBlock:
    block = UnetBasicBlock(3, before, width, kernel_size=3, stride=stride, norm_name="INSTANCE")
    if local:
        block.norm1, block.norm2 = VoxelNorm(), VoxelNorm()
    else:
        block.norm1, block.norm2 = VolumeNorm(width), VolumeNorm(width)
        convolutions = [block.conv1, block.conv2] if stride == 1 else [block.conv2]
        for one in convolutions:
            one.conv = PairedConvolution.instead_of(one.conv)
    return block


def _joined(upper: Tensor, skip: Tensor) -> Tensor:
    """Interpolated features cut to the skip connection's size, which an odd axis rounded up on the way down."""
    x, y, z = skip.shape[2:]
    return torch.cat([upper[:, :, :x, :y, :z], skip], dim=1)


class Discriminator(nn.Module):
    """PatchGAN on what was made, beside what it was made of; also hands out its features for feature matching.

    Group norm with one channel a group (instance norm that survives an empty batch, PRIVACY §1.6.8).
    """

    def __init__(self, given: int, made: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        before = given + made
        self.blocks = nn.ModuleList()
        for level, width in enumerate(widths):
            self.blocks.append(
                Convolution(
                    spatial_dims=3,
                    in_channels=before,
                    out_channels=width,
                    strides=2,
                    kernel_size=4,
                    padding=1,
                    act=("LEAKYRELU", {"negative_slope": 0.2}),
                    norm=None if level == 0 else ("GROUP", {"num_groups": width}),
                    adn_ordering="NA",
                )
            )
            before = width
        self.head = nn.Conv3d(before, 1, kernel_size=3, padding=1)

    def forward(self, given: Tensor, made: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Given (B, G, X, Y, Z) and made (B, M, X, Y, Z) to patch logits (B, 1, x, y, z) and features."""
        features = torch.cat([given, made], dim=1)
        kept = []
        for block in self.blocks:
            features = block(features)
            kept.append(features)
        return self.head(features), kept


def make_generator(study: Study, seed: int) -> Generator:
    """The study's generator; parameters initialised from the seed, whatever torch's global generator holds."""
    return _initialised(_generator(study), seed, "generator")


def generator_shapes(study: Study) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and shapes of the study's generator's parameters, sorted by name; no parameter is allocated."""
    with torch.device("meta"):
        network = _generator(study)
    return tuple((name, tuple(value.shape)) for name, value in sorted(network.state_dict().items()))


def _generator(study: Study) -> Generator:
    widths = PRESETS[study.network.preset].generator
    maps = study.network.maps
    # A volume is painted whole, whatever patches were seen; images are read in windows of the patches' own size.
    local = study.training.patch is not None and maps == "labels-to-images"
    return Generator(*given_and_made(study), widths, maps=maps, local=local)


def make_discriminator(study: Study, seed: int) -> Discriminator:
    """The study's discriminator; it never leaves the site."""
    widths = PRESETS[study.network.preset].discriminator
    return _initialised(Discriminator(*given_and_made(study), widths), seed, "discriminator")


def given_and_made(study: Study) -> tuple[int, int]:
    """Channels that the study's generator is given, and that it makes."""
    if study.network.maps == "labels-to-images":
        return len(study.labels), len(study.channels)
    return len(study.channels), made_classes(study)


def made_classes(study: Study) -> int:
    """Classes that a network from images to labels tells apart: the inferred, and one for all that is laid over."""
    return len(study.inferred_labels) + bool(study.network.overlay)


def noise_channels(maps: Maps) -> int:
    """N: the same label map has many images, but an image has one anatomy."""
    return FINE_NOISE + COARSE_NOISE if maps == "labels-to-images" else 0


def _initialised(network: _Network, seed: int, name: str) -> _Network:
    random = torch_generator(seed, name)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, a=0.2, generator=random)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return network


def draw_noise(batch: int, shape: tuple[int, int, int], random: torch.Generator) -> Tensor:
    """Standard normal noise (B, N, X, Y, Z): white at voxel scale for texture, then smooth for anatomy's variety.

    Noise varies in space because a constant would be cancelled by the instance norms.
    """
    fine = torch.randn((batch, FINE_NOISE, *shape), generator=random)
    cells = tuple(max(2, n // COARSE_CELL) for n in shape)
    coarse = torch.randn((batch, COARSE_NOISE, *cells), generator=random)
    coarse = nn.functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)
    return torch.cat([fine, coarse], dim=1)


def one_hot(class_index: Tensor, classes: int) -> Tensor:
    """Class indices (B, X, Y, Z), any integer type, to one-hot float32 (B, L, X, Y, Z), on the same device."""
    out = torch.zeros((class_index.shape[0], classes, *class_index.shape[1:]), device=class_index.device)
    return out.scatter_(1, class_index.long().unsqueeze(1), 1.0)
