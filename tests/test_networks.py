"""Networks: shapes of every preset and grid, norms that mix no patients, weights and noise that follow from seeds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny_cohorts import SHAPE, tiny_scans, tiny_study, tiny_text
from torch import Tensor, nn

from fedphantom.common.device import choose_device
from fedphantom.common.errors import ConfigError
from fedphantom.common.gan.networks import (
    COARSE_NOISE,
    FINE_NOISE,
    PRESETS,
    draw_noise,
    make_discriminator,
    make_generator,
    one_hot,
)
from fedphantom.common.gan.training import (
    train,
)
from fedphantom.common.gan.training_state import new_state
from fedphantom.common.randomness import torch_generator
from fedphantom.common.study import parse_study

CPU = choose_device("cpu")
STUDY = tiny_study()
SCANS = tiny_scans(3)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("preset", PRESETS)
def test_shapes_of_every_preset(preset: str, channels: int) -> None:
    study = tiny_study(preset=preset, channels=("T1", "T1c", "T2", "FLAIR")[:channels])
    labels = one_hot(torch.zeros((2, *SHAPE), dtype=torch.uint8), len(study.labels))
    with torch.inference_mode():
        volume = make_generator(study, 0)(labels, draw_noise(2, SHAPE, torch_generator(0)))
        logits, features = make_discriminator(study, 0)(labels, volume)
    assert volume.shape == (2, channels, *SHAPE)
    assert volume.abs().max() <= 1
    assert logits.shape[:2] == (2, 1)
    assert all(1 <= n < 16 for n in logits.shape[2:])
    assert features
    assert all(feature.shape[0] == 2 for feature in features)


@pytest.mark.parametrize(
    ("preset", "shape", "batch", "allowed"),
    [
        ("tiny", (8, 8, 8), 2, True),
        ("tiny", (8, 8, 8), 1, False),
        ("tiny", (15, 15, 15), 1, False),
        ("tiny", (8, 16, 8), 1, True),
        ("small", (8, 8, 8), 2, False),
        ("small", (16, 8, 8), 1, True),
        ("base", (8, 8, 16), 1, True),
    ],
)
def test_a_step_is_taken_on_every_grid_that_a_study_may_name(
    preset: str, shape: tuple[int, int, int], batch: int, allowed: bool
) -> None:
    text = tiny_text(preset=preset, batch=batch).replace(str(list(SHAPE)), str(list(shape)))
    if not allowed:
        with pytest.raises(ConfigError, match="one axis must have 16 voxels or more"):
            parse_study(text)
        return
    study, (x, y, z) = parse_study(text), shape
    scans = replace(SCANS, volumes=SCANS.volumes[:, :, :x, :y, :z], classes=SCANS.classes[:, :x, :y, :z])
    (losses,) = train(new_state(study, 1, CPU), scans, study, until_step=1, total_steps=1, seed=1)
    assert math.isfinite(losses.adversarial + losses.discriminator)


def test_a_label_reaches_the_last_convolution_without_any_norm_on_its_way() -> None:
    generator = make_generator(STUDY, 1)
    intensity = torch.tensor([-0.9, 0.1, 0.7])
    with torch.no_grad():
        generator.head.weight.zero_()
        generator.head.weight[:, -3:, 0, 0, 0] = torch.atanh(intensity)
    classes = torch.from_numpy(SCANS.classes)
    painted = generator(one_hot(classes, 3), draw_noise(3, SHAPE, torch_generator(0)))
    assert torch.allclose(painted, intensity[classes.long()].unsqueeze(1).expand_as(painted), atol=1e-6)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_network_normalises_over_the_batch(preset: str) -> None:
    study = tiny_study(preset=preset)
    for network in (make_generator(study, 0), make_discriminator(study, 0)):
        kinds = {type(module) for module in network.modules()}
        assert not any(issubclass(kind, nn.modules.batchnorm._BatchNorm) for kind in kinds)
        assert not list(network.buffers())  # no running statistics that would travel


def test_a_scans_volume_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    generator = make_generator(STUDY, 0)
    labels = one_hot(torch.from_numpy(SCANS.classes), 3)
    noise = draw_noise(3, SHAPE, torch_generator(0))
    with torch.inference_mode():
        together, alone = generator(labels, noise)[1], generator(labels[1:2], noise[1:2])[0]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [make_generator, make_discriminator])
def test_weights_follow_from_the_seed_whatever_torchs_global_generator_holds(make) -> None:
    def drawn(global_seed: int, seed: int) -> dict[str, Tensor]:
        torch.manual_seed(global_seed)
        return make(STUDY, seed).state_dict()

    one, same, other = drawn(1, 7), drawn(2, 7), drawn(1, 8)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_noise_varies_in_space_at_two_scales() -> None:
    noise = draw_noise(1, (32, 32, 32), torch_generator(0))
    assert noise.shape == (1, FINE_NOISE + COARSE_NOISE, 32, 32, 32)
    steps = (noise[:, :, 1:] - noise[:, :, :-1]).std(dim=(0, 2, 3, 4)) / noise.std(dim=(0, 2, 3, 4))
    assert (steps[:FINE_NOISE] > 1).all()
    assert (steps[FINE_NOISE:] < 0.5).all()


def test_one_hot_has_a_single_one_where_the_class_is() -> None:
    classes = torch.tensor([0, 2, 1, 2], dtype=torch.uint8).view(1, 4, 1, 1)
    assert one_hot(classes, 3)[0, :, :, 0, 0].T.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]]


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device().torch.type in ("cpu", "cuda")
    for name in ("tpu", "cuda:99" if not torch.cuda.is_available() else "mps", ""):
        with pytest.raises(ConfigError, match="is not available"):
            choose_device(name)
