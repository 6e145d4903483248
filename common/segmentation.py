"""The U-Net by which usefulness is measured: trained on one arm's scans, scored by Dice on real patients."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from monai.losses.dice import DiceCELoss
from monai.networks.nets.unet import UNet
from numpy.typing import NDArray
from torch import Tensor, nn

from .cohorts.disk_rows import Rows
from .device import Device
from .errors import TrainingError
from .gan.augmentation import SpatialAugmentation, warp
from .gan.patches import WHOLE, draw_box
from .gan.training import Pairs, scans_of_step
from .randomness import derived_seed, numpy_generator, torch_generator
from .study import PatchTable

AUGMENTATION = SpatialAugmentation()
NOISE = 0.1  # largest standard deviation of added noise, in the prepared range [-1, 1]
GAMMA = 0.3  # largest change of log contrast

_GLOBAL_RANDOM = threading.Lock()
"""Arms train side by side, and a fresh network draws its weights from torch's global generator: one at a time."""


@dataclass(frozen=True)
class SegmenterPlan:
    """How every arm's U-Net is trained; the same for all arms.

    Attributes:
        steps: Optimiser steps.
        batch: Scans a step.
        learning_rate: Peak of the one-cycle schedule.
    """

    steps: int = 600
    batch: int = 4
    learning_rate: float = 4e-3


def train_segmenter(
    pairs: Pairs,
    channels: int,
    classes: int,
    plan: SegmenterPlan,
    seed: int,
    device: Device,
    progress: Callable[[int, int], None] | None = None,
    *,
    patch: PatchTable | None = None,
) -> nn.Module:
    """Train a small 3-D U-Net with the usual augmentation (affine, smooth warp, contrast, noise).

    Args:
        pairs: Volumes (n, C, X, Y, Z) in [-1, 1] and class indices (n, X, Y, Z).
        channels: C.
        classes: Number of classes, background among them.
        plan: Schedule.
        seed: Of initial weights and every draw.
        device: Where to train.
        progress: Called with (steps done, steps in all).
        patch: Train on such boxes of the scans; on whole scans by default.

    Raises:
        TrainingError: the loss is not finite; the step is named.
    """
    with _GLOBAL_RANDOM, torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "segmenter"))
        network: nn.Module = UNet(3, channels, classes, (12, 24, 48, 96), (2, 2, 2), num_res_units=1, norm="INSTANCE")
    device.place(network)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.learning_rate, total_steps=plan.steps)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    for step in range(plan.steps):
        scans = scans_of_step(len(pairs.classes), plan.batch, step, seed)
        random = torch_generator(seed, "segmenter", step)
        boxes = [
            draw_box(pairs.classes[i], patch, classes, numpy_generator(seed, "segmenter", step, k)) if patch else WHOLE
            for k, i in enumerate(scans)
        ]
        examples = list(zip(scans, boxes, strict=True))
        volume = torch.from_numpy(np.stack([pairs.volumes[i][:, *box] for i, box in examples]).astype(np.float32))
        truth = torch.from_numpy(np.stack([pairs.classes[i][box] for i, box in examples]))
        x, y, z = truth.shape[1:]
        volume, truth = warp(volume, truth, classes, AUGMENTATION.draw(len(scans), (x, y, z), random))
        gamma = torch.exp((torch.rand((len(scans), 1, 1, 1, 1), generator=random) * 2 - 1) * GAMMA)
        volume = (((volume + 1) / 2).clamp(0, 1) ** gamma) * 2 - 1
        noise = torch.rand((len(scans), 1, 1, 1, 1), generator=random) * NOISE
        volume = volume + noise * torch.randn(volume.shape, generator=random)
        with device.autocast():
            logits = _logits(network, device.tensor(volume))
            loss = loss_of(logits.float(), device.tensor(truth.unsqueeze(1)))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the segmenter's loss is not finite at step {step + 1}",
                expected="a finite loss",
                remedy="Run 'fedphantom cohort check' on the arm's cohort.",
            )
        if progress:
            progress(step + 1, plan.steps)
    return network.eval()


def segment(
    network: nn.Module, volumes: Rows[np.float32], device: Device, patch: PatchTable | None = None
) -> NDArray[np.uint8]:
    """Class indices (n, X, Y, Z) for volumes (n, C, X, Y, Z).

    A network that was trained on patches sees windows of their size, half overlapping and blended (nnU-Net, Isensee et
    al. 2021): its instance norms know no others.
    """
    predict = partial(_logits, network)
    out = []
    with torch.inference_mode(), device.autocast():
        for volume in volumes:
            given = device.tensor(torch.from_numpy(np.array(volume, dtype=np.float32))[None])
            if patch:
                logits = sliding_window_inference(given, patch.shape, 1, predict, overlap=0.5, mode="gaussian")
            else:
                logits = predict(given)
            out.append(logits[0].argmax(dim=0).to(torch.uint8).cpu().numpy())
    return np.stack(out)


def _logits(network: nn.Module, volume: Tensor) -> Tensor:
    """(B, C, X, Y, Z) to (B, L, X, Y, Z), with background laid beside axes that cannot be halved three times."""
    x, y, z = volume.shape[2:]
    missing = [-n % 8 for n in (z, y, x)]
    if any(missing):
        volume = nn.functional.pad(volume, [n for after in missing for n in (0, after)], value=-1)
    logits: Tensor = network(volume)
    return logits[:, :, :x, :y, :z]


def dice(predicted: NDArray[np.uint8], truth: NDArray[np.uint8], members: tuple[int, ...]) -> NDArray[np.float64]:
    """Dice per scan of the union of classes ``members``, shape (n,).

    Both empty counts 1, one empty 0. Source: Dice 1945; Zijdenbos et al. 1994.
    """
    p, t = np.isin(predicted, members), np.isin(truth, members)
    axes = tuple(range(1, p.ndim))
    both, sizes = (p & t).sum(axis=axes), p.sum(axis=axes) + t.sum(axis=axes)
    return np.where(sizes == 0, 1.0, 2 * both / np.maximum(sizes, 1))


def dice_per_region(
    predicted: NDArray[np.uint8], truth: NDArray[np.uint8], regions: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[np.float64]]:
    """Dice per scan for each named region of class indices."""
    return {name: dice(predicted, truth, members) for name, members in regions.items()}
