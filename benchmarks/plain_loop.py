"""The same training and generation as one would write them by hand in PyTorch, without any of the product's care.

Same networks, losses, optimisers, memory format and precision; scans in memory, PyTorch's own random numbers, no
checks, no state that could be resumed.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedphantom.common.cohorts.preparation import PreparedScans
from fedphantom.common.device import Device
from fedphantom.common.gan.networks import COARSE_NOISE, FINE_NOISE, Generator
from fedphantom.common.gan.training_state import new_state
from fedphantom.common.study import Study


class PlainTraining:
    """Calling it does one step."""

    def __init__(self, scans: PreparedScans, study: Study, device: Device) -> None:
        state = new_state(study, study.seed, device)
        self.g, self.d = state.generator, state.discriminator
        self.g_optimiser, self.d_optimiser = state.generator_optimiser, state.discriminator_optimiser
        self.study, self.device = study, device
        self.volumes = torch.from_numpy(np.array(scans.volumes))
        self.classes = torch.from_numpy(np.array(scans.classes)).long()

    def __call__(self) -> None:
        """One step on a random batch."""
        options = self.study.training
        index = torch.randint(len(self.volumes), (options.batch,))
        real = to_device(self.volumes[index], self.device)
        labels = to_device(one_hot(self.classes[index], len(self.study.labels)), self.device)
        noise = to_device(plain_noise(options.batch, self.study), self.device)

        with self.device.autocast():
            fake = self.g(labels, noise)
            detached = fake.detach()
            logits = self.d(torch.cat([labels, labels]), torch.cat([real, detached]))[0].float()
            on_real, on_fake = logits.chunk(2)
            loss_d = ((on_real - 1).square().mean() + on_fake.square().mean()) / 2
        self.d_optimiser.zero_grad(set_to_none=True)
        loss_d.backward()
        self.d_optimiser.step()

        self.d.requires_grad_(False)
        with self.device.autocast():
            logits, of_fake = self.d(labels, fake)
            with torch.no_grad():
                of_real = self.d(labels, real)[1]
            loss_g = (logits.float() - 1).square().mean()
            loss_g = loss_g + options.l1_weight * functional.l1_loss(fake.float(), real)
            pairs = zip(of_fake, of_real, strict=True)
            matching = sum(functional.l1_loss(f.float(), r.float()) for f, r in pairs) / len(of_fake)
            loss_g = loss_g + options.feature_matching_weight * matching
        self.g_optimiser.zero_grad(set_to_none=True)
        loss_g.backward()
        self.g_optimiser.step()
        self.d.requires_grad_(True)


def plain_generation(
    network: Generator, classes: NDArray[np.uint8], study: Study, device: Device, batch: int
) -> list[Tensor]:
    """A batch of volumes (B, C, X, Y, Z), on the CPU, per batch of label maps (B, X, Y, Z)."""
    network.eval()
    out = []
    with torch.inference_mode(), device.autocast():
        for start in range(0, len(classes), batch):
            some = torch.from_numpy(np.array(classes[start : start + batch])).long()
            labels = to_device(one_hot(some, len(study.labels)), device)
            out.append(network(labels, to_device(plain_noise(len(some), study), device)).float().cpu())
    return out


def to_device(value: Tensor, device: Device) -> Tensor:
    """The product's memory format, so that only the loops differ."""
    return value.to(device.torch).contiguous(memory_format=torch.channels_last_3d)


def one_hot(classes: Tensor, number: int) -> Tensor:
    """(B, X, Y, Z) to (B, L, X, Y, Z)."""
    return functional.one_hot(classes, number).permute(0, 4, 1, 2, 3).float()


def plain_noise(batch: int, study: Study) -> Tensor:
    """The generator's noise (B, N, X, Y, Z)."""
    shape = study.grid.shape
    coarse = torch.randn(batch, COARSE_NOISE, *(n // 8 for n in shape))
    coarse = functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)
    return torch.cat([torch.randn(batch, FINE_NOISE, *shape), coarse], dim=1)
