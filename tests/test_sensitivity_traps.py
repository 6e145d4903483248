"""How far one patient can move the sum before its noise: the legal pairings, and those that look alike (PRIVACY §1.3).

The same question is put to each: patients whose gradients were chosen to make it worst, one of them removed, how far
does the sum move? What the legal modes pass, each trap must fail, or the question would be worthless.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pytest
import torch
from tiny_cohorts import tiny_scans, tiny_study
from torch import Tensor, nn

from fedphantom.common.cohorts.preparation import PreparedScans
from fedphantom.common.device import choose_device
from fedphantom.common.gan.networks import Discriminator, Generator, make_generator
from fedphantom.common.gan.training import draw_batch
from fedphantom.common.gan.training_state import TrainingState, new_state
from fedphantom.common.promise import Fakes
from fedphantom.privacy.dp.discriminator import PrivateDiscriminatorStep
from fedphantom.privacy.dp.drawn_sum import DrawnSum
from fedphantom.privacy.dp.examples import Example
from fedphantom.privacy.dp.generator import PrivateGeneratorStep
from fedphantom.privacy.dp.noised import noised_parameters
from fedphantom.privacy.dp.patients import PrivatePatients
from fedphantom.privacy.dp.provenance import disclosed, mark
from fedphantom.privacy.dp.randomness import SecretRandom
from fedphantom.privacy.dp.step import NoisedSum, clipped

CPU = choose_device("cpu")
STUDY = tiny_study()
C = 0.5
BOUND = C * (1 + 1e-4)
SILENT = NoisedSum(C, noise_multiplier=0.0, expected_batch=1.0)
"""No noise, no division: the sum as it is before them."""
PATIENTS = 4
DRAWS = 100
SCANS = tiny_scans(12)
PUBLIC = draw_batch(SCANS, STUDY, CPU, step=0, seed=1)
GENERATOR = make_generator(STUDY, 1)


@dataclass(frozen=True)
class Pulls:
    """What everybody's volumes would do to three parameters.

    Attributes:
        reals: The gradient of each patient's scan.
        own: Of a fake of that patient's label map.
        public: Of fakes that belong to nobody, a constant number.
    """

    reals: tuple[Tensor, ...]
    own: tuple[Tensor, ...]
    public: tuple[Tensor, ...]

    def without(self, patient: int) -> Pulls:
        """One patient removed; what belongs to nobody stays."""
        rest = [number for number in range(len(self.reals)) if number != patient]
        return Pulls(tuple(self.reals[i] for i in rest), tuple(self.own[i] for i in rest), self.public)


Mode = Callable[[Pulls], Tensor]
"""How gradients are paired, clipped and summed: the sum (3,) before the noise."""


def largest_change(mode: Mode, pulls: Pulls) -> float:
    """The Euclidean distance that the sum moves when that patient is removed who moves it most."""
    whole = mode(pulls)
    return max(float((whole - mode(pulls.without(patient))).norm()) for patient in range(len(pulls.reals)))


def everybody(patients: int, how: NoisedSum, random: SecretRandom) -> DrawnSum:
    """Sums in which each takes part, as often as one likes."""
    return DrawnSum(patients, 1.0, how, random, sys.maxsize)


# The worst that patients can be


UP = torch.tensor([0.6, 0.8, 0.0])


def staircase() -> Pulls:
    """Each scan cancels the fake of its own number but for a little, and loses to the fake of the number before."""
    heights = [100.0 - 20 * number for number in range(PATIENTS)]
    fakes = tuple(-height * UP for height in heights)
    return Pulls(tuple((height + 10) * UP for height in heights), fakes, fakes)


def all_alike(real: float, fake: float) -> Pulls:
    return Pulls((real * UP,) * PATIENTS, (fake * UP,) * PATIENTS, (fake * UP,) * PATIENTS)


def at_random(seed: int) -> Pulls:
    """Nobody's worst: gradients of any direction and of lengths from far below C to far above."""
    random = torch.Generator().manual_seed(seed)
    pulls = torch.randn((3, PATIENTS, 3), generator=random) * 10 ** torch.randn((3, PATIENTS, 1), generator=random)
    return Pulls(*(tuple(kind) for kind in pulls))


ADVERSARIES = {
    "aligned": all_alike(100.0, 100.0),
    "aligned downwards": all_alike(-1e6, -1e6),
    "aligned and short": all_alike(0.3, 0.1),
    "opposed": all_alike(100.0, -100.0),
    "fakes alone": all_alike(0.0, 100.0),
    "staircase": staircase(),
}


# Legal modes


