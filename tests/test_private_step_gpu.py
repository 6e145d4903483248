"""The noised step on a GPU: in bfloat16, without waiting; and on the CPU, as much of that as can be seen there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tiny_cohorts import tiny_scans, tiny_study
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fedphantom.common.device import Device, choose_device
from fedphantom.common.gan.training import draw_batch
from fedphantom.common.gan.training_state import TrainingState, new_state
from fedphantom.privacy.dp.discriminator import PrivateDiscriminatorStep
from fedphantom.privacy.dp.drawn_sum import DrawnSum
from fedphantom.privacy.dp.noised import noised_parameters
from fedphantom.privacy.dp.patients import PrivatePatients
from fedphantom.privacy.dp.provenance import disclosed, marked
from fedphantom.privacy.dp.randomness import SecretRandom
from fedphantom.privacy.dp.step import NoisedSum, noised_mean

STUDY = tiny_study()
SCANS = tiny_scans(4)
HOW = NoisedSum(clip_norm=0.7, noise_multiplier=1.0, expected_batch=16.0)
NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def device(request: pytest.FixtureRequest) -> Device:
    return choose_device(request.param)


def step_of(state: TrainingState, rate: float = 1.0) -> Callable[[], Tensor]:
    """The whole step, from drawing patients to the update, with fakes that are not the generator's."""
    batch = draw_batch(SCANS, STUDY, state.device, step=0, seed=1)
    random = SecretRandom(state.device.torch)
    sums = DrawnSum(len(SCANS), rate, HOW, random, sys.maxsize)
    patients, names = PrivatePatients(SCANS, STUDY, state.device), noised_parameters(state.discriminator, "all")
    step = PrivateDiscriminatorStep(patients, sums, names, 2, random)
    return lambda: step(state, batch, torch.zeros_like(batch.real))


def seen_by_the_optimiser(state: TrainingState) -> list[Tensor]:
    """Every update's gradient (P,), once it is there."""
    seen: list[Tensor] = []
    state.discriminator_optimiser.register_step_pre_hook(
        lambda *_: seen.append(torch.cat([p.grad.reshape(-1) for p in state.discriminator.parameters()]))  # type: ignore[union-attr]  # has one
    )
    return seen


def test_patients_are_judged_in_the_devices_precision_and_updated_in_full(device: Device) -> None:
    state = new_state(STUDY, 1, device)
    judged: list[torch.dtype] = []
    state.discriminator.head.register_forward_hook(
        lambda module, inputs, logits: judged.append(logits.dtype) if marked(logits) else None
    )
    gradients = seen_by_the_optimiser(state)
    before = [parameter.clone() for parameter in state.discriminator.parameters()]
    loss = step_of(state)()
    assert set(judged) == {torch.bfloat16 if device.cuda else torch.float32}
    assert torch.isfinite(loss)
    for gradient in gradients:
        assert (gradient.device.type, gradient.dtype) == (device.torch.type, torch.float32)
        assert torch.isfinite(gradient).all()
    for parameter, old in zip(state.discriminator.parameters(), before, strict=True):
        assert parameter.dtype == torch.float32
        assert torch.isfinite(parameter).all()
        assert not torch.equal(parameter, old)


def test_the_noise_of_an_applied_update_has_the_promised_deviation_within_two_percent(device: Device) -> None:
    """Of a sample without patients, so that there is nothing else in it."""
    state = new_state(STUDY, 1, device)
    gradients = seen_by_the_optimiser(state)
    step_of(state, rate=0.0)()
    first, second = gradients
    assert len(first) > 30_000  # a hundredth's error of its deviation is then two and a half standard errors
    assert not torch.equal(first, second)
    for gradient in gradients:
        assert gradient.std().item() == pytest.approx(0.7 / 16, rel=0.02)
        assert abs(gradient.mean().item()) < 5 * 0.7 / 16 / len(gradient) ** 0.5


def test_the_sum_is_accumulated_in_double_on_the_device(device: Device) -> None:
    mean = noised_mean([], lambda _: [], 8, HOW, SecretRandom(device.torch))
    assert (mean.dtype, mean.device.type) == (torch.float64, device.torch.type)


# Nobody waits


class Waits(TorchDispatchMode):
    """Notes what would make the host wait, were the tensors a GPU's."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in {"_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2"}:
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class _Reached(Exception):
    """The optimiser, whose own counting on the CPU is no wait."""


def test_nothing_from_the_draw_to_the_optimiser_asks_for_a_value() -> None:
    state = new_state(STUDY, 1, choose_device("cpu"))
    step = step_of(state)

    def stop(*_: object) -> None:
        raise _Reached

    state.discriminator_optimiser.register_step_pre_hook(stop)
    with Waits() as waits, pytest.raises(_Reached):
        step()
    assert waits.seen == []
    with Waits() as waits:
        torch.ones(2).sum().item()
    assert len(waits.seen) == 1  # it would have been seen


@contextmanager
def never_waiting() -> Iterator[None]:
    """Within, CUDA refuses whatever makes the host wait."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_a_gpu_never_waits_for_it() -> None:
    state = new_state(STUDY, 1, choose_device("cuda"))
    step = step_of(state)
    step()  # what is set up once may wait
    with never_waiting():
        loss = step()
        with pytest.raises(RuntimeError, match="synchroniz"):
            disclosed(loss).item()
    assert torch.isfinite(loss)
