"""What a patient's mark does not see: each way past it that is known, as torch leaves it open today.

Marks guard against mistakes (PRIVACY §8 T2). Where a test here fails, torch has begun to tell of that way: take it off
the list, here, in :mod:`fedphantom.privacy.dp.provenance` and in ``docs/privacy.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_cohorts import tiny_scans, tiny_study
from torch import Tensor, nn

from fedphantom.common.device import choose_device
from fedphantom.common.gan.losses import l1
from fedphantom.common.gan.networks import draw_noise
from fedphantom.common.gan.training_state import new_state
from fedphantom.common.randomness import torch_generator
from fedphantom.privacy.dp.patients import PrivatePatients
from fedphantom.privacy.dp.provenance import PrivateDataReached, disclosed, mark, marked
from fedphantom.privacy.dp.randomness import SecretRandom

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

CPU = choose_device("cpu")
Way = Callable[[Tensor], Tensor]


def set_in_an_empty_one(x: Tensor) -> Tensor:
    return torch.empty(0).set_(x)  # type: ignore[call-overload, no-any-return]  # torch's stubs know storages alone


def as_a_parameter_s_data(x: Tensor) -> Tensor:
    parameter = nn.Parameter(torch.zeros(x.shape))
    parameter.data = x
    return parameter


def as_parameters_of_a_vector(x: Tensor) -> Tensor:
    parameter = nn.Parameter(torch.zeros(x.shape))
    nn.utils.vector_to_parameters(x.reshape(-1), [parameter])
    return parameter


def as_running_statistics(x: Tensor) -> Tensor:
    norm = nn.BatchNorm1d(x.shape[-1], momentum=1.0)
    norm(x)
    assert norm.running_mean is not None
    return norm.running_mean


class HandsBack(torch.autograd.Function):
    """Backwards, what it was given, whatever comes back to it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, given: Tensor) -> Tensor:
        ctx.given = given
        return value * 1

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, None]:
        return ctx.given, None


def as_a_custom_gradient(x: Tensor) -> Tensor:
    value = torch.zeros(x.shape, requires_grad=True)
    HandsBack.apply(value, x).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert value.grad is not None
    return value.grad


def as_a_hook_s_gradient(x: Tensor) -> Tensor:
    value = torch.zeros(x.shape, requires_grad=True)
    painted = value * 1
    painted.register_hook(lambda _: x)  # type: ignore[no-untyped-call]
    painted.sum().backward()  # type: ignore[no-untyped-call]
    assert value.grad is not None
    return value.grad


def by_a_traced_function(x: Tensor) -> Tensor:
    doubled = torch.jit.trace(lambda t: t * 2, torch.zeros(x.shape))  # type: ignore[no-untyped-call]
    return doubled(x)  # type: ignore[no-any-return]


COPIES: dict[str, Way] = {
    "torch.tensor": torch.tensor,
    "new_tensor": lambda x: torch.zeros(1).new_tensor(x),
    "torch.Tensor": torch.Tensor,
    "torch.FloatTensor": torch.FloatTensor,  # type: ignore[dict-item]  # a constructor that is no type to mypy
    "new of another": lambda x: torch.zeros(1).new(x),
    "as_subclass": lambda x: x.as_subclass(Tensor),
    "dlpack": lambda x: torch.from_dlpack(torch.utils.dlpack.to_dlpack(x)),
    "set_": set_in_an_empty_one,
}
"""What has all of a patient's values."""
OTHERS: dict[str, Way] = {
    "nested": lambda x: torch.nested.nested_tensor([x]).to_padded_tensor(0.0),
    "sparse": lambda x: torch.sparse_coo_tensor(torch.arange(x.shape[1])[None], x[0]).to_dense(),
    "data": as_a_parameter_s_data,
    "vector_to_parameters": as_parameters_of_a_vector,
    "full": lambda x: torch.full((2,), x[0, 0]),  # type: ignore[call-overload]  # numbers alone, say torch's stubs
    "arange": lambda x: torch.arange(10 * x[0, 0]),  # type: ignore[call-overload]
    "alpha": lambda x: torch.zeros(2).add(torch.ones(2), alpha=x[0, 0]),  # type: ignore[call-overload]
    "running statistics": as_running_statistics,
    "shapes": lambda x: torch.zeros(len(x[x > 0.5])),
    "custom autograd function": as_a_custom_gradient,
    "hook that hands back": as_a_hook_s_gradient,
    "traced function": by_a_traced_function,
}
"""What has some of them, or goes by them."""


@pytest.mark.parametrize("way", (COPIES | OTHERS).values(), ids=COPIES | OTHERS)
def test_a_mark_is_lost_on_the_ways_that_are_known_and_a_patient_s_values_are_not(way: Way) -> None:
    found = [way(mark(value)) for value in (torch.tensor([[0.3, 0.1], [0.4, 0.2]]), torch.full((2, 2), 0.9))]
    assert not any(map(marked, found))
    assert found[0].tolist() != found[1].tolist()


@pytest.mark.parametrize("way", COPIES.values(), ids=COPIES)
def test_a_copy_without_its_mark_teaches_the_generator_what_a_marked_scan_may_not(way: Way) -> None:
    """Why the list is told: on these ways a patient's pair moves the generator, and nothing says so."""
    state = new_state(tiny_study(), 1, CPU)
    given, real = PrivatePatients(tiny_scans(1), tiny_study(), CPU).draw(0, SecretRandom(CPU.torch))
    before = [value.clone() for value in state.generator.parameters()]

    def update(label_map: Tensor, scan: Tensor) -> None:
        noise = draw_noise(1, (16, 16, 16), torch_generator(1))
        l1(state.generator(label_map, noise), scan).backward()  # type: ignore[no-untyped-call]
        state.generator_optimiser.step()

    with pytest.raises(PrivateDataReached):
        update(given, real)
    assert all(torch.equal(p, b) for p, b in zip(state.generator.parameters(), before, strict=True))
    update(way(given), way(real))
    assert any(not torch.equal(p, b) for p, b in zip(state.generator.parameters(), before, strict=True))


def test_a_copy_made_by_a_marked_tensor_itself_is_marked() -> None:
    x = mark(torch.tensor([0.5]))
    for copied in (x.new(x), x.clone().set_(disclosed(x)), nn.Parameter(x), torch.as_tensor(x)):  # type: ignore[call-overload]
        assert marked(copied)
