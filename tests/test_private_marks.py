"""A patient's mark: what it spreads to, and what it stops (PRIVACY §1.1, §8 T2)."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
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
