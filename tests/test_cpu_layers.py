"""A generator paints by layers laid out for a CPU, and to the numbers that torch's own give."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedphantom.common.gan.cpu_layers import PairedConvolution, PointConvolution, VolumeNorm
from fedphantom.common.gan.networks import draw_noise, make_generator, one_hot
from fedphantom.common.phantom.study import phantom_study
from fedphantom.common.randomness import torch_generator
from fedphantom.common.volumes.grid import Grid

SIZES = st.tuples(*[st.integers(1, 9)] * 3)


def volumes(batch: int, width: int, shape: tuple[int, ...], seed: int) -> Tensor:
    drawn = 3 * torch.randn((batch, width, *shape), generator=torch_generator(seed)) + 2
    return drawn.contiguous(memory_format=torch.channels_last_3d)


@settings(max_examples=30, deadline=None)
@given(SIZES, st.integers(1, 3), st.integers(1, 70), st.integers(0, 99))
def test_the_norm_gives_each_map_of_each_volume_a_mean_of_0_and_a_variance_of_1(
    shape: tuple[int, int, int], batch: int, width: int, seed: int
) -> None:
    features = volumes(batch, width, (shape[0] + 1, *shape[1:]), seed)  # of one voxel there is no variance
    expected = nn.functional.instance_norm(features.double())
    with torch.inference_mode():
        found = VolumeNorm(width)(features.clone(memory_format=torch.preserve_format))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(SIZES, st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_two_neighbours_at_once_are_convolved_as_each_alone(
    shape: tuple[int, int, int], batch: int, width: int, made: int, seed: int
) -> None:
    features, conv = volumes(batch, width, shape, seed), nn.Conv3d(width, made, 3, padding=1, bias=False)
    with torch.inference_mode():
        found = PairedConvolution.instead_of(conv)(features)
        torch.testing.assert_close(found, conv(features), rtol=1e-4, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(SIZES, st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_a_matrix_product_is_a_convolution_of_single_voxels(
    shape: tuple[int, int, int], batch: int, width: int, made: int, seed: int
) -> None:
    features, conv = volumes(batch, width, shape, seed), PointConvolution(width, made, 1)
    expected = nn.functional.conv3d(features, conv.weight, conv.bias)
    with torch.inference_mode():
        torch.testing.assert_close(conv(features), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(16, 16, 16), (9, 17, 11)])
def test_a_generator_paints_what_it_gives_in_training_but_for_rounding(shape: tuple[int, int, int]) -> None:
    study = phantom_study("layers", 1, Grid(shape, (4.0, 4.0, 4.0)))
    network = make_generator(study, 1).eval().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's stub lacks memory_format for Module.to
    classes = torch.randint(0, len(study.labels), (2, *shape), generator=torch_generator(2))
    labels, noise = one_hot(classes, len(study.labels)), draw_noise(2, shape, torch_generator(3))
    labels, noise = (x.contiguous(memory_format=torch.channels_last_3d) for x in (labels, noise))
    with torch.inference_mode():
        painted = network(labels, noise)
    torch.testing.assert_close(painted, network(labels, noise).detach(), rtol=0, atol=2e-4)


def test_layers_for_painting_have_torchs_own_parameters() -> None:
    network = make_generator(phantom_study("layers", 1, Grid((16, 16, 16), (4.0, 4.0, 4.0))), 1)
    plain = {type(module) for module in network.modules() if isinstance(module, nn.Conv3d)}
    assert {PairedConvolution, PointConvolution} <= plain
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in network.parameters())
    assert "down.0.conv1.conv.weight" in network.state_dict()
    assert "up.0.preconv.bias" in network.state_dict()
