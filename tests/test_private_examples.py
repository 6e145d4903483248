"""What a noised step holds of patients: no more however many they are, and the same to the last bit."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_cohorts import tiny_scans, tiny_study

from fedphantom.common.cohorts.preparation import PreparedScans
from fedphantom.common.device import choose_device
from fedphantom.common.gan.training import draw_batch
from fedphantom.common.gan.training_state import new_state
from fedphantom.privacy.dp import examples
from fedphantom.privacy.dp.discriminator import PrivateDiscriminatorStep
from fedphantom.privacy.dp.drawn_sum import DrawnSum
from fedphantom.privacy.dp.noised import noised_parameters
from fedphantom.privacy.dp.patients import PrivatePatients
from fedphantom.privacy.dp.provenance import Marked
from fedphantom.privacy.dp.randomness import SecretRandom
from fedphantom.privacy.dp.step import NoisedSum

CPU = choose_device("cpu")
STUDY = tiny_study()
PATIENTS = 6
SCANS = tiny_scans(PATIENTS)
C = 0.5


def repeatable() -> SecretRandom:
    """What no product has: the same chance twice."""
    random = SecretRandom(CPU.torch)
    random.numpy, random._noise = np.random.default_rng(1), np.random.default_rng(2)
    random.fakes.manual_seed(3)
    return random


def three_steps(monkeypatch: pytest.MonkeyPatch, scans: PreparedScans, room: int) -> tuple[list[bytes], int, int]:
    """The discriminator after three noised steps, volumes painted for them, and bytes of patients held meanwhile."""
    monkeypatch.setattr(examples, "MOST_FAKES", room)
    monkeypatch.setattr(examples, "MOST_SCANS", room)
    state, painted, held = new_state(STUDY, 1, CPU), list[int](), list[int]()
    state.generator.register_forward_pre_hook(lambda *_: painted.append(1))
    state.discriminator_optimiser.register_step_pre_hook(lambda *_: held.append(bytes_of_patients()))
    patients, names = PrivatePatients(scans, STUDY, CPU), noised_parameters(state.discriminator, "all")
    random = repeatable()
    sums = DrawnSum(len(patients), 0.7, NoisedSum(C, 1.0, 4.0), random, sys.maxsize)
    step = PrivateDiscriminatorStep(patients, sums, names, 3, random)
    batch = draw_batch(SCANS, STUDY, CPU, step=0, seed=1)
    step(state, batch, torch.zeros_like(batch.real))
    return [p.detach().numpy().tobytes() for p in state.discriminator.parameters()], sum(painted), max(held)


def bytes_of_patients() -> int:
    gc.collect()
    # By type: asking what a proxy is an instance of may import what it stands for.
    volumes = [one for one in gc.get_objects() if type(one) is Marked and one.dim() == 5]
    return sum(one.numel() * one.element_size() for one in volumes)


def test_what_is_read_and_painted_again_is_the_same_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two scans a patient too: which was drawn is kept."""
    twice = replace(SCANS, patients=tuple(f"p{number // 2}" for number in range(PATIENTS)))
    for scans, patients in ((SCANS, PATIENTS), (twice, PATIENTS // 2)):
        after, painted, held = three_steps(monkeypatch, scans, room=2**30)
        again, painted_again, held_again = three_steps(monkeypatch, scans, room=0)
        assert after == again
        assert painted <= patients < painted_again  # once each, against once for each time that one was drawn
        assert held_again < held


def test_what_is_held_of_patients_does_not_grow_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    room = 100_000  # of a fake of 32 KiB and a scan with its label map of 80: three patients' fakes, one's scans
    _, painted, held = three_steps(monkeypatch, SCANS, room)
    assert painted > PATIENTS
    assert room < held <= 2 * room + 2 * (32 + 80) * 1024  # and the last patient's example
