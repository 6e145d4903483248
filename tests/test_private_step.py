"""The discriminator's noised step: what one patient can change, agreement with Opacus, layers (PRIVACY §1.3, §8)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from tiny_cohorts import tiny_scans, tiny_study
from torch import Tensor, nn

from fedphantom.common.device import choose_device
from fedphantom.common.errors import BudgetSpent, ConfigError
from fedphantom.common.gan.losses import real_loss
from fedphantom.common.gan.networks import draw_noise, make_discriminator
from fedphantom.common.gan.training import Batch, draw_batch
from fedphantom.common.gan.training_state import TrainingState, new_state
from fedphantom.common.promise import Fakes, Noised
from fedphantom.common.randomness import torch_generator
from fedphantom.privacy.dp.discriminator import PrivateDiscriminatorStep
from fedphantom.privacy.dp.drawn_sum import DrawnSum
from fedphantom.privacy.dp.examples import Example
from fedphantom.privacy.dp.layers import refuse_mixing_layers
from fedphantom.privacy.dp.noised import noised_parameters
from fedphantom.privacy.dp.patients import PrivatePatients
from fedphantom.privacy.dp.provenance import PrivateDataReached, disclosed, mark, marked
from fedphantom.privacy.dp.randomness import SecretRandom
from fedphantom.privacy.dp.step import NoisedSum, noised_mean

CPU = choose_device("cpu")
STUDY = tiny_study()
PATIENTS = 6
SCANS = tiny_scans(PATIENTS)
C = 0.5


def silent(expected_batch: float = 1.0, clip_norm: float = C) -> NoisedSum:
    return NoisedSum(clip_norm, 0.0, expected_batch)


@pytest.fixture
def state() -> TrainingState:
    return new_state(STUDY, 1, CPU)


def step_with(
    how: NoisedSum,
    *,
    patients: PrivatePatients | None = None,
    noised: Noised = "all",
    steps: int = 1,
    rate: float = 1.0,
    fakes: Fakes = "own-label-maps",
    paid: int = sys.maxsize,
) -> PrivateDiscriminatorStep:
    network = make_discriminator(STUDY, 1)
    private = patients or PrivatePatients(SCANS, STUDY, CPU)
    random = SecretRandom(CPU.torch)
    sums = DrawnSum(len(private), rate, how, random, paid)
    return PrivateDiscriminatorStep(private, sums, noised_parameters(network, noised), steps, random, fakes)


def public_batch() -> tuple[Batch, Tensor]:
    batch = draw_batch(SCANS, STUDY, CPU, step=0, seed=1)
    return batch, torch.zeros_like(batch.real)


@pytest.mark.parametrize("fakes", get_args(Fakes))
def test_patients_gradients_agree_with_opacus(fakes: Fakes) -> None:
    """The oracle: Opacus' hooks on the same batch, one row a patient (relative error below 1e-6).

    Held against it is what the product's own step makes of each patient alone, long or clipped: in double, but for the
    loss itself, which rounds logits to 32 bits (to a relative 4e-8 of the gradient).
    """
    state = double_state()
    given, real, fake = oracle_batch(state)
    scans = opacus_rows(given, real, torch.ones(3))
    expected = (scans + opacus_rows(given, fake, torch.zeros(3))) / 2 if fakes == "own-label-maps" else scans / 2
    for i in range(3):
        volumes = torch.cat([real[i : i + 1], fake[i : i + 1]]) if fakes == "own-label-maps" else real[i : i + 1]
        example = mark(given[[i] * len(volumes)]), mark(volumes)
        length = expected[i].norm().item()
        for clip_norm, kept in ((1e9, 1.0), (length / 2, length / 2 / (length + 1e-6))):
            ours = product_gradient(state, silent(1, clip_norm), [example])
            assert (ours - kept * expected[i]).norm() / (kept * expected[i]).norm() < 1e-6


def double_state() -> TrainingState:
    state = new_state(STUDY, 1, CPU)
    state.discriminator.double()
    return state


def opacus_rows(given: Tensor, volumes: Tensor, towards: Tensor) -> Tensor:
    """The gradient of each row's least squares, (B, P), by other code than the product's, in double."""
    oracle = GradSampleModule(make_discriminator(STUDY, 1).double(), batch_first=True, loss_reduction="sum")
    logits = oracle(given, volumes)[0]
    (logits - towards.view(-1, 1, 1, 1, 1)).square().mean(dim=(1, 2, 3, 4)).sum().backward()
    return torch.cat([p.grad_sample.flatten(1) for p in oracle.parameters()], dim=1)


def product_gradient(
    state: TrainingState, how: NoisedSum, examples: Sequence[Example], outside: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """What one step of the product gives the discriminator's optimiser, (P,); the networks stay as they are."""
    before = [parameter.detach().clone() for parameter in state.discriminator.parameters()]
    found: list[Tensor] = []
    hook = state.discriminator_optimiser.register_step_pre_hook(
        lambda *_: found.append(torch.cat([p.grad.reshape(-1) for p in state.discriminator.parameters()]))
    )
    patients = PrivatePatients(SCANS.only(range(len(examples))), STUDY, CPU)
    step_with(how, patients=patients).update(state, examples.__getitem__, outside)
    hook.remove()
    with torch.no_grad():
        for parameter, value in zip(state.discriminator.parameters(), before, strict=True):
            parameter.copy_(value)
    return found[0]


