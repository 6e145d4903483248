"""Whom a noised step asks: the patients that the Poisson sample drew and nobody else (PRIVACY §1.3, §1.5).

The accountant's ε is of true Poisson sampling. As many patients as were drawn, but always the same ones, would be in
every step, at the price of some.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from numpy.typing import NDArray
from tiny_cohorts import tiny_scans, tiny_study
from torch import Tensor

from fedphantom.common.device import choose_device
from fedphantom.common.gan.label_means import public_means
from fedphantom.common.gan.networks import make_discriminator
from fedphantom.common.gan.training_state import new_state
from fedphantom.privacy.dp.discriminator import PrivateDiscriminatorStep
from fedphantom.privacy.dp.drawn_sum import DrawnSum
from fedphantom.privacy.dp.examples import Example
from fedphantom.privacy.dp.generator import PrivateGeneratorStep
from fedphantom.privacy.dp.means import noised_vector
from fedphantom.privacy.dp.noised import HEAD, noised_parameters
from fedphantom.privacy.dp.patients import Place, PrivatePatients
from fedphantom.privacy.dp.provenance import mark
from fedphantom.privacy.dp.randomness import SecretRandom
from fedphantom.privacy.dp.step import NoisedSum

CPU = choose_device("cpu")
STUDY = tiny_study()
SCANS = tiny_scans(6)
SILENT = NoisedSum(clip_norm=1e6, noise_multiplier=0.0, expected_batch=1.0)
"""No noise, no clipping: whoever is asked shows."""


class Drawing(SecretRandom):
    """Chance whose every sample is the one that was named."""

    def __init__(self, *drawn: int) -> None:
        super().__init__(CPU.torch)
        self._drawn, self.asked = np.asarray(drawn, np.intp), list[tuple[int, float]]()

    def poisson_sample(self, patients: int, rate: float) -> NDArray[np.intp]:
        self.asked.append((patients, rate))
        return self._drawn


class Watched(PrivatePatients):
    """Patients, and which of them were looked at."""

    def __init__(self) -> None:
        super().__init__(SCANS, STUDY, CPU)
        self.seen: list[int] = []

    def place(self, patient: int, random: SecretRandom) -> Place:
        self.seen.append(patient)
        return super().place(patient, random)

    def whole(self, patient: int, random: SecretRandom) -> tuple[Tensor, Tensor]:
        self.seen.append(patient)
        return super().whole(patient, random)


def own_number(patient: int) -> list[Tensor]:
    """What tells a patient from all others: the bit of that number."""
    return [mark(torch.tensor([2.0**patient]))]


def test_the_sum_is_of_the_patients_who_were_drawn_and_of_no_other() -> None:
    for drawn in ([1, 4], [5], [0, 2, 3], []):
        random = Drawing(*drawn)
        mean = DrawnSum(6, 0.3, SILENT, random, 1).mean(own_number, 1)
        assert mean.item() == sum(2**patient for patient in drawn)
        assert random.asked == [(6, 0.3)]


def test_canaries_are_drawn_as_patients_are_and_after_them() -> None:
    canaries = [own_number(number)[0] for number in (3, 4, 5)]
    for drawn in ([1, 4], [0, 3, 5], [5]):  # patients 0, 1, 2 and canaries 3, 4, 5
        random = Drawing(*drawn)
        mean = DrawnSum(3, 0.3, SILENT, random, 1, canaries).mean(own_number, 1)
        assert mean.item() == sum(2**party for party in drawn)
        assert random.asked == [(6, 0.3)]


def test_every_step_draws_anew() -> None:
    random = SecretRandom(CPU.torch)
    sums = DrawnSum(30, 0.5, SILENT, random, 20)
    assert len({sums.mean(own_number, 1).item() for _ in range(20)}) == 20


def test_the_discriminator_learns_from_the_patients_who_were_drawn() -> None:
    state, random, asked = new_state(STUDY, 1, CPU), Drawing(1, 4), list[int]()
    patients = Watched()
    names = noised_parameters(make_discriminator(STUDY, 1), "norms")
    step = PrivateDiscriminatorStep(patients, DrawnSum(6, 0.3, SILENT, random, sys.maxsize), names, 1, random)

    def example(patient: int) -> Example:
        asked.append(patient)
        return patients.draw(patient, random)

    step.update(state, example)
    assert asked == patients.seen == [1, 4]


def test_the_generator_s_last_layer_learns_from_the_patients_who_were_drawn() -> None:
    random, patients = Drawing(1, 4), Watched()
    PrivateGeneratorStep(patients, DrawnSum(6, 0.3, SILENT, random, 1), HEAD, random).gradient(new_state(STUDY, 1, CPU))
    assert patients.seen == [1, 4]


def test_noised_means_are_of_the_patients_who_were_drawn() -> None:
    public, random, patients = public_means(tiny_scans(5, seed=9), STUDY, CPU), Drawing(1, 4), Watched()
    found = noised_vector(patients, public, 0.3, SILENT, random)
    assert patients.seen == [1, 4]
    assert random.asked == [(6, 0.3)]

    def of(rows: list[int]) -> Tensor:
        everybody = PrivatePatients(SCANS.only(rows), STUDY, CPU)
        return noised_vector(everybody, public, 1.0, SILENT, SecretRandom(CPU.torch))

    assert torch.allclose(found, of([1, 4]))
    assert not torch.allclose(found, of([0, 1]), atol=1e-3)