class Steerable(nn.Module):
    """A discriminator that gives each volume the gradient that it was told to.

    Logits are a half whatever they are of, and their gradient is the volume: under the step's loss, a scan pulls by
    minus half of itself and a fake by plus half, several fakes by the mean of that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, given: Tensor, volumes: Tensor) -> tuple[Tensor, list[Tensor]]:
        return 0.5 + (volumes * self.weight.view(1, 3, 1, 1, 1)).sum(dim=1, keepdim=True), []


def own_label_maps(pulls: Pulls) -> Tensor:
    """The product's step: a scan and a fake of the same label map make the one gradient that is clipped."""
    examples = [steered([-2 * real, 2 * fake]) for real, fake in zip(pulls.reals, pulls.own, strict=True)]
    return sum_of_a_step(examples, None)


def public_fakes_outside(pulls: Pulls) -> Tensor:
    """The product's step: scans alone are clipped; fakes that are nobody's, always as many, are added as they are.

    These no longer than 1: beside longer ones the clip norm would drown in a gradient's 24 bits.
    """
    given, volumes = steered([2 * fake / max(1.0, float(fake.norm())) for fake in pulls.public])
    return sum_of_a_step([steered([-2 * real]) for real in pulls.reals], (disclosed(given), disclosed(volumes)))


def sum_of_a_step(examples: Sequence[Example], outside: Example | None) -> Tensor:
    """What the discriminator's optimiser is handed, before any noise and undivided."""
    network, sums = Steerable(), list[Tensor]()
    patients = SCANS.only(range(len(examples)))
    state = state_of(network)
    state.discriminator_optimiser.register_step_pre_hook(lambda *_: sums.append(gradient_of(network)))
    random = SecretRandom(CPU.torch)
    private = PrivatePatients(patients, STUDY, CPU)
    step = PrivateDiscriminatorStep(private, everybody(len(private), SILENT, random), ["weight"], 1, random)
    step.update(state, examples.__getitem__, outside)
    return sums[0]


class SteerablePainter(nn.Module):
    """A generator whose distance from an empty scan has the gradient that the label map holds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, given: Tensor, noise: Tensor) -> Tensor:
        return 1.0 + (given * self.weight.view(1, 3, 1, 1, 1)).sum(dim=1, keepdim=True)


class Steered(PrivatePatients):
    """Patients whose label maps hold these gradients, (3,) each."""

    def __init__(self, pulls: Sequence[Tensor]) -> None:
        super().__init__(SCANS.only(range(len(pulls))), STUDY, CPU)
        self._pulls = pulls

    def draw(self, patient: int, random: SecretRandom) -> Example:
        return mark(self._pulls[patient].view(1, 3, 1, 1, 1)), mark(torch.zeros(1, 1, 1, 1, 1))


def own_scans_teach_the_generator(pulls: Pulls) -> Tensor:
    """The product's step: how a painted scan would come nearer to the patient's own, clipped as one (mode J)."""
    painter, patients = SteerablePainter(), Steered([*pulls.reals])
    state = TrainingState(
        cast(Generator, painter),
        cast(Discriminator, Steerable()),
        *(torch.optim.Adam(painter.parameters(), lr=0.0) for _ in range(2)),
        CPU,
    )
    random = SecretRandom(CPU.torch)
    step = PrivateGeneratorStep(patients, everybody(len(patients), SILENT, random), ["weight"], random)
    return torch.cat([slope.double() for _, slope in step.gradient(state)])


def steered(volumes: Sequence[Tensor]) -> Example:
    rows = len(volumes)
    return mark(torch.zeros(rows, 1, 1, 1, 1)), mark(torch.stack(list(volumes)).view(rows, 3, 1, 1, 1))


def state_of(network: nn.Module) -> TrainingState:
    """A training that goes nowhere, so that the same network can be asked twice."""
    optimisers = [torch.optim.Adam(part.parameters(), lr=0.0) for part in (GENERATOR, network)]
    return TrainingState(GENERATOR, cast(Discriminator, network), *optimisers, CPU)


def gradient_of(network: nn.Module) -> Tensor:
    return torch.cat([p.grad.reshape(-1).double() for p in network.parameters() if p.grad is not None])


LEGAL: dict[str, Mode] = {
    "own label maps": own_label_maps,
    "public fakes outside the clip": public_fakes_outside,
    "own scans teach the generator": own_scans_teach_the_generator,
}


@pytest.mark.parametrize("mode", LEGAL.values(), ids=LEGAL)
@pytest.mark.parametrize("pulls", ADVERSARIES.values(), ids=ADVERSARIES)
def test_no_choice_of_gradients_moves_a_legal_sum_beyond_the_clip_norm(mode: Mode, pulls: Pulls) -> None:
    assert largest_change(mode, pulls) <= BOUND


@pytest.mark.parametrize("mode", LEGAL.values(), ids=LEGAL)
def test_aligned_gradients_reach_the_bound_of_a_legal_sum(mode: Mode) -> None:
    """What the traps fall into does come through: the bound holds by clipping, not for want of gradients."""
    assert largest_change(mode, ADVERSARIES["aligned"]) == pytest.approx(C, rel=1e-4)


@pytest.mark.parametrize("mode", LEGAL.values(), ids=LEGAL)
def test_a_hundred_random_draws_move_a_legal_sum_by_no_more_than_the_clip_norm(mode: Mode) -> None:
    changes = [largest_change(mode, at_random(seed)) for seed in range(DRAWS)]
    assert max(changes) <= BOUND
    assert min(changes) > 0


# The real network on real volumes


def drawn_scans(seed: int) -> PreparedScans:
    """Two of the patients' scans, in the order of their names."""
    return SCANS.only(np.sort(np.random.default_rng(seed).permutation(12)[:2]))


