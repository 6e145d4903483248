"""The noised sum: what one patient can change, what the noise is, whom a sample takes (PRIVACY §1.3, §8)."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from fedphantom.common.device import choose_device
from fedphantom.common.errors import ConfigError
from fedphantom.privacy.dp.provenance import mark
from fedphantom.privacy.dp.randomness import SecretRandom
from fedphantom.privacy.dp.step import NoisedSum, as_gradients, clipped, noised_mean

CPU = choose_device("cpu")
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


def test_noise_does_not_repeat_where_the_low_bits_of_a_seed_do() -> None:
    """torch's own generator on the CPU keeps 32 bits of a seed: whoever tries them all out has the noise."""
    low = 777
    torch_draws = [torch.randn(4, generator=torch.Generator().manual_seed(low + (k << 32))) for k in range(2)]
    assert torch.equal(*torch_draws)  # what the product must not rest on
    assert not isinstance(SecretRandom(CPU.torch)._noise, torch.Generator)


@pytest.mark.parametrize("bit", [33, 64, 128, 255])
def test_all_256_bits_that_noise_and_samples_are_seeded_with_decide_them(
    bit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of fewer, whoever tries them all out has the noise, and takes it away."""
    draws, samples = [], []
    for seed in (777, 777 + (1 << bit)):
        monkeypatch.setattr(secrets, "randbits", lambda bits, of=seed: of % (1 << bits))
        random = SecretRandom(CPU.torch)
        draws.append(random.normal(4))
        samples.append(random.poisson_sample(1000, 0.5).tolist())
    assert not torch.equal(*draws)
    assert samples[0] != samples[1]


def test_a_value_of_noise_is_of_four_draws_so_that_its_low_bits_tell_nothing() -> None:
    class Counted:
        def standard_normal(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
            assert shape == (4, 3)
            return 10.0 ** np.arange(12).reshape(shape)

    random = SecretRandom(CPU.torch)
    random._noise = Counted()  # type: ignore[assignment]  # in the generator's place
    assert random.normal(3).tolist() == [0.5 * 1001001001.0, 5 * 1001001001.0, 50 * 1001001001.0]


def test_vectors_are_clipped_and_summed_in_64_bits() -> None:
    """In 32, rounding lets a patient be longer than the clip norm, and of a long sum it loses whole patients."""
    vector = torch.rand(10_000, generator=torch.Generator().manual_seed(1)) * 1e4
    length = vector.double().norm().item()
    found = clipped([vector], C)
    assert found.dtype == torch.float64
    assert found.norm().item() == pytest.approx(C * length / (length + 1e-6), rel=1e-13)
    ones = [torch.tensor([2.0**24, 0, 0]), torch.tensor([1.0, 0, 0])]
    assert summed(ones, silent(clip_norm=2.0**30))[0].item() == 2**24 + 1


@pytest.mark.parametrize(
    "how",
    [
        (0.0, 1.0, 1.0),
        (math.inf, 1.0, 1.0),
        (1.0, -1.0, 1.0),
        (1.0, 1.0, 0.0),
        (1.0, math.nan, 1.0),
        (1e300, 1.0, 1.0),
        (1e-45, 1.0, 1.0),
    ],
)
def test_noise_and_clipping_that_promise_nothing_are_refused(how: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError):
        NoisedSum(*how)


def test_a_vector_is_cut_into_the_parameters_shapes() -> None:
    parameters = [nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4))]
    first, second = as_gradients(torch.arange(10, dtype=torch.float64), parameters)
    assert first.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (second.tolist(), second.dtype) == ([6, 7, 8, 9], torch.float32)