def oracle_batch(state: TrainingState) -> tuple[Tensor, Tensor, Tensor]:
    patients, random = PrivatePatients(SCANS, STUDY, CPU), SecretRandom(CPU.torch)
    drawn = [patients.draw(i, random) for i in range(3)]
    given, real = (disclosed(torch.cat(parts)) for parts in zip(*drawn, strict=True))
    with torch.no_grad():
        fake = state.generator(given, draw_noise(3, (16, 16, 16), torch_generator(1)))
    return given.double(), real.double(), fake.double()


def test_a_patients_scans_make_one_gradient_whose_length_does_not_grow_with_them() -> None:
    """Three scans of one patient, all alike and pulling the same way, count as one scan does."""
    one = tiny_scans(1)
    three = type(one)(
        np.repeat(np.asarray(one.volumes[:]), 3, axis=0),
        np.repeat(np.asarray(one.classes[:]), 3, axis=0),
        one.patients * 3,
        one.sites * 3,
        np.zeros((3, 0)),
    )
    patients = PrivatePatients(three, STUDY, CPU)
    assert len(patients) == 1
    network = make_discriminator(STUDY, 1)
    parameters = list(network.parameters())

    def gradient(of: PrivatePatients) -> Tensor:
        random = SecretRandom(CPU.torch)

        def one(i: int) -> tuple[Tensor, ...]:
            return torch.autograd.grad(real_loss(network(*of.draw(i, random))[0]), parameters)

        size = sum(parameter.numel() for parameter in parameters)
        return noised_mean(range(len(of)), one, size, silent(clip_norm=1e9), random)

    assert torch.allclose(gradient(patients), gradient(PrivatePatients(one, STUDY, CPU)), rtol=1e-5)


def test_the_update_moves_the_noised_parameters_alone(state: TrainingState) -> None:
    before = {name: value.clone() for name, value in state.discriminator.named_parameters()}
    noised = noised_parameters(state.discriminator, "norms")
    step_with(silent(PATIENTS), noised="norms")(state, *public_batch())
    for name, value in state.discriminator.named_parameters():
        assert torch.equal(value, before[name]) == (name not in noised), name
    assert sum(before[name].numel() for name in noised) == 2 * (16 + 32) + 1


def test_nothing_of_the_update_is_marked_and_the_generator_may_learn_from_it(state: TrainingState) -> None:
    batch, fake = public_batch()
    assert not marked(step_with(silent(PATIENTS))(state, batch, fake))
    assert not any(marked(p) or marked(p.grad) for p in state.discriminator.parameters())
    made = state.generator(batch.given, batch.noise)
    real_loss(state.discriminator(batch.given, made)[0]).backward()  # type: ignore[no-untyped-call]  # untyped in torch
    assert all(parameter.grad is not None for parameter in state.generator.parameters())


