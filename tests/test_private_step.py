"""The noised step: what one patient can change, what the noise is, agreement with Opacus (PRIVACY §1.3, §8)."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
from fedphantom.privacy.dp.discriminator import PrivateDiscriminatorStep, check_discriminator
from fedphantom.privacy.dp.noised import noised_parameters
from fedphantom.privacy.dp.patients import PrivatePatients
from fedphantom.privacy.dp.provenance import PrivateDataReached, disclosed, mark, marked
from fedphantom.privacy.dp.randomness import SecretRandom
from fedphantom.privacy.dp.step import NoisedSum, as_gradients, clipped, noised_mean

CPU = choose_device("cpu")
STUDY = tiny_study()
PATIENTS = 6
SCANS = tiny_scans(PATIENTS)
C = 0.5


def silent(expected_batch: float = 1.0, clip_norm: float = C) -> NoisedSum:
    return NoisedSum(clip_norm, 0.0, expected_batch)


def summed(vectors: Sequence[Tensor], how: NoisedSum) -> Tensor:
    """Of patients with these gradients: any at all, aligned or opposed."""
    patients = [mark(v.float()) for v in vectors]
    return noised_mean(patients, lambda v: [v[:1], v[1:]], 3, how, SecretRandom(CPU.torch))


# What one patient can change


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(1e-3, 1e3),
)
def test_removing_a_patient_changes_the_sum_by_no_more_than_the_clip_norm(
    vectors: list[list[float]], clip_norm: float
) -> None:
    how, tensors = silent(clip_norm=clip_norm), [torch.tensor(v) for v in vectors]
    with_all = summed(tensors, how)
    for i in range(len(tensors)):
        without = summed(tensors[:i] + tensors[i + 1 :], how) if len(tensors) > 1 else torch.zeros_like(with_all)
        assert (with_all - without).norm() <= clip_norm * (1 + 1e-4)


def test_an_adversarial_patient_reaches_the_bound_and_not_further() -> None:
    """All the same way, the worst there is: a bound that nothing comes near would also hold for a broken step."""
    aligned = [torch.tensor([3.0, 4.0, 0.0]) * 10**k for k in range(4)]
    step = summed(aligned, silent()) - summed(aligned[:-1], silent())
    assert step.norm().item() == pytest.approx(C, rel=1e-4)
    assert (summed([-v for v in aligned], silent()) + 4 * C * torch.tensor([0.6, 0.8, 0])).norm() < 1e-4


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_patient_whose_gradient_is_not_finite_stays_within_the_bound(bad: float) -> None:
    step = summed([torch.tensor([bad, 1.0, 0.0]), torch.tensor([0.0, 0.1, 0.0])], silent())
    assert torch.isfinite(step).all()
    assert step.norm() <= 2 * C * (1 + 1e-4)


def test_a_small_gradient_is_left_as_it_is() -> None:
    assert torch.allclose(summed([torch.tensor([0.1, -0.2, 0.0])], silent()).float(), torch.tensor([0.1, -0.2, 0.0]))


def test_the_sum_is_divided_by_the_public_constant_whoever_was_drawn() -> None:
    vector = torch.tensor([0.0, 0.0, 0.25])
    assert summed([vector] * 3, silent(expected_batch=12)).tolist() == pytest.approx([0, 0, 0.25 * 3 / 12])


def test_no_patient_drawn_gives_noise_alone() -> None:
    step = noised_mean([], lambda _: [], 50, NoisedSum(C, 1.0, 4.0), SecretRandom(CPU.torch))
    assert step.shape == (50,)
    assert step.abs().min() > 0


# The noise


def test_the_noise_of_an_update_has_the_promised_deviation_within_two_percent() -> None:
    how = NoisedSum(clip_norm=0.7, noise_multiplier=1.0, expected_batch=16.0)
    step = noised_mean([], lambda _: [], 100_000, how, SecretRandom(CPU.torch))
    assert step.std().item() == pytest.approx(0.7 / 16, rel=0.02)
    assert abs(step.mean().item()) < 5 * 0.7 / 16 / math.sqrt(100_000)


def test_the_same_seed_of_everything_else_repeats_no_noise_and_no_sample() -> None:
    draws, samples = [], []
    for _ in range(2):
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002  # the global generator, on purpose
        random = SecretRandom(CPU.torch)
        draws.append(random.normal(8))
        samples.append(random.poisson_sample(1000, 0.5).tolist())
    assert not torch.equal(draws[0], draws[1])
    assert samples[0] != samples[1]


def test_every_patient_is_drawn_with_the_sampling_rate_and_independently() -> None:
    random, draws, rate = SecretRandom(CPU.torch), 4000, 0.3
    taken = np.zeros((draws, 4))
    for row in taken:
        row[random.poisson_sample(4, rate)] = 1
    se = math.sqrt(rate * (1 - rate) / draws)
    assert np.abs(taken.mean(axis=0) - rate).max() < 5 * se
    sizes = taken.sum(axis=1)  # binomial, so sometimes none and sometimes all: no fixed batch
    assert sizes.var() == pytest.approx(4 * rate * (1 - rate), rel=0.15)
    assert {0.0, 4.0} <= set(sizes)


# The discriminator's step


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
) -> PrivateDiscriminatorStep:
    network = make_discriminator(STUDY, 1)
    private = patients or PrivatePatients(SCANS, STUDY, CPU)
    return PrivateDiscriminatorStep(
        private, rate, how, noised_parameters(network, noised), steps, SecretRandom(CPU.torch), sys.maxsize, fakes
    )


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


def test_noise_does_not_repeat_where_the_low_bits_of_a_seed_do() -> None:
    """torch's own generator on the CPU keeps 32 bits of a seed: whoever tries them all out has the noise."""
    low = 777
    torch_draws = [torch.randn(4, generator=torch.Generator().manual_seed(low + (k << 32))) for k in range(2)]
    assert torch.equal(*torch_draws)  # what the product must not rest on
    assert not isinstance(SecretRandom(CPU.torch)._noise, torch.Generator)


