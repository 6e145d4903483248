"""The U-Net by which usefulness is measured: trained on one arm's scans, scored by Dice and HD95 on real patients."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from monai.losses.dice import DiceCELoss
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
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

# MONAI 1.6 warns of its own use of an argument; a filter for a while would not hold across threads.
warnings.filterwarnings("ignore", message="monai.metrics.utils get_mask_edges", category=FutureWarning)

_GLOBAL_RANDOM = threading.Lock()
"""Arms train side by side, and a fresh network draws its weights from torch's global generator: one at a time."""


@dataclass(frozen=True)
class SegmenterPlan:
    """How a U-Net is trained.

    Attributes:
        steps: Optimiser steps.
        batch: Scans a step.
        learning_rate: Peak of the one-cycle schedule.
        augmentation: Whether every scan is changed anew each time it is seen: affine, smooth warp, contrast, noise.
    """

    steps: int = 600
    batch: int = 4
    learning_rate: float = 4e-3
    augmentation: bool = True


def train_segmenter(
    pairs: Pairs,
    channels: int,
    classes: int,
    plan: SegmenterPlan,
    seed: int,
    device: Device,
    progress: Callable[[int, int], None] | None = None,
    *,
    rows: Sequence[int] | None = None,
    start: nn.Module | None = None,
    patch: PatchTable | None = None,
) -> nn.Module:
    """Train a small 3-D U-Net, from scratch or, as fine-tuning, from trained weights.

    Args:
        pairs: Volumes (n, C, X, Y, Z) in [-1, 1] and class indices (n, X, Y, Z).
        channels: C.
        classes: Number of classes, background among them.
        plan: Schedule.
        seed: Of initial weights and every draw.
        device: Where to train.
        progress: Called with (steps done, steps in all).
        rows: Which scans to train on; all by default.
        start: A network of the same shape to start from; it is left as it is. Optimiser and schedule begin anew.
        patch: Train on such boxes of the scans; on whole scans by default.

    Raises:
        TrainingError: the loss is not finite; the step is named.
    """
    with _GLOBAL_RANDOM, torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "segmenter"))
        network: nn.Module = UNet(3, channels, classes, (12, 24, 48, 96), (2, 2, 2), num_res_units=1, norm="INSTANCE")
    if start is not None:
        network.load_state_dict(start.state_dict())
    device.place(network)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.learning_rate, total_steps=plan.steps)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    rows = range(len(pairs.classes)) if rows is None else rows
    for step in range(plan.steps):
        scans = [rows[i] for i in scans_of_step(len(rows), plan.batch, step, seed)]
        boxes = [
            draw_box(pairs.classes[i], patch, classes, numpy_generator(seed, "segmenter", step, k)) if patch else WHOLE
            for k, i in enumerate(scans)
        ]
        examples = list(zip(scans, boxes, strict=True))
        volume = torch.from_numpy(np.stack([pairs.volumes[i][:, *box] for i, box in examples]).astype(np.float32))
        truth = torch.from_numpy(np.stack([pairs.classes[i][box] for i, box in examples]))
        volume, truth = device.tensor(volume), device.tensor(truth)
        if plan.augmentation:
            volume, truth = _augmented(volume, truth, classes, torch_generator(seed, "segmenter", step), device)
        with device.autocast():
            logits = _logits(network, device.tensor(volume))
            loss = loss_of(logits.float(), truth.unsqueeze(1))
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


def _augmented(
    volume: Tensor, truth: Tensor, classes: int, random: torch.Generator, device: Device
) -> tuple[Tensor, Tensor]:
    """The usual augmentation of volumes (B, C, X, Y, Z) and class indices (B, X, Y, Z), both on the device."""
    batch, shape = len(volume), (volume.shape[2], volume.shape[3], volume.shape[4])
    volume, truth = warp(volume, truth, classes, AUGMENTATION.draw(batch, shape, random, device.torch))
    gamma = device.tensor(torch.exp((torch.rand((batch, 1, 1, 1, 1), generator=random) * 2 - 1) * GAMMA))
    volume = (((volume + 1) / 2).clamp(0, 1) ** gamma) * 2 - 1
    noise = torch.rand((batch, 1, 1, 1, 1), generator=random) * NOISE
    return volume + device.tensor(noise * torch.randn(volume.shape, generator=random)), truth


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


def hausdorff95(
    predicted: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    members: tuple[int, ...],
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.float64]:
    """Distance in mm per scan within which 95 % of either outline lie from the other, shape (n,).

    The larger of the two directed 95th percentiles, between the surface voxels of the unions of classes ``members``.

    | prediction | truth | value |
    |---|---|---|
    | empty | empty | 0 |
    | empty | not | the grid's diagonal: no distance on this grid is larger |
    | not | empty | the same |

    Source: Huttenlocher et al. 1993 (doi 10.1109/34.232073); MONAI's implementation, the percentile as in BraTS.
    """
    out = np.where(one_is_empty(predicted, truth, members), diagonal_mm(truth.shape[1:], spacing_mm), 0.0)
    p, t = np.isin(predicted, members), np.isin(truth, members)
    for i in np.flatnonzero(p.any(axis=(1, 2, 3)) & t.any(axis=(1, 2, 3))):
        found, wanted = (torch.from_numpy(mask[i][None, None]) for mask in (p, t))
        out[i] = compute_hausdorff_distance(
            found, wanted, include_background=True, percentile=95, spacing=spacing_mm
        ).item()
    return out


def diagonal_mm(shape: Sequence[int], spacing_mm: tuple[float, float, float]) -> float:
    """Distance in mm between the centres of a grid's two voxels that are furthest apart."""
    return float(np.linalg.norm((np.asarray(shape) - 1) * np.asarray(spacing_mm)))


def one_is_empty(predicted: NDArray[np.uint8], truth: NDArray[np.uint8], members: tuple[int, ...]) -> NDArray[np.bool_]:
    """Per scan, shape (n,): whether a structure is missed altogether, or found where there is none."""
    axes = tuple(range(1, predicted.ndim))
    return np.asarray(np.isin(predicted, members).any(axis=axes) != np.isin(truth, members).any(axis=axes))


def encoder_features(
    network: nn.Module, volumes: Rows[np.float32], device: Device, patch: PatchTable | None = None
) -> NDArray[np.float64]:
    """Mean over space of each channel at the U-Net's narrowest point, shape (n, 96), for volumes (n, C, X, Y, Z).

    Of a network that was trained on patches also the mean over its windows, which are those of :func:`segment`.
    """
    block = network.get_submodule("model")
    while isinstance(block, nn.Sequential):  # way down, (skip past, the next block), way up
        block = block[1].get_submodule("submodule")
    pooled: list[NDArray[np.float64]] = []

    def pool(module: nn.Module, given: tuple[Tensor, ...], features: Tensor) -> None:
        pooled.extend(features.double().mean(dim=(2, 3, 4)).cpu().numpy())

    handle = block.register_forward_hook(pool)
    out: list[NDArray[np.float64]] = []
    try:
        for volume in volumes:
            pooled.clear()
            segment(network, np.asarray(volume)[None], device, patch)
            out.append(np.mean(pooled, axis=0))
    finally:
        handle.remove()
    return np.stack(out)
