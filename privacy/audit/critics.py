"""Discriminators as the audit sees them: the controls' own, and those that the sites' folders kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ...common.device import Device
from ...common.errors import DataError
from ...common.gan.networks import Discriminator, one_hot
from ...common.gan.training_state import load_state, new_state
from ...common.site_folder import SiteFolder
from ...common.study import Study
from ..attacks.interface import AuditedScans, Logits
from ..statistics import Floats

_BATCH = 8
"""Scans judged at once: bounds memory on a node without a large GPU."""


def critic(network: Discriminator, study: Study, device: Device) -> Logits:
    """A discriminator's mean patch logit of each scan beside its own label map."""

    def logits(scans: AuditedScans) -> Floats:
        out = np.empty(len(scans))
        network.eval()
        with torch.inference_mode(), device.exact():
            for start in range(0, len(scans), _BATCH):
                some = slice(start, start + _BATCH)
                given = one_hot(torch.from_numpy(np.array(scans.labels[some])), len(study.labels))
                real = torch.from_numpy(np.array(scans.images[some], dtype=np.float32))
                patches, _ = network(device.tensor(given), device.tensor(real))  # (B, 1, x, y, z)
                out[some] = patches.double().mean(dim=(1, 2, 3, 4)).cpu().numpy()
        return out

    return logits


def kept_critics(folders: Sequence[SiteFolder], study: Study, device: Device) -> Logits | None:
    """The discriminators that these sites' folders kept after their last round, each for its own site's scans.

    None where one of them is missing or damaged: an insider is then not at hand for every patient.
    """
    found: dict[str, Logits] = {}
    for folder in folders:
        state = new_state(study, 0, device)
        try:
            load_state(folder.committed, state)
        except (OSError, DataError):
            return None
        found[folder.name] = critic(state.discriminator, study, device)
    return by_site(found)


def by_site(critics: Mapping[str, Logits]) -> Logits:
    """Each scan by the discriminator of its own site."""

    def logits(scans: AuditedScans) -> Floats:
        out, sites = np.empty(len(scans)), np.array(scans.sites, dtype=str)
        for site in np.unique(sites).tolist():
            rows = np.flatnonzero(sites == site)
            out[rows] = critics[site](scans.take(rows))
        return out

    return logits
