"""The generator's noised step: what one patient can change, agreement with Opacus, what may learn (PRIVACY §1.2, J)."""

from __future__ import annotations

import sys

import pytest
import torch
from opacus import GradSampleModule
from tiny_cohorts import tiny_scans, tiny_study
from torch import Tensor, nn

from fedphantom.common.device import choose_device
from fedphantom.common.errors import BudgetSpent
from fedphantom.common.gan.networks import draw_noise
from fedphantom.common.gan.training_state import TrainingState, new_state
from fedphantom.privacy.dp.drawn_sum import DrawnSum
from fedphantom.privacy.dp.generator import DRAWS, PrivateGeneratorStep
from fedphantom.privacy.dp.noised import HEAD
from fedphantom.privacy.dp.patients import PrivatePatients
from fedphantom.privacy.dp.provenance import PrivateDataReached, disclosed, marked
from fedphantom.privacy.dp.randomness import SecretRandom
from fedphantom.privacy.dp.step import NoisedSum

CPU = choose_device("cpu")
STUDY = tiny_study()
PATIENTS = 3
SCANS = tiny_scans(PATIENTS)
LOOSE = 1e6  # a clip norm that nothing reaches


@pytest.fixture
def state() -> TrainingState:
    return new_state(STUDY, 1, CPU)


def step_with(how: NoisedSum, *, seed: int = 1, rate: float = 1.0, paid: int = sys.maxsize) -> PrivateGeneratorStep:
    random = SecretRandom(CPU.torch)
    random.fakes.manual_seed(seed)
    return PrivateGeneratorStep(
        PrivatePatients(SCANS, STUDY, CPU), DrawnSum(PATIENTS, rate, how, random, paid), HEAD, random
    )


def flat(step: PrivateGeneratorStep, state: TrainingState) -> Tensor:
    return torch.cat([slope.reshape(-1) for _, slope in step.gradient(state)])


def rows_of_opacus(state: TrainingState, seed: int = 1) -> Tensor:
    """One gradient a patient of the last layer's weights and biases, (patients, P), by hooks on a layer like it."""
    patients, random = PrivatePatients(SCANS, STUDY, CPU), SecretRandom(CPU.torch)
    noise = torch.Generator()
    noise.manual_seed(seed)
    given, real = (
        disclosed(torch.cat(parts)) for parts in zip(*(patients.draw(i, random) for i in range(PATIENTS)), strict=True)
    )
    draws = torch.cat([draw_noise(DRAWS, (16, 16, 16), noise) for _ in range(PATIENTS)])
    given, real = given.repeat_interleave(DRAWS, dim=0), real.repeat_interleave(DRAWS, dim=0)
    seen: list[Tensor] = []
    watched = state.generator.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        state.generator(given, draws)
    watched.remove()
    head = nn.Conv3d(seen[0].shape[1], real.shape[1], 1)
    head.load_state_dict(state.generator.head.state_dict())
    oracle = GradSampleModule(head.double(), batch_first=True, loss_reduction="sum")
    features = seen[0].double().requires_grad_()  # Opacus' hooks ask for it
    distance = (torch.tanh(oracle(features)) - real.double()).abs().mean(dim=(1, 2, 3, 4))
    distance.sum().backward()
    rows = torch.cat([p.grad_sample.flatten(1) for p in oracle.parameters()], dim=1)
    return rows.view(PATIENTS, DRAWS, -1).mean(dim=1)


def test_the_gradient_is_the_mean_of_those_that_opacus_finds(state: TrainingState) -> None:
    rows = rows_of_opacus(state)
    found = flat(step_with(NoisedSum(LOOSE, 0.0, 5.0)), state)
    expected = rows.sum(dim=0) / 5  # the public expected batch, not the three drawn
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_each_patients_gradient_is_clipped_by_itself(state: TrainingState) -> None:
    rows = rows_of_opacus(state)
    lengths = rows.norm(dim=1)
    clip = lengths.median().item()
    expected = (rows * (clip / (lengths + 1e-6)).clamp(max=1)[:, None]).sum(dim=0)
    found = flat(step_with(NoisedSum(clip, 0.0, 1.0)), state)
    assert (found - expected).norm() / expected.norm() < 1e-5
    assert (found - rows.sum(dim=0)).norm() / expected.norm() > 1e-3  # clipping did change it


