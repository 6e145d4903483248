"""``full_size.py DEVICE [PRESET]``: full-size volumes from label map to file, in a process of their own; prints JSON.

240×240×155 voxels of 1 mm, four channels: the grid of the BraTS challenges. Label maps are sampled from the atlas; a
generator of a study that trains on patches is loaded from a file, paints them and writes them, as ``generate`` does.
Its weights are not trained, but its background is air, as a trained one's is: air compresses faster than noise.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from resident_peak import resident_peak_gib

from fedphantom.common.device import choose_device
from fedphantom.common.gan.generation import generate_cohort, load_generator, numpy_parameters
from fedphantom.common.gan.networks import make_generator
from fedphantom.common.gan.weights import generator_metadata, save_weights
from fedphantom.common.labels.sampler import make_label_sampler
from fedphantom.common.phantom.study import phantom_study
from fedphantom.common.study import NetworkTable, PatchTable, Study, TrainingTable
from fedphantom.common.volumes.grid import Grid

VOLUMES = 2
PATCHES = TrainingTable(patch=PatchTable(shape=(64, 64, 64)))
STUDY = phantom_study("full-size", 1, Grid((240, 240, 155), (1, 1, 1)), PATCHES)


def main(device_name: str, preset: str = "small") -> None:
    """Make label maps, then volumes; print seconds of each a volume, and the peak in MB: of the device where it is a
    GPU, of the process where it is not.
    """
    device = choose_device(device_name)
    study = STUDY.model_copy(update={"network": NetworkTable.model_validate({"preset": preset})})
    with tempfile.TemporaryDirectory() as folder:
        _save_generator(Path(folder) / "generator.safetensors", study)
        sampler = make_label_sampler(study, None)
        started = time.perf_counter()
        labels = [sampler.sample(study.seed, index) for index in range(VOLUMES)]
        sampled = time.perf_counter()
        generator = load_generator(Path(folder) / "generator.safetensors", device)
        cpu = time.process_time()
        loaded = time.perf_counter()
        generate_cohort(generator, labels, Path(folder) / "out", study.seed)
        facts = {
            "sample_seconds": (sampled - started) / VOLUMES,
            "generate_seconds": (time.perf_counter() - loaded) / VOLUMES,
            "generate_processor_seconds": (time.process_time() - cpu) / VOLUMES,
            "peak_mb": (torch.cuda.max_memory_allocated() if device.cuda else resident_peak_gib() * 2**30) / 1e6,
        }
    print(json.dumps(facts))


def _save_generator(path: Path, study: Study) -> None:
    network = make_generator(study, study.seed)
    with torch.no_grad():
        network.head.weight[:, network.widths[0]] = -5  # the first label is background
    save_weights(path, numpy_parameters(network), generator_metadata(study, 1))


if __name__ == "__main__":
    main(*sys.argv[1:])