def real_change(seed: int, clip_norm: float, fakes: Fakes) -> float:
    """Of the sum of the product's whole step: drawing, painting the fakes, gradients, clipping, what is added outside.

    The removed patient is drawn last, so that with the same seed the other has the same chance with it or without.
    """
    state, sums = new_state(STUDY, seed, CPU), list[Tensor]()
    network, optimiser = state.discriminator, state.discriminator_optimiser
    optimiser.param_groups[0]["lr"] = 0.0
    optimiser.register_step_pre_hook(lambda *_: sums.append(gradient_of(network)))
    noised, how = noised_parameters(network, "all"), NoisedSum(clip_norm, noise_multiplier=0.0, expected_batch=1.0)
    for patients in (2, 1):
        random = SecretRandom(CPU.torch)
        random.fakes.manual_seed(seed)
        private = PrivatePatients(drawn_scans(seed).only(range(patients)), STUDY, CPU)
        drawn = everybody(patients, how, random)
        PrivateDiscriminatorStep(private, drawn, noised, 1, random, fakes)(state, PUBLIC, -PUBLIC.real)
    return float((sums[0] - sums[1]).norm())


@pytest.mark.parametrize("fakes", [pytest.param("own-label-maps", marks=pytest.mark.long), "public-label-maps"])
def test_a_hundred_draws_of_the_real_step_move_its_sum_by_no_more_than_the_clip_norm(fakes: Fakes) -> None:
    """Clip norms from far below a patient's gradient to above it, in turn."""
    at_the_bound = 0
    for seed in range(DRAWS):
        clip_norm = 10.0 ** (seed % 5 - 2)
        change = real_change(seed, clip_norm, fakes)
        assert 0 < change <= clip_norm * (1 + 1e-4), seed
        at_the_bound += change > clip_norm * (1 - 1e-3)
    assert DRAWS / 4 < at_the_bound < DRAWS  # both what is clipped and what is left alone was seen


# Traps: each looks like one of the above, and each fails what those pass


def clipped_rows(rows: Sequence[Tensor]) -> Tensor:
    return sum((clipped([row], C) for row in rows), torch.zeros(3, dtype=torch.float64))


def paired_by_number(pulls: Pulls) -> Tensor:
    """Nobody's fakes, the first with the first scan drawn: without one scan, the others change partners."""
    return clipped_rows([real + fake for real, fake in zip(pulls.reals, pulls.public, strict=False)])


def own_fakes_apart(pulls: Pulls) -> Tensor:
    """Fakes of own label maps as rows of their own, each clipped: a patient has two."""
    return clipped_rows([*pulls.reals, *pulls.own])


def as_many_fakes_as_scans(pulls: Pulls) -> Tensor:
    """Fakes of public label maps, but as many as patients were drawn: a patient brings one along."""
    return clipped_rows([*pulls.reals, *pulls.public[: len(pulls.reals)]])


TRAPS: dict[str, tuple[Mode, Pulls, float]] = {
    # The first patient's row is gone, and each of the others turns round.
    "paired by number": (paired_by_number, ADVERSARIES["staircase"], (2 * (PATIENTS - 1) + 1) * C),
    "own fakes apart": (own_fakes_apart, ADVERSARIES["aligned"], 2 * C),
    "as many fakes as scans": (as_many_fakes_as_scans, ADVERSARIES["aligned"], 2 * C),
}


@pytest.mark.parametrize(("mode", "pulls", "change"), TRAPS.values(), ids=TRAPS)
def test_a_trap_moves_by_all_that_it_is_known_to_and_fails_what_the_legal_modes_pass(
    mode: Mode, pulls: Pulls, change: float
) -> None:
    assert largest_change(mode, pulls) == pytest.approx(change, rel=1e-4)
    assert largest_change(mode, pulls) > BOUND


def test_fakes_paired_by_number_exceed_the_bound_on_gradients_that_nobody_chose() -> None:
    changes = [largest_change(paired_by_number, at_random(seed)) for seed in range(DRAWS)]
    assert sum(change > BOUND for change in changes) > DRAWS / 2


@pytest.mark.parametrize("mode", [own_fakes_apart, as_many_fakes_as_scans], ids=["apart", "as many"])
def test_opposed_gradients_hide_a_trap_so_that_only_aligned_ones_can_judge(mode: Mode) -> None:
    assert largest_change(mode, ADVERSARIES["opposed"]) <= BOUND