def test_the_noise_is_sigma_c_over_b_within_two_percent(state: TrainingState) -> None:
    step = step_with(NoisedSum(0.7, 1.5, 16.0), rate=1e-12)
    found = torch.stack([flat(step, state) for _ in range(1200)])
    assert found.numel() > 20_000
    assert found.std().item() == pytest.approx(1.5 * 0.7 / 16, rel=0.02)
    assert step._sums.taken == 1200


def test_the_loss_hands_the_noised_gradient_to_the_last_layer_and_nothing_to_any_other(state: TrainingState) -> None:
    expected = flat(step_with(NoisedSum(LOOSE, 0.0, 3.0)), state)
    step_with(NoisedSum(LOOSE, 0.0, 3.0)).loss(state).backward()
    named = dict(state.generator.named_parameters())
    handed = torch.cat([p.grad.reshape(-1) for name in HEAD if (p := named[name]).grad is not None])
    assert torch.allclose(handed, expected)
    assert not marked(handed)
    assert all(p.grad is None for name, p in named.items() if name not in HEAD)
    state.generator_optimiser.step()


def test_following_it_brings_painted_scans_nearer_to_the_patients(state: TrainingState) -> None:
    for name, parameter in state.generator.named_parameters():
        parameter.requires_grad_(name in HEAD)
    step, lengths = step_with(NoisedSum(LOOSE, 0.0, 3.0)), list[float]()
    state.generator_optimiser.param_groups[0]["lr"] = 0.02
    for _ in range(30):
        lengths.append(distance(state))
        state.generator_optimiser.zero_grad()
        step.loss(state).backward()
        state.generator_optimiser.step()
    assert distance(state) < 0.6 * lengths[0]


def distance(state: TrainingState) -> float:
    patients, random = PrivatePatients(SCANS, STUDY, CPU), SecretRandom(CPU.torch)
    given, real = (disclosed(part) for part in patients.draw(0, random))
    with torch.no_grad():
        fake = state.generator(given, draw_noise(1, (16, 16, 16), torch.Generator().manual_seed(3)))
    return float((fake - real).abs().mean())


def test_a_patients_gradient_by_another_way_is_refused_before_the_generator_moves(state: TrainingState) -> None:
    """The same distance, not clipped and not noised, as a `paired` study has it."""
    given, real = PrivatePatients(SCANS, STUDY, CPU).draw(0, SecretRandom(CPU.torch))
    before = [p.clone() for p in state.generator.parameters()]
    fake = state.generator(given, draw_noise(1, (16, 16, 16), torch.Generator().manual_seed(3)))
    with pytest.raises(PrivateDataReached):
        (fake - real).abs().mean().backward()
    assert all(torch.equal(p, b) for p, b in zip(state.generator.parameters(), before, strict=True))


def test_a_step_that_was_not_paid_for_is_not_taken(state: TrainingState) -> None:
    step = step_with(NoisedSum(LOOSE, 0.0, 3.0), paid=2)
    for _ in range(2):
        step.gradient(state)
    with pytest.raises(BudgetSpent, match="beyond the 2 steps"):
        step.gradient(state)
    assert step._sums.taken == 2


def test_nobody_drawn_gives_noise_and_a_step_all_the_same(state: TrainingState) -> None:
    step = step_with(NoisedSum(1.0, 1.0, 1.0), rate=0.0)
    assert flat(step, state).norm() > 0
    assert step._sums.taken == 1