def test_a_step_that_was_not_paid_for_is_not_taken(state: TrainingState) -> None:
    step = step_with(silent(PATIENTS), steps=2)
    step._paid = 3
    step(state, *public_batch())
    before = [p.clone() for p in state.discriminator.parameters()]
    with pytest.raises(BudgetSpent, match="beyond the 3 steps"):
        step(state, *public_batch())  # the third is taken, the fourth is not
    assert any(not torch.equal(p, b) for p, b in zip(state.discriminator.parameters(), before, strict=True))
    after = [p.clone() for p in state.discriminator.parameters()]
    with pytest.raises(BudgetSpent):
        step(state, *public_batch())
    assert step.taken == 3
    assert all(torch.equal(p, a) for p, a in zip(state.discriminator.parameters(), after, strict=True))


@pytest.mark.parametrize(
    "how", [(0.0, 1.0, 1.0), (math.inf, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, 0.0), (1.0, math.nan, 1.0)]
)
def test_noise_and_clipping_that_promise_nothing_are_refused(how: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError):
        NoisedSum(*how)


def test_several_steps_are_taken_for_one_of_the_generator(state: TrainingState) -> None:
    counted: list[int] = []
    state.discriminator_optimiser.register_step_post_hook(lambda *_: counted.append(1))
    step_with(silent(PATIENTS), steps=5)(state, *public_batch())
    assert len(counted) == 5


def test_an_empty_sample_still_steps(state: TrainingState) -> None:
    before = [p.clone() for p in state.discriminator.parameters()]
    step_with(NoisedSum(C, 1.0, 1.0), rate=0.0)(state, *public_batch())
    assert all(not torch.equal(p, b) for p, b in zip(state.discriminator.parameters(), before, strict=True))


def test_a_vector_is_cut_into_the_parameters_shapes() -> None:
    parameters = [nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4))]
    first, second = as_gradients(torch.arange(10, dtype=torch.float64), parameters)
    assert first.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (second.tolist(), second.dtype) == ([6, 7, 8, 9], torch.float32)


# What a private discriminator may not be made of


def test_the_studys_discriminator_keeps_patients_apart() -> None:
    check_discriminator(make_discriminator(STUDY, 1))


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
        check_discriminator(nn.Sequential(nn.Conv3d(1, 4, 3), layer))
