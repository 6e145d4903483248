"""From label maps to synthetic volumes, and to a synthetic cohort on disk.

Every volume is a function of (generator, label map, noise seed): the sidecar holds all three, so that anyone with
the generator can make it again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..cohorts.bids_writer import BidsWriter
from ..cohorts.preparation import normalise
from ..device import Device
from ..errors import DataError, about
from ..exchange import Parameters
from ..labels.chain import CHAIN_KEY
from ..labels.folder import refuse_unfit
from ..labels.sampler import SampledLabels
from ..labels.stated_origin import GENERATOR_KEY
from ..parallel import side_by_side
from ..randomness import derived_seed, torch_generator
from ..run_result import JOURNAL, RUN_FILE, failed_round
from ..site_folder import SITE_FILE
from ..study import Maps, Study
from .networks import Generator, draw_noise, generator_shapes, make_generator, one_hot
from .parameters import ParameterSpec
from .slabs import paint_in_slabs, slab_thickness
from .weights import ENSEMBLE, GENERATOR, decode_weights, read_weights_header, study_of

BATCH = 4
"""Volumes painted at once, at most."""
VOXELS_AT_ONCE = 4 * 64**3
"""And voxels of all of them together, at most: this bounds memory. Of larger volumes one is painted at a time."""
FLOOR = -0.99
"""Outputs at or below this are background: written as exactly 0, as skull-stripped scans have it."""
WRITTEN_MAXIMUM = 1000.0
"""Intensity that the top of the generator's range is written as; MRI has no absolute unit."""


@dataclass(frozen=True)
class LoadedGenerator:
    """A generator ready to paint.

    Attributes:
        network: On the device, in evaluation mode.
        study: What it was trained for.
        sha256: Of the weights file's bytes.
        dp: What its header says of the formal promise.
    """

    network: Generator
    study: Study
    sha256: str
    device: Device
    dp: str


def load_generator(path: Path, device: Device, maps: Maps = "labels-to-images") -> LoadedGenerator:
    """Read ``generator.safetensors``.

    Raises:
        DataError: not a weights file, damaged, its network maps the other way, or its parameters do not fit it.
    """
    shapes, metadata = read_weights_header(path)
    study = study_of(metadata)
    if study.network.maps != maps:
        raise DataError(
            f"a network from {study.network.maps.replace('-to-', ' to ')}",
            expected=f"one from {maps.replace('-to-', ' to ')}",
            remedy="Labels are painted with 'fedphantom generate', and inferred with 'fedphantom labels infer'.",
        )
    problem = ParameterSpec(generator_shapes(study)).shape_problem(shapes)
    if problem:
        raise DataError(
            f"weights that do not fit the study's '{study.network.preset}' generator: {problem}",
            expected="the parameters of that network",
            remedy="Take generator.safetensors from the run or release itself.",
        )
    # From here on the file is known to be as large as the network; one reading serves weights and hash.
    data = path.read_bytes()
    parameters, _ = decode_weights(data, path)
    network = generator_with(parameters, study, device)
    return LoadedGenerator(network.eval(), study, hashlib.sha256(data).hexdigest(), device, metadata.get("dp", ""))


def load_generators(path: Path, device: Device) -> tuple[LoadedGenerator, ...]:
    """Read a weights file, or all of a folder of them (an ensemble), in the order of their names.

    Raises:
        DataError: as :func:`load_generator`; a folder of another kind, a run's or a site's among them, no weights file
            in it, or generators of different studies.
    """
    if not path.is_dir():
        return (load_generator(path, device),)
    _refuse_other_folder(path)
    loaded = tuple(_member(file, device) for file in sorted(path.glob("*.safetensors"), key=lambda file: file.stem))
    if len({generator.study.digest() for generator in loaded}) != 1:
        raise DataError(
            f"a folder with {len(loaded)} generators, not all of one study"
            if loaded
            else "a folder without a generator",
            expected="the folder of generators that an ensemble's run left",
            remedy="Give that folder, or one weights file.",
        )
    return loaded


def _member(file: Path, device: Device) -> LoadedGenerator:
    with about(f"'{file.name}' in a folder that was read as an ensemble's generators"):
        return load_generator(file, device)


