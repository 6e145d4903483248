"""What we rely on in Opacus, and what we keep clear of (PRIVACY §1.6): should any of it change, we want to know."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from opacus import GradSampleModule, PrivacyEngine
from opacus.accountants import GaussianAccountant
from opacus.accountants.utils import get_noise_multiplier
from opacus.grad_sample import grad_sample_module_fast_gradient_clipping as fast
from opacus.optimizers import DPOptimizer
from opacus.utils.batch_memory_manager import BatchMemoryManager
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedphantom.common.device import choose_device
from fedphantom.common.errors import ConfigError
from fedphantom.privacy.dp.accounting import Mechanism, epsilon
from fedphantom.privacy.dp.layers import refuse_mixing_layers
from fedphantom.privacy.dp.provenance import mark
from fedphantom.privacy.dp.randomness import SecretRandom
from fedphantom.privacy.dp.step import NoisedSum, noised_mean

pytestmark = pytest.mark.filterwarnings("ignore")  # Opacus warns of much that is done here on purpose

CPU = choose_device("cpu")
C = 0.01
"""Below most gradients here, so that clipping shows."""


def discriminator(norm: nn.Module | None = None, last: Callable[[nn.Module], nn.Module] = lambda layer: layer) -> Any:
    """Patches of (B, 1, 5, 5, 5) volumes judged, in double: two convolutions with a norm between."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv3d(1, 4, 3, padding=1), norm or nn.GroupNorm(4, 4), nn.LeakyReLU(0.2), nn.Conv3d(4, 1, 3)
        return nn.Sequential(*layers[:3], last(layers[3])).double()


def volumes(number: int, seed: int = 0) -> Tensor:
    return torch.randn((number, 1, 5, 5, 5), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def losses(logits: Tensor) -> Tensor:
    """One a patient, (B,)."""
    return (logits - 1).square().mean(dim=(1, 2, 3, 4))


def rows_of(network: nn.Module, real: Tensor) -> Tensor:
    """Gradients (B, P) one patient after the other, by autograd alone."""
    rows = [torch.autograd.grad(losses(network(one)).sum(), list(network.parameters())) for one in real.split(1)]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])


def sampled(wrapped: Any) -> Tensor:
    """What Opacus keeps of the last backward: gradients (B, P)."""
    return torch.cat([parameter.grad_sample.flatten(1) for parameter in wrapped.parameters()], dim=1)


def gradient(wrapped: Any) -> Tensor:
    """What the optimiser would step with, (P,)."""
    return torch.cat([parameter.grad.reshape(-1) for parameter in wrapped.parameters()])


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def made_private(patients: int, batch: int, noise: float = 0.0) -> Any:
    """Opacus' engine, wrapped network, optimiser, and loader of a public toy cohort."""
    network, engine = discriminator(), PrivacyEngine()
    wrapped, optimiser, loader = engine.make_private(
        module=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        data_loader=DataLoader(TensorDataset(volumes(patients)), batch_size=batch),
        noise_multiplier=noise,
        max_grad_norm=C,
    )
    return engine, wrapped, optimiser, loader


# 1: the oracle

