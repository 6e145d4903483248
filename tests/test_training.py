"""The loop: what each loss is, which scans a step sees, when it stops, and that a kill changes nothing."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_cohorts import SHAPE, tiny_scans, tiny_study
from torch import Tensor, nn

from fedphantom.common.device import choose_device
from fedphantom.common.errors import DataError, TrainingError
from fedphantom.common.gan import training
from fedphantom.common.gan.losses import fake_loss, feature_matching, l1, real_loss
from fedphantom.common.gan.networks import (
    draw_noise,
    one_hot,
)
from fedphantom.common.gan.training import (
    Batch,
    StepLosses,
    learning_rate_share,
    plain_discriminator_step,
    scans_of_step,
    train,
)
from fedphantom.common.gan.training_state import TrainingState, load_state, new_state, save_state
from fedphantom.common.randomness import derived_seed, numpy_generator, torch_generator

CPU = choose_device("cpu")
STUDY = tiny_study()
SCANS = tiny_scans(3)
TOTAL = 4
"""Steps of the whole training: from the fourth on its learning rate falls."""


def run(state: TrainingState, until: int) -> list[StepLosses]:
    return list(train(state, SCANS, STUDY, until_step=until, total_steps=TOTAL, seed=9))


def bits(state: TrainingState) -> dict[str, bytes]:
    """Every parameter and every moment of both networks."""
    out = {}
    for name, network, optimiser in (
        ("g", state.generator, state.generator_optimiser),
        ("d", state.discriminator, state.discriminator_optimiser),
    ):
        for key, value in network.state_dict().items():
            out[f"{name}.{key}"] = value.contiguous().numpy().tobytes()
        for index, moments in optimiser.state_dict()["state"].items():
            for key, value in moments.items():
                out[f"{name}.{index}.{key}"] = value.contiguous().numpy().tobytes()
    return out


@pytest.fixture(scope="module")
def unbroken() -> TrainingState:
    state = new_state(STUDY, 1, CPU)
    run(state, 4)
    return state


# Losses


def test_real_logits_are_pulled_to_one_and_fake_ones_to_zero() -> None:
    logits = torch.tensor([1.0, 0.0, 3.0]).view(1, 1, 3, 1, 1)
    assert real_loss(logits).item() == pytest.approx((0 + 1 + 4) / 3)
    assert fake_loss(logits).item() == pytest.approx((1 + 0 + 9) / 3)


def test_l1_is_the_mean_over_voxels_and_channels() -> None:
    fake, real = torch.tensor([[[0.0, 1.0], [2.0, -1.0]]]), torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])
    assert l1(fake, real).item() == pytest.approx((0 + 1 + 2 + 2) / 4)


def test_feature_matching_counts_every_layer_the_same_whatever_its_size() -> None:
    fake, real = [torch.full((1, 2, 4), 3.0), torch.zeros(1, 1, 1)], [torch.zeros(1, 2, 4), torch.ones(1, 1, 1)]
    assert feature_matching(fake, real).item() == pytest.approx((3 + 1) / 2)


def test_feature_matching_sends_no_gradient_into_the_real_features() -> None:
    fake, real = torch.ones(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    feature_matching([fake], [real]).backward()
    assert fake.grad is not None
    assert real.grad is None


def test_losses_are_computed_in_float32_whatever_comes_in() -> None:
    half = torch.full((1, 1, 2), 0.5, dtype=torch.bfloat16)
    for value in (real_loss(half), fake_loss(half), l1(half, half), feature_matching([half], [half])):
        assert value.dtype == torch.float32


# Which scans a step sees


@given(scans=st.integers(1, 12), batch=st.integers(1, 20), epochs=st.integers(1, 4), seed=st.integers(0, 2**40))
def test_every_scan_is_seen_once_an_epoch(scans: int, batch: int, epochs: int, seed: int) -> None:
    steps = math.ceil(scans * epochs / batch)
    seen = [scan for step in range(steps) for scan in scans_of_step(scans, batch, step, seed)]
    for epoch in range(epochs):
        assert Counter(seen[epoch * scans : (epoch + 1) * scans]) == Counter(range(scans))


@given(scans=st.integers(1, 9), batch=st.integers(1, 9), step=st.integers(0, 10**6), seed=st.integers(0, 99))
def test_a_steps_scans_need_no_history(scans: int, batch: int, step: int, seed: int) -> None:
    alone = scans_of_step(scans, batch, step, seed)
    assert len(alone) == batch
    scans_of_step(scans, batch, step + 1, seed)
    assert scans_of_step(scans, batch, step, seed) == alone


def test_epochs_and_seeds_differ_in_order() -> None:
    orders = {tuple(scans_of_step(8, 8, step, seed)) for step in range(4) for seed in range(4)}
    assert len(orders) == 16


# Randomness


def test_a_seed_is_named_by_its_parts_and_their_order() -> None:
    named = [(1, "a"), ("1", "a"), (1, "b"), ("a", 1), (1, "a", 0), ("1a",)]
    assert len({derived_seed(*parts) for parts in named}) == len(named)
    assert derived_seed(1, "a") == derived_seed(1, "a")
    assert 0 <= derived_seed("x") < 2**63
    assert numpy_generator(1, "a").random() == numpy_generator(1, "a").random()
    assert torch.equal(torch.rand(3, generator=torch_generator(1)), torch.rand(3, generator=torch_generator(1)))


# The loop


def test_every_step_is_told_with_finite_losses_and_moves_both_networks() -> None:
    state = new_state(STUDY, 1, CPU)
    before = bits(state)
    told = run(state, 2)
    assert [losses.step for losses in told] == [1, 2]
    assert state.step == 2
    after = bits(state)
    for prefix in ("g.", "d."):
        assert any(after[name] != before[name] for name in before if name.startswith(prefix))
    assert all(p.requires_grad for p in state.discriminator.parameters())


def test_the_told_losses_are_those_of_the_terms() -> None:
    state = new_state(STUDY, 1, CPU)
    seen: list[tuple[Batch, Tensor, Tensor]] = []

    def spying(state: TrainingState, batch: Batch, fake: Tensor) -> Tensor:
        logits = state.discriminator(torch.cat([batch.given] * 2), torch.cat([batch.real, fake]))[0].detach()
        seen.append((batch, fake, logits))
        return torch.tensor(0.125)  # and leaves the discriminator as it is

    (losses,) = train(state, SCANS, STUDY, until_step=1, total_steps=TOTAL, seed=9, discriminator_step=spying)
    batch, fake, logits = seen[0]
    assert losses.discriminator == 0.125
    assert losses.reconstruction == pytest.approx((fake - batch.real).abs().mean().item(), rel=1e-4)
    assert losses.adversarial == pytest.approx(((logits[2:] - 1) ** 2).mean().item(), rel=1e-4)


@pytest.mark.parametrize("maps", ["labels-to-images", "images-to-labels"])
@pytest.mark.parametrize("term", ["adversarial", "paired", "matching"])
def test_each_term_of_the_objective_moves_the_generator(term: str, maps: str) -> None:
    """Each alone, and beside the others: an objective that lost one would train all the same, and worse."""
    weights = {"paired": ("l1_weight", "label_weight"), "matching": ("feature_matching_weight",)}

    def moved(kept: set[str]) -> dict[str, Tensor]:
        off = {key: 0.0 for name, keys in weights.items() if name not in kept for key in keys}
        table = STUDY.training.model_copy(update=off)
        network = STUDY.network.model_copy(update={"maps": maps})
        study = STUDY.model_copy(update={"training": table, "network": network})
        state = new_state(study, 1, CPU)
        start = {name: value.detach().clone() for name, value in state.generator.named_parameters()}
        list(train(state, SCANS, study, until_step=1, total_steps=TOTAL, seed=9))
        return {name: value.detach() - start[name] for name, value in state.generator.named_parameters()}

    every = {"adversarial", "paired", "matching"}
    alone, without = moved({term}), moved(every - {term})
    assert max(float(change.abs().max()) for change in alone.values()) > 0
    if term != "adversarial":  # the study has no weight for it: it is there always
        whole = moved(every)
        assert any(not torch.equal(whole[name], without[name]) for name in whole)


def test_the_discriminators_step_is_an_argument() -> None:
    state = new_state(STUDY, 1, CPU)
    before = {name: value.clone() for name, value in state.discriminator.state_dict().items()}

    def idle(state: TrainingState, batch: Batch, fake: Tensor) -> Tensor:
        assert not fake.requires_grad
        return torch.zeros(())

    list(train(state, SCANS, STUDY, until_step=2, total_steps=TOTAL, seed=9, discriminator_step=idle))
    assert all(torch.equal(value, before[name]) for name, value in state.discriminator.state_dict().items())


def test_the_plain_step_lowers_the_discriminators_loss_and_leaves_the_generator() -> None:
    state = new_state(STUDY, 1, CPU)
    labels = one_hot(torch.from_numpy(SCANS.classes), 3)
    batch = Batch(labels, draw_noise(3, SHAPE, torch_generator(0)), torch.from_numpy(SCANS.volumes))
    fake = torch.zeros_like(batch.real)
    generator = bits(state)
    losses = [plain_discriminator_step(state, batch, fake).item() for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]
    assert all(bits(state)[name] == generator[name] for name in generator if name.startswith("g."))


def test_training_brings_fakes_closer_to_the_paired_scans() -> None:
    study = STUDY.model_copy(update={"training": STUDY.training.model_copy(update={"generator_lr": 2e-3})})
    told = list(train(new_state(study, 1, CPU), SCANS, study, until_step=12, total_steps=12, seed=9))
    assert np.mean([t.reconstruction for t in told[-3:]]) < 0.9 * np.mean([t.reconstruction for t in told[:3]])


def test_a_nan_in_a_scan_stops_the_training_and_names_the_step() -> None:
    volumes = SCANS.volumes.copy()
    poisoned = scans_of_step(3, 2, 1, 9)[0]
    fine = scans_of_step(3, 2, 0, 9)
    assert poisoned not in fine
    volumes[poisoned, 0, 3, 3, 3] = np.nan
    state = new_state(STUDY, 1, CPU)
    told = []
    with pytest.raises(TrainingError, match="not finite at step 2"):
        told += train(state, replace(SCANS, volumes=volumes), STUDY, until_step=5, total_steps=TOTAL, seed=9)


def test_a_collapse_to_a_constant_stops_the_training_and_names_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "COLLAPSE_WINDOW", 20)
    state = new_state(STUDY, 1, CPU)
    head = [module for module in state.generator.modules() if isinstance(module, nn.Conv3d)][-1]
    with torch.no_grad():
        head.weight.zero_()
    still = STUDY.model_copy(update={"training": STUDY.training.model_copy(update={"generator_lr": 1e-12})})
    list(train(state, SCANS, still, until_step=12, total_steps=30, seed=9))  # a round's end does not hide it
    with pytest.raises(TrainingError, match="collapsed to a constant volume at step 20"):
        list(train(state, SCANS, still, until_step=30, total_steps=30, seed=9))


# Going on after a kill


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4])
def test_a_training_resumed_at_any_step_ends_in_the_same_bits(
    unbroken: TrainingState, stop: int, tmp_path: Path
) -> None:
    broken = new_state(STUDY, 1, CPU)
    run(broken, stop)
    save_state(tmp_path / "state.safetensors", broken, {"round": 3, "incoming": "x"})
    resumed = new_state(STUDY, 2, CPU)  # other weights, to be overwritten
    run(resumed, 1)  # and other moments
    assert load_state(tmp_path / "state.safetensors", resumed) == {"round": 3, "incoming": "x"}
    assert resumed.step == stop
    run(resumed, 4)
    assert bits(resumed) == bits(unbroken)


def test_moments_come_back_in_their_parameters_memory_format(unbroken: TrainingState, tmp_path: Path) -> None:
    """As a new optimiser's lie: a GPU updates all parameters at once only where the two lie alike."""
    save_state(tmp_path / "state", unbroken, {})
    resumed = new_state(STUDY, 2, CPU)
    load_state(tmp_path / "state", resumed)
    for optimiser in (resumed.generator_optimiser, resumed.discriminator_optimiser):
        strides = [(p.stride(), m["exp_avg"].stride(), m["exp_avg_sq"].stride()) for p, m in optimiser.state.items()]
        assert strides
        assert all(one == two == three for one, two, three in strides)
        assert any(p.ndim == 5 and not p.is_contiguous() for p in optimiser.state)  # it is not the usual one