def _refuse_other_folder(path: Path) -> None:
    """Say of a run's, release's or site's folder which file in it, or elsewhere, is meant."""
    name = path.name or path.resolve().name
    if (path / SITE_FILE).exists():
        remedy = (
            f"Give the file in it: '{name}/{GENERATOR}'."
            if (path / GENERATOR).is_file()
            else f"Give the {GENERATOR} of the run or release; this site holds none of its own."
        )
        found = "a site's folder"
    elif (path / GENERATOR).is_file():
        found, remedy = "a run's or release's folder", f"Give the file in it: '{name}/{GENERATOR}'."
    elif (path / ENSEMBLE).is_dir():
        found = "the folder of an ensemble's run"
        remedy = f"Give '{name}/{ENSEMBLE}' for all its generators in turn, or one file in it."
    elif (path / RUN_FILE).exists() and any(path.glob(f"sites/*/{GENERATOR}")):
        found = "the folder of a run whose sites keep their generators to themselves"
        remedy = f"Give a site's own: '{name}/sites/NAME/{GENERATOR}'."
    elif (path / RUN_FILE).exists():
        found, remedy = _unended(path)
    else:
        return
    raise DataError(found, expected=f"a {GENERATOR}, or an ensemble's folder of generators", remedy=remedy)


def _unended(run: Path) -> tuple[str, str]:
    """What is said of a run's folder without a result, and what to do: it may go on as it is, or a round failed."""
    failed = failed_round(run)
    if failed is None:
        return "the folder of a run that has not finished", "Give the same 'simulate' again: it goes on."
    return (
        f"the folder of a run that did not end: its round {failed} failed",
        f"'fedphantom journal show' of its {JOURNAL} says why each site was left out. Once that is mended, the same"
        " 'simulate' goes on. Its checkpoints are no generators.",
    )


def generator_with(parameters: Parameters, study: Study, device: Device) -> Generator:
    """The study's generator with these parameters, on the device; they are known to fit its network."""
    network = make_generator(study, seed=0)
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in parameters.items()})
    device.place(network)
    return network


def numpy_parameters(network: torch.nn.Module) -> dict[str, NDArray[np.float32]]:
    """A network's parameters by name, float32, on the CPU; copies, not views."""
    return {
        name: value.detach().to("cpu", torch.float32, memory_format=torch.contiguous_format, copy=True).numpy()
        for name, value in network.state_dict().items()
    }


def initial_parameters(study: Study) -> dict[str, NDArray[np.float32]]:
    """The generator every run of the study starts from; a function of the study alone."""
    return numpy_parameters(make_generator(study, study.seed))


def paint(
    network: Generator, classes: NDArray[np.uint8], study: Study, seed: int, device: Device
) -> NDArray[np.float32]:
    """Generate one volume per label map, in float32 on every device: a release is checked by painting it again.

    Args:
        network: On the device.
        classes: Class indices (n, X, Y, Z).
        study: Names the number of classes.
        seed: Of the noise; volume i draws from (seed, i).
        device: Where to run.

    Returns:
        Volumes (n, C, X, Y, Z) in [-1, 1].
    """
    return _painted(network, classes, study, [(seed, i) for i in range(len(classes))], device)


def paint_each(
    network: Generator, classes: NDArray[np.uint8], study: Study, seeds: Sequence[int], device: Device
) -> NDArray[np.float32]:
    """As :func:`paint`, but volume i has a seed of its own: as ``paint`` would make it, alone, with ``seeds[i]``."""
    return _painted(network, classes, study, [(seed, 0) for seed in seeds], device)


