"""The search of a generator's weights for a scan: what the network is given is optimised until it paints that scan.

Searched is what varies at the scale of anatomy: a relaxed label map, the scan's own with every label's share raised
or lowered smoothly, and the coarse noise; the fine noise is drawn anew for each start. Voxel by voxel, shares of labels
and fine noise would have more numbers than a scan has voxels: with them any generator paints any scan, and a search
that reaches everything tells nobody from anybody (docs/experiments.md, "How free a search of the weights may be").

The network is copied and its copy frozen: no search changes the one under audit, however often it runs.
"""

from __future__ import annotations

import copy
import time
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...common.device import Device
from ...common.errors import DataError
from ...common.gan.networks import COARSE_CELL, COARSE_NOISE, FINE_NOISE, Generator, draw_noise, one_hot
from ...common.parallel import side_by_side, usable_cores
from ...common.randomness import torch_generator
from ...common.study import Study
from ..attacks.interface import AuditedScans, Search, Told
from ..statistics import Floats

RESTARTS = 3
"""Starts of the search for one scan, each with noise of its own."""
STEPS = 20
"""Steps from each."""
RATE = 0.1
"""Adam's, for coarse noise (standard normal at the start) and for the label map's logits."""
CELL = 4
"""Voxels from one searched value of a label's logits to the next; trilinear between."""
_KNOWN = 0.99
"""Share of a voxel that its own label has at the start; the rest is spread over all labels, so that each can grow."""
_VOXELS_AT_ONCE = 64**3
"""Of the starts searched together, at most: the features of all of them are kept for the gradient."""


def weight_search(
    network: Generator, study: Study, device: Device, restarts: int = RESTARTS, steps: int = STEPS
) -> Search:
    """What the weights of a generator allow.

    A search starts from the scan's own label map, which whoever looks for a known scan can draw: own-mask queries are
    the strongest on a conditional generator (PRIVACY §3.2). The least error on the way counts, not the last one.

    Args:
        network: On the device; not changed.
        study: Names the number of classes.
        device: Where to run; on a CPU several scans are searched side by side, each on one thread, so that the number
            of cores changes no score.
        restarts: Starts a scan; the same ones for every scan and every network.
        steps: From each start.

    Returns:
        A search that raises DataError where an error is not finite.
    """
    frozen = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    at_once = 1 if device.cuda else None

    def least(scans: AuditedScans, judged: NDArray[np.bool_], scan: int, steps: int) -> float:
        image = device.tensor(torch.from_numpy(np.array(scans.images[scan : scan + 1], dtype=np.float32)))
        seen = device.tensor(torch.from_numpy(judged[None, None, scan].astype(np.float32)))
        own = one_hot(torch.from_numpy(np.array(scans.labels[scan : scan + 1])), len(study.labels))
        together = min(restarts, max(1, _VOXELS_AT_ONCE // judged[scan].size))
        return min(
            _least_error(frozen, image, seen, own, device, range(first, min(first + together, restarts)), steps)
            for first in range(0, restarts, together)
        )

    def errors(scans: AuditedScans, judged: NDArray[np.bool_], told: Told) -> Floats:
        out = np.empty(len(scans))
        searches = [partial(least, scans, judged, scan, steps) for scan in range(len(scans))]
        for done, (scan, error) in enumerate(side_by_side(searches, at_once), start=1):
            out[scan] = error
            told(done, len(scans))
        return out

    def seconds(scans: AuditedScans, judged: NDArray[np.bool_]) -> float:
        def step() -> float:
            begun = time.perf_counter()
            least(scans, judged, 0, 1)
            return time.perf_counter() - begun

        # The first call also prepares the kernels. Beside each other, as they will run.
        side = at_once or min(usable_cores(), len(scans))
        step()
        measured = [took for _, took in side_by_side([step] * side, at_once)]
        return float(np.mean(measured)) * steps * len(scans) / side

    return Search(errors, seconds)


def _least_error(
    network: Generator, image: Tensor, seen: Tensor, own: Tensor, device: Device, starts: range, steps: int
) -> float:
    """The smallest mean squared error in judged voxels on the way from each of some starts.

    Args:
        network: Frozen.
        image: The scan, (1, C, X, Y, Z).
        seen: 1 in judged voxels, (1, 1, X, Y, Z).
        own: Its label map, one-hot, (1, L, X, Y, Z), on the CPU.
        device: Where the network is.
        starts: Numbers of the noise draws to start from.
        steps: Of Adam.
    """
    shape, n = (int(own.shape[2]), int(own.shape[3]), int(own.shape[4])), len(starts)
    drawn = [draw_noise(1, shape, torch_generator(0, "search", start)) for start in starts]
    noise = device.tensor(torch.cat(drawn))
    logits = device.tensor((_KNOWN * own + (1 - _KNOWN) / own.shape[1]).log())
    shift = _coarse(n, own.shape[1], shape, CELL, device)
    stir = _coarse(n, COARSE_NOISE, shape, COARSE_CELL, device)
    optimiser = torch.optim.Adam([shift, stir], RATE)
    judged = float(seen.sum()) * image.shape[1]
    best = np.inf
    with torch.enable_grad(), device.exact():
        for _ in range(steps):
            stirred = torch.cat([noise[:, :FINE_NOISE], noise[:, FINE_NOISE:] + _smooth(stir, shape)], dim=1)
            painted = network((logits + _smooth(shift, shape)).softmax(dim=1), stirred)
            each = ((painted.float() - image) * seen).square().sum(dim=(1, 2, 3, 4)) / judged  # (B,)
            error = float(each.detach().min())
            if not bool(torch.isfinite(each.detach()).all()):
                raise DataError(
                    "a generator's output with non-finite voxels, where its weights were searched",
                    expected="finite intensities",
                    remedy="The training diverged; train again with a smaller learning rate.",
                )
            best = min(best, error)
            optimiser.zero_grad(set_to_none=True)
            each.sum().backward()
            optimiser.step()
    return best


def _coarse(n: int, channels: int, shape: tuple[int, int, int], cell: int, device: Device) -> Tensor:
    """What is searched: zeros (n, channels, x, y, z), one a cell, as coarse noise is drawn."""
    cells = [max(2, side // cell) for side in shape]
    return torch.zeros((n, channels, *cells), device=device.torch, requires_grad=True)


def _smooth(coarse: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Cells to voxels (n, channels, X, Y, Z)."""
    return nn.functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)