NORMS: dict[str, Callable[[], nn.Module]] = {
    "group": lambda: nn.GroupNorm(4, 4),
    "instance": lambda: nn.InstanceNorm3d(4),
    "affine instance": lambda: nn.InstanceNorm3d(4, affine=True),
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("functorch", [False, True], ids=["hooks", "functorch"])
def test_opacus_gradients_agree_with_autograd_and_its_clipped_mean_with_our_step(
    norm: Callable[[], nn.Module], functorch: bool
) -> None:
    network, real = discriminator(norm()), volumes(3)
    wrapped = GradSampleModule(copy.deepcopy(network), force_functorch=functorch)
    sgd = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    optimiser = DPOptimizer(sgd, noise_multiplier=0.0, max_grad_norm=C, expected_batch_size=3)
    losses(wrapped(real)).mean().backward()
    rows = rows_of(network, real)
    assert relative_error(sampled(wrapped), rows) < 1e-6

    optimiser.pre_step()
    ours = noised_mean(
        mark(real).split(1),
        lambda one: torch.autograd.grad(losses(network(one)).sum(), list(network.parameters())),
        rows.shape[1],
        NoisedSum(C, noise_multiplier=0.0, expected_batch=3.0),
        SecretRandom(CPU.torch),
    )
    assert rows.norm(dim=1).min() > C  # clipped, all of them
    assert relative_error(ours, gradient(wrapped)) < 1e-6


# 2, 3: several passes


def test_two_forwards_and_one_backward_add_a_fake_to_the_patient_of_its_number() -> None:
    """Legal with fakes of own label maps alone: otherwise see test_sensitivity_traps."""
    network, real, fake = discriminator(), volumes(3), volumes(2, seed=1)
    wrapped = GradSampleModule(copy.deepcopy(network), loss_reduction="sum")
    (losses(wrapped(real)).sum() + losses(wrapped(fake)).sum()).backward()
    expected = rows_of(network, real)
    expected[:2] += rows_of(network, fake)
    assert relative_error(sampled(wrapped), expected) < 1e-6


def test_two_backwards_make_a_list_which_poisson_sampling_refuses() -> None:
    wrapped = GradSampleModule(discriminator())
    for _ in range(2):
        losses(wrapped(volumes(3))).mean().backward()
    assert all(isinstance(parameter.grad_sample, list) for parameter in wrapped.parameters())

    _, wrapped, _, _ = made_private(patients=8, batch=4)
    losses(wrapped(volumes(3))).mean().backward()
    with pytest.raises(ValueError, match="Poisson sampling is not compatible with grad accumulation"):
        losses(wrapped(volumes(3))).mean().backward()


def test_accumulation_once_allowed_clips_rows_apart_halves_the_gradient_and_doubles_the_rate() -> None:
    engine, wrapped, optimiser, _ = made_private(patients=8, batch=2)  # q = 1/4, two patients a step
    wrapped.allow_grad_accumulation()
    one = volumes(1)
    for _ in range(2):
        losses(wrapped(one)).mean().backward()
    optimiser.step()
    assert float(gradient(wrapped).norm()) == pytest.approx(
        2 * C / (2 * 2), rel=1e-3
    )  # two rows of C over two batches of 2
    assert engine.accountant.history == [(0.0, 2 / 4, 1)]


# 4: ghost clipping


def test_ghost_clipping_makes_every_row_of_a_convolution_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """It spares memory where it needs norms alone, and it has those of linear layers and embeddings alone."""
    made: list[torch.Size] = []
    plain = fast.create_or_accumulate_grad_sample

    def watched(*, param: nn.Parameter, grad_sample: Tensor, max_batch_len: int) -> None:
        made.append(grad_sample.shape)
        plain(param=param, grad_sample=grad_sample, max_batch_len=max_batch_len)

    monkeypatch.setattr(fast, "create_or_accumulate_grad_sample", watched)
    assert set(fast.GradSampleModuleFastGradientClipping.NORM_SAMPLERS) == {nn.Linear, nn.Embedding}
    network, real = discriminator(), volumes(3)
    wrapped = fast.GradSampleModuleFastGradientClipping(copy.deepcopy(network), max_grad_norm=C, loss_reduction="sum")
    losses(wrapped(real)).sum().backward()
    assert sorted(made) == sorted(torch.Size([3, *parameter.shape]) for parameter in network.parameters())
    assert relative_error(wrapped.get_norm_sample(), rows_of(network, real).norm(dim=1)) < 1e-6

    made.clear()
    linear = fast.GradSampleModuleFastGradientClipping(nn.Linear(5, 1).double(), max_grad_norm=C, loss_reduction="sum")
    linear(real.mean(dim=(1, 2, 3))).square().sum().backward()
    assert made == []  # what a gain would look like


def test_ghost_clipping_takes_no_second_pass_through_a_linear_layer() -> None:
    """As a discriminator makes, of scans and of fakes."""
    wrapped = fast.GradSampleModuleFastGradientClipping(nn.Linear(5, 1).double(), max_grad_norm=C)
    wrapped(volumes(3).mean(dim=(1, 2, 3)))
    with pytest.raises(NotImplementedError, match="Parameter tying"):
        wrapped(volumes(3, seed=1).mean(dim=(1, 2, 3)))


# 5, 6: what a GAN asks of a wrapped discriminator


def judge_fakes(wrapped: Any) -> nn.Module:
    """A generator's step through a wrapped discriminator."""
    generator = nn.Conv3d(1, 1, 1).double()
    losses(wrapped(generator(volumes(2)))).mean().backward()
    return generator


def test_a_generators_step_through_a_wrapped_discriminator_leaves_rows_in_it() -> None:
    wrapped = GradSampleModule(discriminator())
    judge_fakes(wrapped)
    assert sampled(wrapped).shape[0] == 2
    losses(wrapped(volumes(3))).mean().backward()
    assert all(isinstance(parameter.grad_sample, list) for parameter in wrapped.parameters())  # polluted


def test_freezing_a_wrapped_discriminator_is_not_enough_its_hooks_must_rest_too() -> None:
    wrapped = GradSampleModule(discriminator())
    wrapped.requires_grad_(False)
    with pytest.raises(ValueError, match="No activations detected"):
        judge_fakes(wrapped)

    wrapped = GradSampleModule(discriminator())
    wrapped.disable_hooks()
    wrapped.requires_grad_(False)
    assert judge_fakes(wrapped).weight.grad is not None
    wrapped.requires_grad_(True)
    wrapped.enable_hooks()
    losses(wrapped(volumes(3))).mean().backward()
    assert sampled(wrapped).shape[0] == 3


def penalty(network: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """R1 (Mescheder et al. 2018), which is a patient's own."""
    given = real.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(given).sum(), given, create_graph=True)
    return slope.square().sum()


def test_a_gradient_penalty_breaks_opacus_hooks_and_not_our_loop() -> None:
    with pytest.raises(IndexError, match="pop from empty list"):
        penalty(GradSampleModule(discriminator()), volumes(2)).backward()  # type: ignore[no-untyped-call]  # torch's
    network = discriminator()
    weights = [network[0].weight, network[3].weight]
    rows = [torch.autograd.grad(penalty(network, one), weights) for one in volumes(2).split(1)]
    together = torch.autograd.grad(penalty(network, volumes(2)), weights)
    for first, second, both in zip(*rows, together, strict=True):
        assert relative_error(first + second, both) < 1e-6


# 7, 8: layers


def test_batch_norm_is_refused_by_opacus_and_by_us() -> None:
    network = discriminator(nn.BatchNorm3d(4))
    assert ModuleValidator.validate(network)
    with pytest.raises(ConfigError, match="batch norm"):
        refuse_mixing_layers(network)


SPECTRAL = {"hook": nn.utils.spectral_norm, "parametrised": nn.utils.parametrizations.spectral_norm}


@pytest.mark.parametrize("spectral", SPECTRAL.values(), ids=SPECTRAL)
def test_spectral_norm_passes_opacus_validator_but_neither_its_wrapper_nor_ours(spectral: Any) -> None:
    network = discriminator(last=spectral)
    assert ModuleValidator.validate(network) == []
    with pytest.raises(NotImplementedError, match="buffers"):
        GradSampleModule(network)
    with pytest.raises(ConfigError, match="spectral norm"):
        refuse_mixing_layers(network)


class StandardisedConv3d(nn.Conv3d):
    """Weights of mean 0 and variance 1 (Qiao et al. 2019, arXiv 1903.10520)."""

    def forward(self, given: Tensor) -> Tensor:
        over = (1, 2, 3, 4)
        weight = (self.weight - self.weight.mean(over, True)) / (self.weight.std(over, keepdim=True) + 1e-5)
        return self._conv_forward(given, weight, self.bias)


def test_weight_standardised_and_weight_normed_convolutions_keep_patients_apart() -> None:
    standardised: Callable[[nn.Module], nn.Module] = lambda _: StandardisedConv3d(4, 1, 3)  # noqa: E731
    for last in (standardised, nn.utils.parametrizations.weight_norm):
        network, real = discriminator(last=last), volumes(3)
        refuse_mixing_layers(network)
        wrapped = GradSampleModule(copy.deepcopy(network), loss_reduction="sum")
        losses(wrapped(real)).sum().backward()
        assert relative_error(sampled(wrapped), rows_of(network, real)) < 1e-6


def test_an_empty_sample_passes_every_norm_but_an_affine_instance_norm() -> None:
    for norm in (nn.Identity, NORMS["group"], NORMS["instance"]):
        wrapped = GradSampleModule(discriminator(norm()))
        losses(wrapped(volumes(0))).sum().backward()
        assert sampled(wrapped).shape[0] == 0
    with pytest.raises(IndexError):
        losses(discriminator(NORMS["affine instance"]())(volumes(0))).sum().backward()


# 9, 10: sampling and counting


def test_make_private_takes_its_rate_from_the_number_of_batches_and_may_expect_nobody() -> None:
    _, _, optimiser, loader = made_private(patients=20, batch=15)
    assert loader.batch_sampler.sample_rate == 1 / 2  # 1 / ceil(20 / 15), and not 15 / 20
    assert optimiser.expected_batch_size == 10
    _, _, optimiser, _ = made_private(patients=49, batch=1)
    assert optimiser.expected_batch_size == 0  # int(49 · (1 / 49)), and every gradient is divided by it


def test_the_batch_memory_manager_accounts_for_logical_steps_and_not_for_parts() -> None:
    engine, wrapped, optimiser, loader = made_private(patients=24, batch=6, noise=1.0)
    parts = 0
    with BatchMemoryManager(data_loader=loader, max_physical_batch_size=2, optimizer=optimiser) as pieces:
        for (piece,) in pieces:
            optimiser.zero_grad()
            losses(wrapped(piece)).mean().backward()
            optimiser.step()
            parts += 1
    assert parts > 4
    assert engine.accountant.history == [(1.0, 1 / 4, 4)]


# 11, 12: chance and files


def test_opacus_secure_mode_cannot_be_had() -> None:
    with pytest.raises(ImportError, match="torchcsprng"):
        PrivacyEngine(secure_mode=True)


def test_opacus_noise_repeats_after_manual_seed_and_ours_does_not() -> None:
    theirs, ours = [], []
    with torch.random.fork_rng():
        for _ in range(2):
            _, wrapped, optimiser, _ = made_private(patients=8, batch=4, noise=1.0)
            losses(wrapped(volumes(3))).mean().backward()
            torch.manual_seed(3)
            optimiser.pre_step()
            theirs.append(gradient(wrapped))
            torch.manual_seed(3)
            how = NoisedSum(C, noise_multiplier=1.0, expected_batch=4.0)
            ours.append(noised_mean([], lambda _: [], 8, how, SecretRandom(CPU.torch)))
    assert torch.equal(*theirs)
    assert not torch.equal(*ours)


class Poison:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.marker,)


