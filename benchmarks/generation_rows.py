"""Generation of volumes from label maps: small ones against a plain loop in the same run, full-size ones alone.

Like with like: the plain loop paints as many volumes at once as the product does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from material import Material
from measure import Row, alternated
from plain_loop import plain_generation

from fedphantom.common.device import Device
from fedphantom.common.gan.generation import paint, painted_at_once
from fedphantom.common.gan.networks import make_generator

BATCHES, REPEATS = 2, 12


def generation_rows(material: Material, device: Device) -> list[Row]:
    """``generation_over_plain``, the plain loop in the same batches, and seconds a volume."""
    study = material.study
    network = make_generator(study, study.seed)
    device.place(network)
    batch = painted_at_once(network, study.grid.shape)
    classes = material.scans.classes[: BATCHES * batch]
    ours, plain = alternated(
        lambda: paint(network, classes, study, study.seed, device),
        lambda: plain_generation(network, classes, study, device, batch),
        device.torch,
        REPEATS,
    )
    return [
        Row("generation", ours / len(classes), "s", plain / len(classes)),
        Row("generation_over_plain", ours / plain, "ratio", 1.0),  # ours draws each volume's noise from its own seed
    ]


def full_size_rows(device: Device) -> list[Row]:
    """``generate_full_size_seconds`` a volume, label map to files, and ``generate_full_size_peak_mb`` with sampling.

    In a process of its own: a peak is that of all it ever did.
    """
    command = [sys.executable, str(Path(__file__).with_name("full_size.py")), device.torch.type]
    facts = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return [
        Row("generate_full_size_seconds", facts["generate_seconds"], "s", None, 3.0 if device.cuda else 90.0),
        Row("generate_full_size_processor_seconds", facts["generate_processor_seconds"], "s"),
        Row("generate_full_size_peak_mb", facts["peak_mb"], "MB", None, 5000.0),
        Row("sample_full_size_seconds", facts["sample_seconds"], "s"),
    ]
