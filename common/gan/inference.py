"""From images to label probabilities, and how sure the network is of them.

The network's window is that of its training, a patch or its study's grid; a larger volume is read in overlapping
windows: instance norms then see what they saw in training, and memory does not grow with the volume. A volume and its
mirror image are read, and the two answers averaged.
"""

from __future__ import annotations

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from numpy.typing import NDArray

from ..cohorts.preparation import ABSENT
from ..device import Device
from ..study import Study
from .networks import Generator

OVERLAP = 0.25
"""Share of a window that its neighbour reads again."""


def infer(network: Generator, images: NDArray[np.float32], study: Study, device: Device) -> NDArray[np.float32]:
    """Probabilities of the inferred labels in one scan.

    Args:
        network: From images to labels, on the device.
        images: (C, X, Y, Z) in [-1, 1] at the study's spacing, any number of voxels; absent channels -1.
        study: Names channels, labels and the window.
        device: Where to run.

    Returns:
        (A, X, Y, Z) in the order of ``Study.inferred_labels``, summing to 1: what is laid over is not inferred.
    """

    patch = study.training.patch
    window = patch.shape if patch else study.grid.shape

    def read(volume: NDArray[np.float32]) -> NDArray[np.float32]:
        out = sliding_window_inference(
            torch.from_numpy(np.array(volume, dtype=np.float32))[None],
            window,
            1,
            lambda part: network(device.tensor(part), part[:, :0]),
            overlap=OVERLAP,
            mode="gaussian",
            cval=ABSENT,
            sw_device=device.torch,
            device=torch.device("cpu"),
        )
        return np.asarray(out[0].numpy(), dtype=np.float32)

    with torch.inference_mode(), device.autocast():
        both = read(images) + read(images[:, ::-1])[:, ::-1]
    shares = both[: len(study.inferred_labels)]
    return np.asarray(shares / np.maximum(shares.sum(axis=0, keepdims=True), 1e-6), dtype=np.float32)


def expected_dice(probabilities: NDArray[np.float32], judged: NDArray[np.bool_]) -> float:
    """The mean Dice over labels that the probabilities, if true, let expect of the most probable label.

    Labels that are nowhere the most probable count 0 where they are expected to fill more than a hundredth of the
    judged voxels, and else not at all. Background (the first label) is not judged.

    Args:
        probabilities: (A, X, Y, Z).
        judged: Voxels that count, (X, Y, Z).

    Returns:
        From 0 to 1; 0 where there is nothing to judge.
    """
    inside = probabilities[:, judged].astype(np.float64)  # (A, V)
    chosen = inside.argmax(axis=0)
    figures = []
    for label in range(1, len(inside)):
        mine, mass = chosen == label, float(inside[label].sum())
        if mine.any() or mass > 0.01 * inside.shape[1]:
            figures.append(2 * float(inside[label][mine].sum()) / (mass + float(mine.sum())))
    return float(np.mean(figures)) if figures else 0.0
