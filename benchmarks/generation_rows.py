"""Generation of volumes from label maps, against a plain loop in the same run."""

from __future__ import annotations

from material import Material
from measure import Row, alternated
from plain_loop import plain_generation

from fedphantom.common.device import Device
from fedphantom.common.gan.generation import paint
from fedphantom.common.gan.networks import make_generator

VOLUMES, REPEATS = 2, 12


def generation_rows(material: Material, device: Device) -> list[Row]:
    """``generation_over_plain``, and seconds a volume."""
    study = material.study
    network = make_generator(study, study.seed)
    device.place(network)
    classes = material.scans.classes[:VOLUMES]
    ours, plain = alternated(
        lambda: paint(network, classes, study, study.seed, device),
        lambda: plain_generation(network, classes, study, device),
        device.torch,
        REPEATS,
    )
    return [
        Row("generation", ours / VOLUMES, "s", plain / VOLUMES),
        Row("generation_over_plain", ours / plain, "ratio", 1.0, 1.05),
    ]
