"""Everything a training needs to go on after a kill: networks, optimisers, the step reached.

No random state: randomness is counter-based (``common.randomness``). Stored as safetensors with a JSON header,
whole or absent, never pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..atomic import write_atomic
from ..device import Device
from ..errors import DataError
from ..journal import Fact
from ..study import Study
from ..tensor_file import decode, encode
from .networks import Discriminator, Generator, make_discriminator, make_generator


@dataclass
class TrainingState:
    """Mutable by design: the loop advances it in place.

    Attributes:
        step: Optimiser steps of the study done.
        constant_steps: Steps in a row after which the generator's output was found constant.
    """

    generator: Generator
    discriminator: Discriminator
    generator_optimiser: torch.optim.Adam
    discriminator_optimiser: torch.optim.Adam
    device: Device
    step: int = 0
    constant_steps: int = 0


def new_state(study: Study, seed: int, device: Device) -> TrainingState:
    """Freshly initialised networks and optimisers."""
    generator, discriminator = make_generator(study, seed), make_discriminator(study, seed)
    device.place(generator)
    device.place(discriminator)
    betas = (0.5, 0.999)  # Radford et al. 2016 (arXiv 1511.06434), as usual for GANs
    return TrainingState(
        generator,
        discriminator,
        torch.optim.Adam(generator.parameters(), study.training.generator_lr, betas),
        torch.optim.Adam(discriminator.parameters(), study.training.discriminator_lr, betas),
        device,
    )


def save_state(path: Path, state: TrainingState, facts: Mapping[str, Fact]) -> None:
    """Write the state and its facts (what run, which round), whole or not at all."""
    tensors: dict[str, Tensor] = {}
    for prefix, network, optimiser in _parts(state):
        tensors |= {f"{prefix}.{name}": value for name, value in network.state_dict().items()}
        for index, moments in optimiser.state_dict()["state"].items():
            tensors |= {f"{prefix}.adam.{index}.{key}": value for key, value in moments.items()}
    arrays = {name: value.detach().cpu().contiguous().numpy() for name, value in tensors.items()}
    write_atomic(path, encode(arrays, {**facts, "step": state.step, "constant_steps": state.constant_steps}))


def load_state(path: Path, state: TrainingState) -> dict[str, Fact]:
    """Restore a state written by :func:`save_state` into networks of the same study; returns its facts.

    Raises:
        DataError: a damaged file, or the state of other networks.
    """
    arrays, facts = decode(path.read_bytes(), "training state")
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for prefix, network, optimiser in _parts(state):
        own = {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
        weights = {name: t for name, t in own.items() if not name.startswith("adam.")}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in own.items():
            if name.startswith("adam."):
                _, index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = value
        try:
            network.load_state_dict(weights)
            optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
            _lay_out(optimiser)
        except (RuntimeError, ValueError, KeyError):
            raise DataError(
                "a training state of other networks",
                expected="the state of this study's networks",
                remedy="Start in an empty output folder, or with the study that made this state.",
            ) from None
    step, constant_steps = facts.pop("step"), facts.pop("constant_steps")
    assert isinstance(step, int) and isinstance(constant_steps, int)  # noqa: S101, PT018  # sealed by save_state
    state.step, state.constant_steps = step, constant_steps
    return facts


def _lay_out(optimiser: torch.optim.Adam) -> None:
    """Moments in their parameters' memory format, as a new optimiser has them: else a GPU steps one by one."""
    for parameter, moments in optimiser.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape and value.ndim:
                moments[name] = torch.empty_like(parameter).copy_(value)


def _parts(state: TrainingState) -> tuple[tuple[str, nn.Module, torch.optim.Adam], ...]:
    return (
        ("generator", state.generator, state.generator_optimiser),
        ("discriminator", state.discriminator, state.discriminator_optimiser),
    )
