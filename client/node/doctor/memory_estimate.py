"""How much memory a training step of a study needs, reckoned from its networks' shapes; nothing is computed.

The networks are made on torch's *meta* device, where tensors have shapes and no storage, and are run forward once: what
autograd says it keeps for the way back is what a real step holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

from ....common.gan.losses import real_loss
from ....common.gan.networks import given_and_made, make_discriminator, make_generator, noise_channels
from ....common.study import Study

DeviceKind = Literal["cpu", "cuda"]

MARGIN = 1.4
"""Measured peaks over what is counted here: convolutions' workspaces, gradients under way, fragments."""

_LIBRARIES = 1_000_000_000 if torch.version.cuda else 600_000_000
"""Bytes of Python with its libraries; a build of torch for CUDA maps more, with a card or without."""

FRAMEWORK: dict[DeviceKind, int] = {"cpu": _LIBRARIES, "cuda": 700_000_000}
"""Bytes that torch holds by itself: Python with its libraries, or a context on the card."""

_FLOAT = 4
_ADAM = 4
"""Of each parameter: itself, its gradient, two moments."""
_VARIED = 5
"""Copies of a batch of whole scans while it is varied."""


@dataclass(frozen=True)
class StepMemory:
    """What one step holds at its peak, in bytes of float32.

    Attributes:
        parameters: Both networks with gradients and optimisers.
        activations: What is kept between the way forward and the way back, and what is varied before it.
    """

    parameters: int
    activations: int

    def bytes(self, kind: DeviceKind) -> int:
        """In all; on ``cuda`` activations are bfloat16 for the most part, half the size."""
        kept = self.activations if kind == "cpu" else self.activations // 2
        return round(MARGIN * (self.parameters + kept)) + FRAMEWORK[kind]


def step_memory(study: Study) -> StepMemory:
    """Of one step of the study's training on its grid or patches, with its batch.

    Noised steps go through patients one by one, and hold no more than a plain step of the same networks.
    """
    shape = study.training.patch.shape if study.training.patch else study.grid.shape
    batch, (given, made) = study.training.batch, given_and_made(study)
    generator, discriminator = (make(study, 0).to("meta") for make in (make_generator, make_discriminator))
    with torch.device("meta"):
        condition = torch.empty(batch, given, *shape)
        noise = torch.empty(batch, noise_channels(study.network.maps), *shape)
        fake = torch.empty(batch, made, *shape)

    def judge(times: int, judged: Tensor) -> Tensor:
        logits, features = discriminator(torch.cat([condition] * times), torch.cat([judged] * times))
        return real_loss(logits) + torch.stack([feature.sum() for feature in features]).sum()

    # The generator's way forward is kept while either of the discriminator's two is.
    kept = _kept(lambda: generator(condition, noise)) + max(
        _kept(lambda: judge(2, fake)), _kept(lambda: judge(1, fake.clone().requires_grad_()))
    )
    if study.network.maps == "images-to-labels":
        kept += _VARIED * _FLOAT * batch * (len(study.channels) + 1) * prod(study.grid.shape)
    weights = sum(value.numel() for network in (generator, discriminator) for value in network.parameters())
    return StepMemory(_ADAM * _FLOAT * weights, kept)


def _kept(run: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps of a run, each storage once."""
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
