"""FedProx at a site: the term by hand, its pull towards the round's generator, and a round killed in the middle."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_cohorts import tiny_scans, tiny_study, tiny_text, write_tiny_cohort
from torch import Tensor, nn

from fedphantom.client import local_training
from fedphantom.client.local_training import LocalTrainer
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.device import choose_device
from fedphantom.common.exchange import Parameters, RoundReply, RoundRequest
from fedphantom.common.gan.generation import initial_parameters
from fedphantom.common.gan.losses import proximal
from fedphantom.common.gan.parameters import ParameterSpec, parameters_digest
from fedphantom.common.gan.training import train
from fedphantom.common.gan.training_state import new_state
from fedphantom.common.study import Study, parse_study

CPU = choose_device("cpu")
STUDY = tiny_study()
SCANS = tiny_scans(3)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor([3.0, 1.0])), nn.Parameter(torch.tensor([[5.0]]))


def test_the_term_is_half_the_weight_times_the_squared_distance_and_pulls_by_the_weight() -> None:
    network, start = Two(), {"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([[2.0]])}
    term = proximal(network, start, 0.1)
    assert term.item() == pytest.approx(0.05 * (2**2 + 0 + 3**2))
    term.backward()
    gradients = [value.grad for value in network.parameters()]
    assert all(gradient is not None for gradient in gradients)
    torch.testing.assert_close(gradients[0], torch.tensor([0.2, 0.0]))
    torch.testing.assert_close(gradients[1], torch.tensor([[0.3]]))


def distance_after_training(weight: float, steps: int = 12) -> float:
    state = new_state(STUDY, 1, CPU)
    start = {name: value.clone() for name, value in state.generator.state_dict().items()}
    penalty = partial(proximal, start=start, weight=weight)
    for _ in train(state, SCANS, STUDY, until_step=steps, total_steps=4 * steps, seed=9, penalty=penalty):
        pass
    moved = [(value - start[name]).square().sum() for name, value in state.generator.state_dict().items()]
    return float(torch.stack(moved).sum().sqrt())


def test_the_larger_the_weight_the_nearer_a_site_stays_to_the_rounds_generator() -> None:
    free, held, tied = (distance_after_training(weight) for weight in (0.0, 10.0, 1000.0))
    assert tied < 0.7 * free
    assert tied < held < free


def test_a_term_of_nothing_changes_no_bit() -> None:
    without, zero = new_state(STUDY, 1, CPU), new_state(STUDY, 1, CPU)

    def nothing(network: nn.Module) -> Tensor:
        return proximal(network, dict(network.state_dict()), 0.0)

    list(train(without, SCANS, STUDY, until_step=3, total_steps=4, seed=9))
    list(train(zero, SCANS, STUDY, until_step=3, total_steps=4, seed=9, penalty=nothing))
    for name, value in without.generator.state_dict().items():
        assert torch.equal(value, zero.generator.state_dict()[name])


# At a site


def site_text(weight: float) -> str:
    return tiny_text(roles="test = 0.2\naudit = 0.4") + f"[federation]\nproximal_weight = {weight}\n"


def make_site(root: Path, cohort: Path, text: str) -> tuple[Path, Study, Parameters]:
    study = parse_study(text)
    start = initial_parameters(study)
    create_site_folder(root, "site-a", cohort, text, ParameterSpec.of(start))
    return root, study, start


def far(start: Parameters, reply: RoundReply) -> float:
    return float(sum(((reply.generator[name] - start[name]) ** 2).sum() for name in start))


def test_a_site_holds_to_the_generator_it_was_sent_and_goes_on_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = write_tiny_cohort(tmp_path / "cohort", 8)
    replies = {}
    for weight in (0.0, 500.0):
        root, study, start = make_site(tmp_path / f"site-{weight}", cohort, site_text(weight))
        replies[weight] = LocalTrainer.open(root).train_round(RoundRequest(study.digest(), 1, start))
    assert far(start, replies[500.0]) < 0.9 * far(start, replies[0.0])

    monkeypatch.setattr(local_training, "SAVE_EVERY_S", 0.0)
    root, study, start = make_site(tmp_path / "killed", cohort, site_text(500.0))

    def die(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalTrainer.open(root, die).train_round(RoundRequest(study.digest(), 1, start))
    steps: list[int] = []
    reply = LocalTrainer.open(root, lambda done, total: steps.append(done)).train_round(
        RoundRequest(study.digest(), 1, start)
    )
    assert steps == [3, 4]
    assert parameters_digest(reply.generator) == parameters_digest(replies[500.0].generator)
    assert np.isfinite(far(start, reply))
