"""A patient's mark: what it spreads to, and what it stops (PRIVACY §1.1, §8 T2)."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from promised import promised_site, promised_text, trainer
from tiny_cohorts import tiny_scans, tiny_study
from torch import Tensor, nn

from fedphantom.client.private_training import PrivateTraining
from fedphantom.common.device import choose_device
from fedphantom.common.errors import PolicyRefused
from fedphantom.common.exchange import RoundRequest
from fedphantom.common.gan.losses import feature_matching, l1, real_loss
from fedphantom.common.gan.networks import draw_noise
from fedphantom.common.gan.training import Batch, plain_discriminator_step, train
from fedphantom.common.gan.training_state import TrainingState, new_state
from fedphantom.common.randomness import torch_generator
from fedphantom.common.study import parse_study
from fedphantom.privacy.dp.patients import PrivatePatients
from fedphantom.privacy.dp.provenance import PrivateDataReached, disclosed, mark, marked
from fedphantom.privacy.dp.randomness import SecretRandom

CPU = choose_device("cpu")
STUDY = tiny_study()
SCANS = tiny_scans(3)


@pytest.fixture
def state() -> TrainingState:
    return new_state(STUDY, 1, CPU)


def patient() -> tuple[Tensor, Tensor]:
    return PrivatePatients(SCANS, STUDY, CPU).draw(0, SecretRandom(CPU.torch))


def noise_like(given: Tensor) -> Tensor:
    x, y, z = given.shape[2:]
    return draw_noise(len(given), (x, y, z), torch_generator(1))


def parameters_of(network: nn.Module) -> list[bytes]:
    return [value.detach().numpy().tobytes() for value in network.parameters()]


def test_whatever_is_computed_from_a_patient_is_marked(state: TrainingState) -> None:
    given, real = patient()
    fake = state.generator(given, noise_like(given))
    logits, features = state.discriminator(given, real)
    far = torch.cat([torch.zeros_like(disclosed(logits)), logits]).max(dim=0).values[0, 0].sum().detach() * 0
    gradient = torch.autograd.grad(real_loss(logits), list(state.discriminator.parameters()))
    for value in (given, real, fake, logits, *features, far, *gradient, real.data, real.cpu()[0], *real.split(1)):
        assert marked(value)


def test_what_comes_of_public_material_alone_is_not_marked(state: TrainingState) -> None:
    given = disclosed(patient()[0])
    assert not marked(state.generator(given, noise_like(given)))


READINGS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda t: t.item(),
    "float": float,
    "sym_float": torch.sym_float,
    "sym_int": torch.sym_int,
    "bool": bool,
    "numpy": lambda t: t.numpy(),
    "asarray": np.asarray,
    "tolist": lambda t: t.tolist(),
    "finite": lambda t: torch.isfinite(t).all().item(),
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "storage": lambda t: t.untyped_storage(),
    "address": lambda t: t.data_ptr(),
    "save": lambda t: torch.save(t, "/dev/null"),
    "add_": lambda t: torch.zeros(()).add_(t),
    "setitem": lambda t: torch.zeros(2).__setitem__(0, t),
    "out": lambda t: torch.add(t, t, out=torch.zeros(())),
    "foreach": lambda t: torch._foreach_add_([torch.zeros(())], [t]),
    "copy_": lambda t: torch.zeros(()).copy_(t),
    "equal": lambda t: torch.equal(t, t),
    "index": lambda t: [1, 2][t.long()],
}


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
def test_a_marked_value_is_neither_read_nor_written_elsewhere(reading: Callable[[Tensor], object]) -> None:
    with pytest.raises(PrivateDataReached):
        reading(mark(torch.tensor(0.5)))


def test_a_marked_value_shows_its_shape_and_nothing_else() -> None:
    value = mark(torch.tensor([0.123456, 7.0]))
    assert repr(value) == str(value) == f"{value}" == "Marked(shape=(2,))"


ILLEGAL: dict[str, Callable[[TrainingState, Tensor, Tensor], Tensor]] = {
    "L1 to the paired scan": lambda s, m, x: l1(s.generator(disclosed(m), noise_like(m)), x),
    "feature matching": lambda s, m, x: feature_matching(
        s.discriminator(disclosed(m), s.generator(disclosed(m), noise_like(m)))[1], s.discriminator(disclosed(m), x)[1]
    ),
    "a private label map": lambda s, m, x: real_loss(
        s.discriminator(m, s.generator(m, noise_like(m)))[0]
    ),
    "a private label map, judged with a public one": lambda s, m, x: real_loss(
        s.discriminator(disclosed(m), s.generator(m, noise_like(m)))[0]
    ),
    "a weight that a scan decides": lambda s, m, x: (
        real_loss(s.discriminator(disclosed(m), s.generator(disclosed(m), noise_like(m)))[0]) * x.mean().detach()
    ),
}  # fmt: skip


@pytest.mark.parametrize("term", ILLEGAL.values(), ids=ILLEGAL)
def test_no_term_that_touches_a_patient_reaches_the_generator(
    state: TrainingState, term: Callable[[TrainingState, Tensor, Tensor], Tensor]
) -> None:
    before = parameters_of(state.generator)
    with pytest.raises(PrivateDataReached, match="was about to update a network"):
        term(state, *patient()).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert all(parameter.grad is None for parameter in state.generator.parameters())
    assert parameters_of(state.generator) == before


def public_fake(state: TrainingState, given: Tensor) -> Tensor:
    fake: Tensor = state.generator(disclosed(given), noise_like(given))
    return fake


def gradients_set_by_hand(state: TrainingState, gradients: Iterable[Tensor]) -> None:
    for parameter, gradient in zip(state.generator.parameters(), gradients, strict=True):
        parameter.grad = gradient


def by_a_gradient_argument(state: TrainingState, given: Tensor, real: Tensor) -> None:
    public_fake(state, given).backward(gradient=real)  # type: ignore[no-untyped-call]  # torch leaves it untyped


def by_grad_tensors(state: TrainingState, given: Tensor, real: Tensor) -> None:
    torch.autograd.backward([public_fake(state, given)], [real])


def by_grad_outputs(state: TrainingState, given: Tensor, real: Tensor) -> None:
    parameters = list(state.generator.parameters())
    gradients_set_by_hand(state, torch.autograd.grad(public_fake(state, given), parameters, grad_outputs=real))


def by_a_marked_loss_and_grad(state: TrainingState, given: Tensor, real: Tensor) -> None:
    parameters = list(state.generator.parameters())
    gradients_set_by_hand(state, torch.autograd.grad(l1(public_fake(state, given), real), parameters))


def by_a_functional_gradient(state: TrainingState, given: Tensor, real: Tensor) -> None:
    def loss(parameters: dict[str, Tensor]) -> Tensor:
        inputs = disclosed(given), noise_like(given)
        return l1(torch.func.functional_call(state.generator, parameters, inputs), real)

    parameters = {name: value.detach() for name, value in state.generator.named_parameters()}
    gradients_set_by_hand(state, torch.func.grad(loss)(parameters).values())


def by_vmap(state: TrainingState, given: Tensor, real: Tensor) -> None:
    l1(public_fake(state, given), torch.vmap(lambda one: one * 1.0)(real)).backward()  # type: ignore[no-untyped-call]


def by_vmap_over_public_ones(state: TrainingState, given: Tensor, real: Tensor) -> None:
    fake = public_fake(state, given)
    torch.vmap(lambda one: l1(one, real[0]))(fake).mean().backward()  # type: ignore[no-untyped-call]


def by_a_jacobian(state: TrainingState, given: Tensor, real: Tensor) -> None:
    fake = public_fake(state, given)
    _, gradient = torch.autograd.functional.vjp(torch.sin, fake.detach(), real)  # type: ignore[no-untyped-call]
    fake.backward(gradient=gradient)  # type: ignore[no-untyped-call]


def by_a_hook(state: TrainingState, given: Tensor, real: Tensor) -> None:
    fake = public_fake(state, given)
    fake.register_hook(lambda gradient: gradient + real)  # type: ignore[no-untyped-call]
    fake.sum().backward()  # type: ignore[no-untyped-call]


def by_a_module_hook(state: TrainingState, given: Tensor, real: Tensor) -> None:
    state.generator.register_full_backward_hook(lambda module, into, outof: (into[0] * real.mean(), *into[1:]))
    public_fake(state, given.requires_grad_()).sum().backward()  # type: ignore[no-untyped-call]


def by_the_learning_rate(state: TrainingState, given: Tensor, real: Tensor) -> None:
    state.generator_optimiser.param_groups[0]["lr"] = real.abs().mean()
    public_fake(state, given).sum().backward()  # type: ignore[no-untyped-call]


def by_the_optimisers_moments(state: TrainingState, given: Tensor, real: Tensor) -> None:
    public_fake(state, given).sum().backward()  # type: ignore[no-untyped-call]
    first = next(iter(state.generator.parameters()))
    state.generator_optimiser.state[first] = {
        "step": torch.tensor(1.0),
        "exp_avg": torch.zeros_like(first) + real.mean(),
        "exp_avg_sq": torch.ones_like(first),
    }


BYPASSES: dict[str, Callable[[TrainingState, Tensor, Tensor], None]] = {
    "backward(gradient=…)": by_a_gradient_argument,
    "autograd.backward(…, grad_tensors)": by_grad_tensors,
    "autograd.grad(…, grad_outputs)": by_grad_outputs,
    "autograd.grad of a marked loss": by_a_marked_loss_and_grad,
    "func.grad": by_a_functional_gradient,
    "vmap of a scan": by_vmap,
    "vmap beside a scan": by_vmap_over_public_ones,
    "autograd.functional": by_a_jacobian,
    "a tensor's hook": by_a_hook,
    "a module's hook": by_a_module_hook,
    "the learning rate": by_the_learning_rate,
    "the optimiser's moments": by_the_optimisers_moments,
}


@pytest.mark.parametrize("way", BYPASSES.values(), ids=BYPASSES)
def test_no_way_around_a_loss_moves_the_generator_by_a_patient(
    state: TrainingState, way: Callable[[TrainingState, Tensor, Tensor], None]
) -> None:
    """Where torch takes marks away there is no way in, and what it leaves marked no optimiser steps with."""
    before = parameters_of(state.generator)

    def update() -> None:
        way(state, *patient())
        state.generator_optimiser.step()

    with pytest.raises(PrivateDataReached):
        update()
    assert parameters_of(state.generator) == before


def test_transforms_and_hooks_that_meet_no_patient_work_as_ever(state: TrainingState) -> None:
    given, _ = patient()
    assert torch.vmap(lambda one: one * 2)(torch.ones(3)).tolist() == [2, 2, 2]
    assert torch.func.grad(lambda one: one.square())(torch.tensor(3.0)).item() == 6
    fake, before = public_fake(state, given), parameters_of(state.generator)
    fake.register_hook(lambda gradient: gradient * 2)  # type: ignore[no-untyped-call]
    fake.backward(gradient=torch.ones_like(fake))  # type: ignore[no-untyped-call]
    state.generator_optimiser.step()
    assert parameters_of(state.generator) != before


def test_a_gradient_of_a_patient_set_by_hand_is_not_stepped_with(state: TrainingState) -> None:
    given, real = patient()
    parameters = list(state.discriminator.parameters())
    for parameter, gradient in zip(
        parameters, torch.autograd.grad(real_loss(state.discriminator(given, real)[0]), parameters), strict=True
    ):
        parameter.grad = gradient
    before = parameters_of(state.discriminator)
    with pytest.raises(PrivateDataReached):
        state.discriminator_optimiser.step()
    assert parameters_of(state.discriminator) == before


def test_the_plain_discriminator_step_is_stopped_before_it_learns_from_a_patient(state: TrainingState) -> None:
    given, real = patient()
    fake = state.generator(disclosed(given), noise_like(given)).detach()
    before = parameters_of(state.discriminator)
    with pytest.raises(PrivateDataReached):
        plain_discriminator_step(state, Batch(given, noise_like(given), real), fake)
    assert parameters_of(state.discriminator) == before


def test_the_training_loop_takes_no_scans_under_a_promise(state: TrainingState) -> None:
    """Scans come to the loop from disk, where nothing is marked: it asks what they are."""
    promised = parse_study(promised_text("a" * 64))
    before = parameters_of(state.generator)
    with pytest.raises(PolicyRefused, match="about to be trained on scans"):
        next(train(state, SCANS, promised, until_step=1, total_steps=1, seed=1))
    assert parameters_of(state.generator) == before


def test_a_site_that_trained_on_its_own_label_maps_under_a_promise_is_stopped(tmp_path: Path) -> None:
    folder = promised_site(tmp_path)
    own = trainer(folder)
    assert isinstance(own.way, PrivateTraining)
    own.way.pairs = own._scans  # type: ignore[assignment]  # the mistake
    request = RoundRequest(folder.study().digest(), 1, own.way.initial())
    with pytest.raises(PolicyRefused, match="about to be trained on scans"):
        own.train_round(request)