def test_opacus_load_checkpoint_runs_what_a_file_says_so_received_files_never_reach_it(tmp_path: Path) -> None:
    torch.save({"module_state_dict": Poison(tmp_path / "ran")}, tmp_path / "checkpoint.pt")
    engine, wrapped, _, _ = made_private(patients=8, batch=4)
    with pytest.raises((TypeError, AttributeError)):
        engine.load_checkpoint(path=tmp_path / "checkpoint.pt", module=wrapped)
    assert (tmp_path / "ran").exists()


# Accountants (§1.5)


@pytest.mark.parametrize(("q", "sigma", "steps", "patients"), [(0.064, 1.02, 500, 500), (0.1, 1.32, 500, 200)])
def test_opacus_gaussian_accountant_tells_less_than_is_lost(q: float, sigma: float, steps: int, patients: int) -> None:
    """Where by the official accountant ε is 8."""
    gaussian, delta = GaussianAccountant(), 1 / (10 * patients)
    gaussian.history = [(sigma, q, steps)]
    assert gaussian.get_epsilon(delta) < epsilon([Mechanism(q, sigma, steps)], delta) - 0.1


def test_opacus_looks_for_noise_by_the_loose_accountant_unless_told_otherwise() -> None:
    assert inspect.signature(get_noise_multiplier).parameters["accountant"].default == "rdp"