def test_a_patients_fake_is_of_the_patients_own_label_map(state: TrainingState) -> None:
    """So that a discriminator cannot win by the label maps: real and fake are given the same one."""
    given: list[Tensor] = []
    state.discriminator.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    step_with(silent(PATIENTS))(state, *public_batch())
    private = [maps for maps in given if marked(maps)]
    assert len(private) == PATIENTS
    for maps in private:
        real, fake = disclosed(maps).chunk(2)
        assert torch.equal(real, fake)


def test_fakes_of_public_label_maps_are_added_outside_the_clip_as_they_are(state: TrainingState) -> None:
    """Nobody drawn leaves the gradient of the batch's fakes, always as many, whatever the clip norm; half the loss."""
    batch, fake = public_batch()
    on_fakes = (state.discriminator(batch.given, fake)[0].square().mean()) / 2
    alone = torch.autograd.grad(on_fakes, list(state.discriminator.parameters()))
    expected, found = torch.cat([part.reshape(-1) for part in alone]), list[Tensor]()
    state.discriminator_optimiser.register_step_pre_hook(
        lambda *_: found.append(torch.cat([p.grad.reshape(-1) for p in state.discriminator.parameters()]))
    )
    step_with(silent(PATIENTS, 1e-6), rate=1e-12, fakes="public-label-maps")(state, batch, fake)
    assert (found[0] - expected).norm() / expected.norm() < 1e-5
    assert expected.norm() > 1e-3  # far above the clip norm


def test_with_public_fakes_a_patients_gradient_is_of_the_scan_alone_and_agrees_with_opacus() -> None:
    """The oracle, in double: Opacus' rows of scans, clipped; and the fakes' own gradient beside them."""
    state = double_state()
    given, real, fake = oracle_batch(state)
    rows = opacus_rows(given, real, torch.ones(3)) / 2
    clip = rows.norm(dim=1).median().item()  # one is clipped, one is not
    expected = (rows * (clip / (rows.norm(dim=1) + 1e-6)).clamp(max=1)[:, None]).sum(dim=0) / 5
    expected = expected + opacus_rows(given, fake, torch.zeros(3)).mean(dim=0) / 2
    examples = [(mark(given[i : i + 1]), mark(real[i : i + 1])) for i in range(3)]
    found = product_gradient(state, silent(5, clip), examples, (given, fake))
    assert (found - expected).norm() / expected.norm() < 1e-6


def test_fakes_of_a_patients_label_map_outside_the_clip_are_refused_before_the_step(state: TrainingState) -> None:
    batch, fake = public_batch()
    before = [parameter.clone() for parameter in state.discriminator.parameters()]
    for maps, volumes in ((mark(batch.given), fake), (batch.given, mark(fake))):
        with pytest.raises(PrivateDataReached, match="added to a noised sum"):
            step_with(silent(PATIENTS), fakes="public-label-maps")(state, replace(batch, given=maps), volumes)
    assert all(torch.equal(p, b) for p, b in zip(state.discriminator.parameters(), before, strict=True))


