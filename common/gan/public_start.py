"""``public-start.safetensors``: both networks as public scans alone trained them, and public label maps.

What an adversarial training goes out from (PRIVACY §1.4). Nothing in it comes from a private patient, so every site
may have it, and the study names it by its hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..atomic import write_atomic
from ..device import Device
from ..errors import ConfigError, DataError, VerificationFailed, about
from ..exchange import Parameters
from ..labels.chain import LabelSource, label_digest
from ..labels.sampler import LabelSampler, PublicLabelMap, make_label_sampler
from ..site_folder import PUBLIC_START
from ..study import Study
from ..tensor_file import decode, encode
from .generation import initial_parameters
from .label_means import PublicMeans
from .networks import make_discriminator, make_generator
from .parameters import ParameterSpec
from .training_state import TrainingState, new_state

_WHAT = "public start file"
CENTRE, SCALE = "means.centre", "means.scale"


@dataclass(frozen=True)
class PublicStart:
    """A public start file, read and found to fit its study.

    Attributes:
        generator: Its parameters.
        discriminator: Its parameters; public, unlike those of any site.
        maps: Undeformed public label maps (n, X, Y, Z), label values; none where the study takes the atlas.
        centre: Means of every label over the public scans, (L - 1, 2 C).
        scale: Their standard deviations.
    """

    generator: Parameters
    discriminator: Parameters
    maps: NDArray[np.uint8]
    centre: NDArray[np.float32]
    scale: NDArray[np.float32]

    def state(self, study: Study, device: Device) -> TrainingState:
        """These networks with fresh optimisers."""
        state = new_state(study, study.seed, device)
        for network, parameters in ((state.generator, self.generator), (state.discriminator, self.discriminator)):
            network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in parameters.items()})
        return state

    def means(self, device: Device) -> PublicMeans:
        """Means over the public scans, on the device."""
        return PublicMeans(*(device.tensor(torch.from_numpy(np.array(part))) for part in (self.centre, self.scale)))

    def sampler(self, study: Study) -> LabelSampler:
        """Draws the study's public label maps."""
        if study.public_labels.source == "atlas":
            return make_label_sampler(study, None)
        table = study.public_labels
        sources = [
            LabelSource(
                kind="public",
                name=table.name,
                licence=table.licence,
                citation=table.citation,
                sha256=label_digest(labels),
            )
            for labels in self.maps
        ]
        maps = [PublicLabelMap(labels, source) for labels, source in zip(self.maps, sources, strict=True)]
        return LabelSampler(maps, table, study.grid.spacing_mm)


def write_public_start(
    path: Path, networks: TrainingState, maps: Sequence[NDArray[np.uint8]], means: PublicMeans
) -> str:
    """Write the file whole or not at all.

    Args:
        path: Where to.
        networks: Trained on public scans alone.
        maps: Undeformed public label maps (X, Y, Z), label values; none for the atlas.
        means: Of the public scans.

    Returns:
        Its SHA-256, which the study's ``training.start`` names it by.
    """
    arrays: dict[str, NDArray[np.float32]] = {}
    for prefix, network in (("generator", networks.generator), ("discriminator", networks.discriminator)):
        arrays |= {
            f"{prefix}.{name}": value.detach().cpu().contiguous().numpy()
            for name, value in network.state_dict().items()
        }
    arrays |= {f"map.{number:04d}": labels.astype(np.float32) for number, labels in enumerate(maps)}
    arrays |= {name: value.cpu().numpy() for name, value in ((CENTRE, means.centre), (SCALE, means.scale))}
    data = encode(arrays, {"steps": networks.step})
    write_atomic(path, data)
    return hashlib.sha256(data).hexdigest()


def read_public_start(path: Path, study: Study) -> PublicStart:
    """Read the start that a study names.

    Raises:
        ConfigError: the study names none.
        DataError: no readable file, or one that does not fit the study's networks, grid or labels.
        VerificationFailed: another file than the study names.
    """
    if study.training.start is None:
        raise ConfigError(
            "a study with objective 'adversarial' that names no public start",
            expected="training.start, the SHA-256 of a public start file",
            remedy="Make one with 'fedphantom study pretrain STUDY.toml OUT --public COHORT'; it prints the line.",
        )
    try:
        data = path.read_bytes()
    except OSError:
        raise DataError(
            "no readable public start file",
            expected="the file that the study's training.start names",
            remedy="Give it with --start FILE; 'fedphantom study pretrain' makes one.",
        ) from None
    if hashlib.sha256(data).hexdigest() != study.training.start:
        raise VerificationFailed(
            "a public start file other than the one that the study names",
            expected=f"SHA-256 {study.training.start[:16]}…",
            remedy="Take the file from whoever made the study.",
        )
    arrays, _ = decode(data, _WHAT)
    generator, discriminator = _part(arrays, "generator."), _part(arrays, "discriminator.")
    maps = [arrays[name] for name in sorted(arrays) if name.startswith("map.")]
    problem = (
        _spec(make_generator(study, 0)).problem(generator)
        or _spec(make_discriminator(study, 0)).problem(discriminator)
        or _map_problem(maps, study)
        or _means_problem(arrays, study)
    )
    if problem:
        raise DataError(
            f"the {_WHAT} does not fit the study: {problem}",
            expected="networks and label maps of the study itself",
            remedy="Make it again with 'fedphantom study pretrain' and this study.",
        )
    stacked = np.stack(maps).astype(np.uint8) if maps else np.empty((0, *study.grid.shape), np.uint8)
    return PublicStart(generator, discriminator, stacked, arrays[CENTRE], arrays[SCALE])


def _map_problem(maps: Sequence[NDArray[np.float32]], study: Study) -> str | None:
    values = set(study.label_values)
    if any(labels.shape != study.grid.shape or not set(np.unique(labels).tolist()) <= values for labels in maps):
        return "a label map is on another grid or holds other labels"
    if not maps and study.public_labels.source == "folder":
        return "it holds no label map, and the study takes them from a folder"
    return None


def _means_problem(arrays: Parameters, study: Study) -> str | None:
    centre, scale = arrays.get(CENTRE), arrays.get(SCALE)
    shape = (len(study.labels) - 1, 2 * len(study.channels))
    if centre is None or scale is None or not centre.shape == scale.shape == shape:
        return "it holds no means over public scans, or of other labels and channels"
    return None if np.isfinite(centre).all() and (scale > 0).all() else "its means are not finite"


def first_parameters(study: Study, start: Path | None) -> dict[str, NDArray[np.float32]]:
    """The generator that a run of the study starts from: its public start's, or a function of the study alone.

    Raises:
        ConfigError: a start for a study that goes out from none.
        FedPhantomError: as :func:`read_public_start`.
    """
    with about("--start"):
        if study.from_public_start:
            return dict(read_public_start(start or Path(PUBLIC_START), study).generator)
        if start is not None:
            raise ConfigError(
                "a public start for a study that goes out from none",
                expected="training.start in the study, the line that 'fedphantom study pretrain' prints",
                remedy="Add the line, or leave --start out: it would have no effect.",
            )
    return initial_parameters(study)


def _part(arrays: Parameters, prefix: str) -> dict[str, NDArray[np.float32]]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _spec(network: torch.nn.Module) -> ParameterSpec:
    return ParameterSpec(tuple((name, tuple(value.shape)) for name, value in sorted(network.state_dict().items())))
