"""The discriminator's noised step: what one patient can change, agreement with Opacus, layers (PRIVACY §1.3, §8)."""

from __future__ import annotations

import sys
from dataclasses import replace

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
from fedphantom.privacy.dp.layers import refuse_mixing_layers
from fedphantom.privacy.dp.noised import noised_parameters
from fedphantom.privacy.dp.patients import PrivatePatients
from fedphantom.privacy.dp.provenance import PrivateDataReached, disclosed, mark, marked
from fedphantom.privacy.dp.randomness import SecretRandom
from fedphantom.privacy.dp.step import NoisedSum, clipped, noised_mean

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


def test_patients_gradients_agree_with_opacus(state: TrainingState) -> None:
    """The oracle: Opacus' hooks on the same batch, one row a patient (relative error below 1e-6)."""
    given, real, fake = oracle_batch(state)
    network = make_discriminator(STUDY, 1).double()
    oracle = GradSampleModule(make_discriminator(STUDY, 1).double(), batch_first=True, loss_reduction="sum")
    logits, _ = oracle(torch.cat([given, given]), torch.cat([real, fake]))
    rows = (logits - torch.cat([torch.ones(3), torch.zeros(3)]).view(-1, 1, 1, 1, 1)).square().mean(dim=(1, 2, 3, 4))
    rows.sum().backward()
    expected = torch.cat([p.grad_sample.flatten(1) for p in oracle.parameters()], dim=1)
    expected = (expected[:3] + expected[3:]) / 2  # a patient's real and fake make one gradient
    for i in range(3):
        logits, _ = network(given[[i, i]], torch.cat([real[i : i + 1], fake[i : i + 1]]))
        loss = (real_loss64(logits[:1], 1) + real_loss64(logits[1:], 0)) / 2
        ours = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(network.parameters()))])
        assert (ours - expected[i]).norm() / expected[i].norm() < 1e-6
        half = expected[i].norm().item() / 2
        assert clipped([ours], half).norm().item() == pytest.approx(half, rel=1e-5)
        assert torch.allclose(clipped([ours], half), expected[i] / 2, rtol=1e-4, atol=1e-9)


def oracle_batch(state: TrainingState) -> tuple[Tensor, Tensor, Tensor]:
    patients, random = PrivatePatients(SCANS, STUDY, CPU), SecretRandom(CPU.torch)
    drawn = [patients.draw(i, random) for i in range(3)]
    given, real = (disclosed(torch.cat(parts)) for parts in zip(*drawn, strict=True))
    with torch.no_grad():
        fake = state.generator(given, draw_noise(3, (16, 16, 16), torch_generator(1)))
    return given.double(), real.double(), fake.double()


def real_loss64(logits: Tensor, towards: float) -> Tensor:
    return (logits - towards).square().mean()


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
    state = new_state(STUDY, 1, CPU)
    state.discriminator.double()
    given, real, fake = oracle_batch(state)
    oracle = GradSampleModule(make_discriminator(STUDY, 1).double(), batch_first=True, loss_reduction="sum")
    (oracle(given, real)[0] - 1).square().mean(dim=(1, 2, 3, 4)).sum().backward()
    rows = torch.cat([p.grad_sample.flatten(1) for p in oracle.parameters()], dim=1) / 2
    clip = rows.norm(dim=1).median().item()  # one is clipped, one is not
    expected = (rows * (clip / (rows.norm(dim=1) + 1e-6)).clamp(max=1)[:, None]).sum(dim=0) / 5
    network = make_discriminator(STUDY, 1).double()
    on_fakes = torch.autograd.grad(real_loss64(network(given, fake)[0], 0) / 2, list(network.parameters()))
    expected = expected + torch.cat([part.reshape(-1) for part in on_fakes])

    step = step_with(silent(5, clip), patients=PrivatePatients(SCANS.only(range(3)), STUDY, CPU))
    found: list[Tensor] = []
    state.discriminator_optimiser.register_step_pre_hook(
        lambda *_: found.append(torch.cat([p.grad.reshape(-1) for p in state.discriminator.parameters()]))
    )
    step.update(state, lambda i: (mark(given[i : i + 1]), mark(real[i : i + 1])), (given, fake))
    assert (found[0] - expected).norm() / expected.norm() < 1e-5


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
    """The product's own loss and update, against Opacus' rows; in double, so that rounding does not blur it."""
    state = new_state(STUDY, 1, CPU)
    state.discriminator.double()
    given, real, fake = oracle_batch(state)
    oracle = GradSampleModule(make_discriminator(STUDY, 1).double(), batch_first=True, loss_reduction="sum")
    logits, _ = oracle(torch.cat([given, given]), torch.cat([real, fake]))
    towards = torch.cat([torch.ones(3), torch.zeros(3)]).view(-1, 1, 1, 1, 1)
    (logits - towards).square().mean(dim=(1, 2, 3, 4)).sum().backward()
    rows = torch.cat([p.grad_sample.flatten(1) for p in oracle.parameters()], dim=1)
    rows = (rows[:3] + rows[3:]) / 2
    clip = rows.norm(dim=1).median().item()  # one is clipped, one is not
    expected = (rows * (clip / (rows.norm(dim=1) + 1e-6)).clamp(max=1)[:, None]).sum(dim=0) / 5

    step = step_with(silent(5, clip), patients=PrivatePatients(SCANS.only(range(3)), STUDY, CPU))
    found: list[Tensor] = []
    state.discriminator_optimiser.register_step_pre_hook(
        lambda *_: found.append(torch.cat([p.grad.reshape(-1) for p in state.discriminator.parameters()]))
    )
    step.update(state, lambda i: (mark(given[[i, i]]), mark(torch.cat([real[i : i + 1], fake[i : i + 1]]))))
    # The loss itself is float32 in the product; its gradient agrees to that precision.
    assert (found[0] - expected).norm() / expected.norm() < 1e-5


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
