"""The noised step against the plain one of the same batch, and against Opacus' per-sample gradients."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import Row, alternated
from opacus import GradSampleModule
from torch import Tensor

from fedphantom.common.cohorts.preparation import PreparedScans
from fedphantom.common.device import Device
from fedphantom.common.gan.networks import draw_noise
from fedphantom.common.gan.patches import WHOLE
from fedphantom.common.gan.training import Batch, cut, plain_discriminator_step
from fedphantom.common.gan.training_state import TrainingState, new_state
from fedphantom.common.phantom.study import phantom_study
from fedphantom.common.promise import PromiseTable
from fedphantom.common.randomness import numpy_generator, torch_generator
from fedphantom.common.study import Study
from fedphantom.common.volumes.grid import Grid
from fedphantom.privacy.dp.discriminator import PrivateDiscriminatorStep
from fedphantom.privacy.dp.drawn_sum import DrawnSum
from fedphantom.privacy.dp.noised import noised_parameters
from fedphantom.privacy.dp.patients import PrivatePatients
from fedphantom.privacy.dp.randomness import SecretRandom
from fedphantom.privacy.dp.step import NoisedSum, as_gradients, clipped

SIDE, LARGER_SIDE, PATIENTS, REPEATS = 48, 64, 4, 12
STEPS: int = PromiseTable.model_fields["discriminator_steps"].default
"""A batch of so many patients, at 48³ voxels (and, against the plain step alone, 64³), four channels, seven labels."""
HOW = NoisedSum(clip_norm=1.0, noise_multiplier=1.0, expected_batch=PATIENTS)

Step = Callable[[], object]


WAYS = ("plain", "noised", "hooks", "functorch")


def step_of(way: str, device: Device, side: int = SIDE) -> Step:
    """One of :data:`WAYS`: one update of the same discriminator from the same batch of ``side``³ voxels each.

    Scans and fakes are at hand for all of them: what is timed is the discriminator's step. Every parameter is noised.
    """
    study = phantom_study("dp-step", 1, Grid((side, side, side), (4, 4, 4)))
    scans = made_scans(study)
    given, real, fake = batch(scans, study, device)
    if way == "noised":
        return noised(study, scans, fake, device)
    if way == "plain":
        return plain(study, given, real, fake, device)
    return opacus(study, given, real, fake, device, functorch=way == "functorch")


def made_scans(study: Study) -> PreparedScans:
    """Patients of noise; a step takes as long on them as on any others."""
    rng = numpy_generator(1, "dp step")
    shape = study.grid.shape
    volumes = rng.normal(0, 0.5, (PATIENTS, len(study.channels), *shape)).clip(-1, 1).astype(np.float32)
    classes = rng.integers(0, len(study.labels), (PATIENTS, *shape)).astype(np.uint8)
    names = tuple(f"p{i}" for i in range(PATIENTS))
    return PreparedScans(volumes, classes, names, ("A",) * PATIENTS, np.zeros((PATIENTS, 0)))


def batch(
    scans: PreparedScans, study: Study, device: Device, state: TrainingState | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Label maps, scans and fakes of all patients, on the device; painted by a new generator where none is given."""
    state = state or new_state(study, 1, device)
    given, real = cut(scans, [(i, WHOLE) for i in range(PATIENTS)], study, device)
    noise = device.tensor(draw_noise(PATIENTS, study.volume_grid().shape, torch_generator(1)))
    with torch.no_grad(), device.autocast():
        fake = state.generator(given, noise).float()
    return given, real, fake


def plain(study: Study, given: Tensor, real: Tensor, fake: Tensor, device: Device) -> Step:
    """The step of a training that promises nothing."""
    state = new_state(study, 1, device)
    noise = given[:, :0]
    return lambda: plain_discriminator_step(state, Batch(given, noise, real), fake)


def noised(study: Study, scans: PreparedScans, fake: Tensor, device: Device) -> Step:
    """Ours; every patient drawn."""
    state, random = new_state(study, 1, device), SecretRandom(device.torch)
    patients = PrivatePatients(scans, study, device)
    names = noised_parameters(state.discriminator, "all")
    step = PrivateDiscriminatorStep(patients, everybody(random), names, 1, random)

    drawn = [patients.draw(patient, random) for patient in range(PATIENTS)]
    examples = [
        (torch.cat([given, given]), torch.cat([real, fake[i : i + 1]])) for i, (given, real) in enumerate(drawn)
    ]
    return lambda: step.update(state, examples.__getitem__)


def everybody(random: SecretRandom) -> DrawnSum:
    """Sums of all patients, as often as one likes."""
    return DrawnSum(PATIENTS, 1.0, HOW, random, sys.maxsize)