def test_removing_a_patient_changes_the_update_by_no_more_than_the_clip_norm_over_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not the sum alone but the step as a whole: draws, fakes of own label maps, clipping, division (PRIVACY §4)."""
    monkeypatch.setattr(
        "fedphantom.privacy.dp.examples.draw_noise", lambda n, shape, _: draw_noise(n, shape, torch_generator(1))
    )
    expected = 4.0
    updates = []
    for rows in (range(PATIENTS), range(PATIENTS - 1)):
        fresh = new_state(STUDY, 1, CPU)
        gradients: list[Tensor] = []
        fresh.discriminator_optimiser.register_step_pre_hook(
            lambda optimiser, *_, into=gradients, of=fresh: into.append(
                torch.cat([p.grad.reshape(-1) for p in of.discriminator.parameters()])
            )
        )
        step = step_with(silent(expected, 1e-3), patients=PrivatePatients(SCANS.only(rows), STUDY, CPU))
        step(fresh, *public_batch())
        updates.append(gradients[0])
    change = (updates[0] - updates[1]).norm().item()
    assert 1e-4 / expected < change <= 1e-3 / expected * (1 + 1e-3)


def test_the_update_is_the_mean_of_the_clipped_gradients_that_opacus_finds() -> None:
    """The product's own loss and update, against Opacus' rows; in double all but the loss."""
    state = double_state()
    given, real, fake = oracle_batch(state)
    rows = (opacus_rows(given, real, torch.ones(3)) + opacus_rows(given, fake, torch.zeros(3))) / 2
    clip = rows.norm(dim=1).median().item()  # one is clipped, one is not
    expected = (rows * (clip / (rows.norm(dim=1) + 1e-6)).clamp(max=1)[:, None]).sum(dim=0) / 5
    examples = [(mark(given[[i, i]]), mark(torch.cat([real[i : i + 1], fake[i : i + 1]]))) for i in range(3)]
    found = product_gradient(state, silent(5, clip), examples)
    assert (found - expected).norm() / expected.norm() < 1e-6


def test_the_noise_of_the_discriminators_update_is_sigma_c_over_b_within_two_percent(state: TrainingState) -> None:
    found: list[Tensor] = []
    state.discriminator_optimiser.register_step_pre_hook(
        lambda *_: found.append(torch.cat([p.grad.reshape(-1) for p in state.discriminator.parameters()]))
    )
    step = step_with(NoisedSum(0.7, 1.0, 16.0), rate=1e-12, steps=3)
    step(state, *public_batch())
    noise = torch.cat(found)
    assert len(noise) > 100_000
    assert noise.std().item() == pytest.approx(0.7 / 16, rel=0.02)
    assert not torch.equal(found[0], found[1])


def test_a_step_that_was_not_paid_for_is_not_taken(state: TrainingState) -> None:
    step = step_with(silent(PATIENTS), steps=2, paid=3)
    step(state, *public_batch())
    before = [p.clone() for p in state.discriminator.parameters()]
    with pytest.raises(BudgetSpent, match="beyond the 3 steps"):
        step(state, *public_batch())  # the third is taken, the fourth is not
    assert any(not torch.equal(p, b) for p, b in zip(state.discriminator.parameters(), before, strict=True))
    after = [p.clone() for p in state.discriminator.parameters()]
    with pytest.raises(BudgetSpent):
        step(state, *public_batch())
    assert step._sums.taken == 3
    assert all(torch.equal(p, a) for p, a in zip(state.discriminator.parameters(), after, strict=True))


def test_several_steps_are_taken_for_one_of_the_generator(state: TrainingState) -> None:
    counted: list[int] = []
    state.discriminator_optimiser.register_step_post_hook(lambda *_: counted.append(1))
    step_with(silent(PATIENTS), steps=5)(state, *public_batch())
    assert len(counted) == 5


def test_an_empty_sample_still_steps(state: TrainingState) -> None:
    before = [p.clone() for p in state.discriminator.parameters()]
    step_with(NoisedSum(C, 1.0, 1.0), rate=0.0)(state, *public_batch())
    assert all(not torch.equal(p, b) for p, b in zip(state.discriminator.parameters(), before, strict=True))


# What a private discriminator may not be made of


def test_the_studys_discriminator_keeps_patients_apart() -> None:
    refuse_mixing_layers(make_discriminator(STUDY, 1))


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.BatchNorm3d(4), "batch norm"),
        (nn.SyncBatchNorm(4), "batch norm"),
        (nn.InstanceNorm3d(4, track_running_stats=True), "running statistics"),
        (nn.utils.spectral_norm(nn.Conv3d(1, 1, 1)), "spectral norm"),
        (nn.utils.parametrizations.spectral_norm(nn.Conv3d(1, 1, 1)), "spectral norm"),
    ],
    ids=["batch", "sync", "running", "spectral", "parametrised spectral"],
)
def test_layers_that_mix_patients_are_refused(layer: nn.Module, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        refuse_mixing_layers(nn.Sequential(nn.Conv3d(1, 4, 3), layer))
