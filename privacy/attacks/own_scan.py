"""A1 the other way: how well a network from images to labels knows a scan's own label map.

Membership by loss, Yeom et al. 2018 (arXiv 1709.01604), calibrated by how hard the scan is for a network that never
saw an audited patient, Watson et al. 2022 (arXiv 2111.08440).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...common.errors import DataError
from ..statistics import Floats
from .interface import AttackScores, AuditedScans, Images, by_patient

Read = Callable[[Images], Images]
"""A network from images to labels: (N, C, X, Y, Z) to class probabilities (N, M, X, Y, Z), M summing to 1."""

_BATCH = 4
"""Scans read at once: bounds memory on a node without a large GPU."""
_SMALLEST = 1e-6
"""Keeps the logarithm of an impossible class finite."""


def own_scan_losses(network: Read, scans: AuditedScans, classes: NDArray[np.intp], judged: NDArray[np.bool_]) -> Floats:
    """Mean cross-entropy of each scan's own label map, in judged voxels. Shape (N,).

    Args:
        network: Target, reference or control.
        scans: Their images are the queries.
        classes: The network's class of each label (``inferred_classes``), by position in the study's labels.
        judged: Shape (N, X, Y, Z).

    Raises:
        DataError: the network gives another number of scans, classes or voxels, or non-finite ones.
    """
    out = np.empty(len(scans))
    expected = (int(classes.max()) + 1, *scans.labels.shape[1:])
    for start in range(0, len(scans), _BATCH):
        images = scans.images[start : start + _BATCH]
        shares = network(images)
        if shares.shape != (len(images), *expected) or not np.isfinite(shares).all():
            raise DataError(
                f"a network's output of shape {shares.shape}, or with non-finite voxels",
                expected=f"{(len(images), *expected)}, finite",
                remedy="Check that the network belongs to this study.",
            )
        for i, own in enumerate(shares, start=start):
            truth = classes[scans.labels[i]][judged[i]]
            probability = np.take_along_axis(own[:, judged[i]], truth[None], axis=0)[0]
            out[i] = -np.log(np.maximum(probability, _SMALLEST), dtype=np.float64).mean()
    return out


def own_scan_scores(target_losses: Floats, reference_losses: Floats, scans: AuditedScans) -> AttackScores:
    """Calibrated: the reference's loss less the target's, large where the target alone knows the label map well."""
    return by_patient("A1", scans, reference_losses - target_losses)
