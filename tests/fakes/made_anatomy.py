"""A network that is sure of what it sees, and scans for it to read."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from tiny_anatomy import anatomy_study

from fedphantom.cli import run
from fedphantom.common.anatomy.cohort import InferenceReport, infer_cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.device import choose_device
from fedphantom.common.gan.generation import LoadedGenerator, numpy_parameters
from fedphantom.common.gan.networks import make_generator

CPU = choose_device("cpu")
STUDY = anatomy_study()
SECRET = bytes(range(32))
DRAWN = 9
TABLE = {"background": (0, 3), "tumour": (DRAWN,)}
"""What the cohort's values mean: 3 is its own 'rest of the head'."""
LPS = np.array([[-2.0, 0, 0, 30], [0, -2.0, 0, 21], [0, 0, 2.0, -7], [0, 0, 0, 1]])


def certain_network(sure: float = 40.0) -> dict[str, NDArray[np.float32]]:
    """Weights that call a voxel brain where the first channel is above -0.9, and are this sure of it."""
    network = make_generator(STUDY, 0)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.zero_()
        network.head.weight[0, -2] = -sure  # background falls with T1, the first of the two channels given
        network.head.bias[0] = -0.9 * sure
        network.head.bias[2] = -99.0  # never what is laid over
    return numpy_parameters(network)


def head_in_corner() -> NDArray[np.float32]:
    """A lopsided head, so that a turned or shifted label map shows; (X, Y, Z) as stored."""
    x, y, z = np.meshgrid(np.arange(30), np.arange(36), np.arange(28), indexing="ij")
    head = ((x - 11) / 8) ** 2 + ((y - 21) / 11) ** 2 + ((z - 15) / 9) ** 2 < 1
    head |= (abs(x - 16) < 5) & (abs(y - 12) < 4) & (abs(z - 20) < 4)
    random = np.random.default_rng(1)
    return np.where(head, 300 + random.uniform(-40, 40, head.shape), 0).astype(np.float32)


def write_scan(folder: Path, channels: tuple[str, ...] = ("t1", "flair"), drawn: bool = True) -> NDArray[np.float32]:
    """A BraTS-like folder; the tumour is drawn as 9, the rest of the head as 3."""
    folder.mkdir(parents=True)
    voxels = head_in_corner()
    for name in channels:
        nib.save(nib.Nifti1Image(voxels, LPS), folder / f"{name}.nii.gz")
    if drawn:
        labels = np.where(voxels > 0, 3, 0).astype(np.uint8)
        labels[8:12, 18:22, 13:17] = DRAWN
        nib.save(nib.Nifti1Image(labels, LPS), folder / "seg.nii.gz")
    return voxels


def write_doubtful(folder: Path) -> None:
    """No head at all: every voxel about as bright as where the network changes its mind, but for a few."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(2)
    voxels = 100 + random.uniform(4, 6, (30, 36, 28))
    voxels[random.random(voxels.shape) < 0.02] = 200
    voxels[random.random(voxels.shape) < 0.02] = 100
    for name in ("t1", "flair"):
        nib.save(nib.Nifti1Image(voxels.astype(np.float32), LPS), folder / f"{name}.nii.gz")


def infer_all(cohort: Path, network: LoadedGenerator, out: Path, threshold: float = 0.8) -> InferenceReport:
    return infer_cohort(read_cohort(cohort), network, out, secret=SECRET, threshold=threshold, remapping=TABLE)


def command(cohort: Path, out: Path, weights: Path, *more: str) -> int:
    table = out.parent / "table.toml"
    table.write_text(f"background = [0, 3]\ntumour = [{DRAWN}]\n")
    return run(["labels", "infer", str(cohort), str(out), "--network", str(weights), "--remapping", str(table), *more])