def painted_at_once(network: Generator, shape: tuple[int, ...]) -> int:
    """How many volumes (X, Y, Z) are painted together; 1 where slab follows slab."""
    return 1 if network.local else max(1, min(BATCH, VOXELS_AT_ONCE // math.prod(shape)))


def _painted(
    network: Generator, classes: NDArray[np.uint8], study: Study, seeds: list[tuple[int, int]], device: Device
) -> NDArray[np.float32]:
    shape = (int(classes.shape[1]), int(classes.shape[2]), int(classes.shape[3]))
    out = np.empty((len(classes), len(study.channels), *shape), dtype=np.float32)
    training = network.training
    network.eval()
    with torch.inference_mode(), device.exact():
        if network.local:
            thickness = slab_thickness(network, shape, device)
            for i, one in enumerate(classes):
                noise = draw_noise(1, shape, torch_generator(*seeds[i]))
                out[i] = paint_in_slabs(network, one, noise, len(study.labels), device, thickness)
        else:
            batch = painted_at_once(network, shape)
            for start in range(0, len(classes), batch):
                some = np.array(classes[start : start + batch])
                labels = one_hot(torch.from_numpy(some), len(study.labels))
                # Each volume's noise is its own: what a batch holds beside it changes nothing.
                drawn = [draw_noise(1, shape, torch_generator(*seed)) for seed in seeds[start : start + batch]]
                noise = torch.cat(drawn)
                if len(some) == 1 < batch:
                    # A CPU convolves one volume by other means than several: two to four times as long, and to other
                    # last bits. Beside itself a volume left over comes out as it would beside any other.
                    labels, noise = torch.cat([labels, labels]), torch.cat([noise, noise])
                volumes = network(device.tensor(labels), device.tensor(noise))[: len(some)]
                out[start : start + batch] = volumes.float().cpu().numpy()
    network.train(training)
    return out


def generate_cohort(
    generators: LoadedGenerator | Sequence[LoadedGenerator],
    labels: Iterable[SampledLabels],
    out: Path,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write a BIDS cohort of synthetic scans, one for each label map; returns how many.

    Args:
        generators: One, or an ensemble's: they take turns, in this order, and each volume's sidecar names its painter.
        labels: Label values (X, Y, Z) of the generators' study with their chains.
        out: A new folder; it appears when it is whole.
        seed: Of the noise.
        progress: Called with the number done.

    Raises:
        DataError: a label map of another grid or with values outside the study's labels.
        StorageError: the disk is full, or ``out`` is not new.
    """
    painters = [generators] if isinstance(generators, LoadedGenerator) else generators
    study, number, private = painters[0].study, 0, 0
    name = f"Synthetic volumes of the study '{study.name}'"
    with BidsWriter(out, study.volume_grid(), study.channels, study.labels, name, synthetic=True) as writer:
        together = painted_at_once(painters[0].network, study.grid.shape)
        # Each painter its share of the label maps at once; of volumes too large for that, only one is held.
        for some in _in_parts(labels, together * len(painters) if together > 1 else 1):
            classes = np.stack([_classes(one, number + i, study) for i, one in enumerate(some, start=1)])
            turns = [(number + i) % len(painters) for i in range(len(some))]
            seeds = [derived_seed(seed, "noise", number + i) for i in range(1, len(some) + 1)]
            volumes: dict[int, NDArray[np.float32]] = {}
            for turn in sorted(set(turns)):
                own = [i for i in range(len(some)) if turns[i] == turn]
                network, device = painters[turn].network, painters[turn].device
                painted = paint_each(network, classes[own], study, [seeds[i] for i in own], device)
                volumes.update(zip(own, painted, strict=True))
            for i, sampled in enumerate(some):
                number += 1
                facts = {
                    GENERATOR_KEY: painters[turns[i]].sha256,
                    CHAIN_KEY: sampled.chain.model_dump(mode="json"),
                    "NoiseSeed": seeds[i],
                }
                writer.add(f"synthetic{number:05d}", as_written(volumes[i]), sampled.labels, facts)
                if not sampled.chain.is_public:
                    private += 1
                    writer.for_owner_alone()
                if progress:
                    progress(number)
        if not number:
            raise DataError(
                "no label map to paint", expected="one or more", remedy="Use --sample N or a folder of label maps."
            )
        promised = "; ".join(dict.fromkeys(painter.dp or "not stated by the generator's file" for painter in painters))
        whose, maps = _whose(number, private), _origin(number, private)
        writer.describe(name + whose, LabelMaps=maps, DifferentialPrivacy=promised)
    return number


def _in_parts(labels: Iterable[SampledLabels], size: int) -> Iterator[list[SampledLabels]]:
    remaining = iter(labels)
    while some := list(islice(remaining, size)):
        yield some


def _classes(sampled: SampledLabels, number: int, study: Study) -> NDArray[np.uint8]:
    """Class indices (X, Y, Z) of the label map that comes as the given number."""
    refuse_unfit(sampled.labels, number, study)
    return np.searchsorted(np.asarray(study.label_values), sampled.labels).astype(np.uint8)


def _whose(number: int, private: int) -> str:
    if not private:
        return "; no patient was scanned for them"
    return f"; {private} of {number} painted from private label maps, which may be patients' own"


def _origin(number: int, private: int) -> str:
    """Where label maps come from by their chains, and whether ``release pack`` would look at them at all."""
    if not private:
        return "from public sources, as the chain in each sidecar says; 'release pack' makes each again to see"
    return (
        f"{private} of {number} private: given, and not from the public sampler, or without a chain that says so."
        " Not to be passed on: such volumes cannot be released"
    )


def as_written(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Generator range [-1, 1] to stored intensities [0, 1000], background exactly 0."""
    scaled = (volume + 1) * np.float32(WRITTEN_MAXIMUM / 2)
    return np.where(volume <= FLOOR, np.float32(0), scaled).astype(np.float32)


def as_read_back(volumes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Painted volumes (n, C, X, Y, Z) as whoever prepares the written cohort gets them, without the disk between."""
    out = np.empty(volumes.shape, np.float32)

    def read(i: int) -> None:
        for c, channel in enumerate(volumes[i]):
            out[i, c] = normalise(as_written(channel))

    for _ in side_by_side([partial(read, i) for i in range(len(volumes))]):
        pass
    return out