def whole_steps(device: Device) -> dict[str, Step]:
    """All that goes on between two steps of the generator: ours, and the same without a promise.

    ``noised``: patients drawn, a fake painted for each, the usual number of noised steps, the loss on public fakes.
    ``plain``: fakes of the same label maps painted in one batch, as many plain steps of all patients. ``updates``:
    these steps alone, fakes at hand.
    """
    study = phantom_study("dp-step", 1, Grid((SIDE, SIDE, SIDE), (4, 4, 4)))
    scans, state, random = made_scans(study), new_state(study, 1, device), SecretRandom(device.torch)
    given, real, fake = batch(scans, study, device)
    names = noised_parameters(state.discriminator, "all")
    patients = PrivatePatients(scans, study, device)
    step = PrivateDiscriminatorStep(patients, everybody(random), names, STEPS, random)
    public = Batch(given[: study.training.batch], given[:0], real[: study.training.batch])
    update = plain(study, given, real, fake, device)

    def updates() -> None:
        for _ in range(STEPS):
            update()

    def plainly() -> None:
        batch(scans, study, device, state)
        updates()

    return {
        "noised": lambda: step(state, public, fake[: study.training.batch]),
        "plain": plainly,
        "updates": updates,
    }


def opacus(study: Study, given: Tensor, real: Tensor, fake: Tensor, device: Device, *, functorch: bool) -> Step:
    """Per-sample gradients by Opacus; real and fake of a patient make one gradient, clipped and noised as ours is."""
    state = new_state(study, 1, device)
    network = GradSampleModule(state.discriminator, loss_reduction="sum", force_functorch=functorch)
    parameters = list(network.parameters())
    both, volumes = torch.cat([given, given]), torch.cat([real, fake])
    towards = torch.cat([torch.ones(PATIENTS), torch.zeros(PATIENTS)]).to(device.torch).view(-1, 1, 1, 1, 1)
    random = SecretRandom(device.torch)

    def step() -> None:
        with device.autocast():
            logits, _ = network(both, volumes)
            rows = (logits.float() - towards).square().mean(dim=(1, 2, 3, 4)) / 2
        network.zero_grad(set_to_none=True)
        rows.sum().backward()
        flat = torch.cat([p.grad_sample.flatten(1) for p in parameters], dim=1)
        per_patient = flat[:PATIENTS] + flat[PATIENTS:]
        total = torch.stack([clipped([row], HOW.clip_norm) for row in per_patient]).sum(dim=0)
        noise = HOW.noise_multiplier * HOW.clip_norm * random.normal(len(total))
        for parameter, part in zip(parameters, as_gradients((total + noise) / PATIENTS, parameters), strict=True):
            parameter.grad, parameter.grad_sample = part, None
        state.discriminator_optimiser.step()

    return step


def dp_rows(device: Device) -> list[Row]:
    """``dp_step_over_plain`` and ``dp_memory_over_plain``, both also of 64³ voxels; ``opacus_…_over_dp_step`` of hooks
    and functorch; of all that goes on between two steps of the generator ``dp_whole_step…``, for which nothing is
    asked."""
    ways = {way: step_of(way, device) for way in ("noised", "hooks", "functorch")}
    again, hooks = alternated(ways["noised"], ways["hooks"], device.torch, REPEATS // 2)
    third, functorch = alternated(ways["noised"], ways["functorch"], device.torch, REPEATS // 2)
    return [
        *over_plain(device, SIDE, ""),
        Row("opacus_hooks_over_dp_step", hooks / again, "ratio", 1.0, 2.5, least=True),
        Row("opacus_functorch_over_dp_step", functorch / third, "ratio", 1.0, 2.5, least=True),
        *over_plain(device, LARGER_SIDE, f"_{LARGER_SIDE}"),
        *whole_rows(device),
    ]


def over_plain(device: Device, side: int, suffix: str) -> list[Row]:
    """Seconds and peak memory of the noised step over the plain one's, at ``side``³ voxels."""
    noised_step, plain_step = (step_of(way, device, side) for way in ("noised", "plain"))
    ours, plainly = alternated(noised_step, plain_step, device.torch, REPEATS)
    peaks = {way: peak_gib(way, device, side) for way in ("noised", "plain")}
    return [
        Row(f"dp_step{suffix}", ours, "s", plainly),
        Row(f"dp_step_over_plain{suffix}", ours / plainly, "ratio", 1.0, 1.3 if device.cuda else 1.25),
        Row(f"dp_memory_over_plain{suffix}", peaks["noised"] / peaks["plain"], "ratio", 1.0, 1.1),
    ]


def whole_rows(device: Device) -> list[Row]:
    """``dp_whole_step``, ``…_over_plain`` that paints as many fakes, ``…_over_plain_updates`` that paints none."""
    ways = whole_steps(device)
    ours, plainly = alternated(ways["noised"], ways["plain"], device.torch, REPEATS // 3, warm_up=1)
    again, updates = alternated(ways["noised"], ways["updates"], device.torch, REPEATS // 3, warm_up=1)
    return [
        Row("dp_whole_step", ours, "s", plainly),
        Row("dp_whole_step_over_plain", ours / plainly, "ratio", 1.0),
        Row("dp_whole_step_over_plain_updates", again / updates, "ratio", 1.0),
    ]


def peak_gib(way: str, device: Device, side: int) -> float:
    """Peak memory of some steps of one way, in a process of its own."""
    script = str(Path(__file__).with_name("peak_memory.py"))
    command = [sys.executable, script, f"dp-{way}", str(side), device.torch.type]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