def test_the_learning_rate_is_full_for_half_the_training_and_then_falls_to_its_end() -> None:
    assert [learning_rate_share(step, 8) for step in range(10)] == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0.25, 0.25]
    assert learning_rate_share(0, 1) == 1


def test_both_networks_are_trained_at_the_steps_learning_rate() -> None:
    state = new_state(STUDY, 1, CPU)
    run(state, TOTAL)
    share = learning_rate_share(TOTAL - 1, TOTAL)
    assert share == 0.5
    assert state.generator_optimiser.param_groups[0]["lr"] == share * STUDY.training.generator_lr
    assert state.discriminator_optimiser.param_groups[0]["lr"] == share * STUDY.training.discriminator_lr


def test_the_same_state_is_written_as_the_same_bytes(unbroken: TrainingState, tmp_path: Path) -> None:
    again = new_state(STUDY, 1, CPU)
    run(again, 4)
    save_state(tmp_path / "one", unbroken, {"round": 1})
    save_state(tmp_path / "two", again, {"round": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_another_seed_trains_another_generator(unbroken: TrainingState) -> None:
    other = new_state(STUDY, 1, CPU)
    list(train(other, SCANS, STUDY, until_step=4, total_steps=TOTAL, seed=10))
    assert bits(other) != bits(unbroken)


def test_a_damaged_state_and_that_of_other_networks_are_refused(unbroken: TrainingState, tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    save_state(file, unbroken, {})
    other = new_state(tiny_study(preset="small"), 1, CPU)
    with pytest.raises(DataError, match="other networks"):
        load_state(file, other)
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match="changed"):
        load_state(file, new_state(STUDY, 1, CPU))
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="cut short"):
        load_state(file, new_state(STUDY, 1, CPU))
