"""What of the networks patients may move, and how many numbers a noised step tells of them."""

from __future__ import annotations

from torch import nn

from ...common.gan.networks import Discriminator, Generator, make_discriminator, make_generator
from ...common.promise import Noised
from ...common.study import Study

HEAD = ("head.weight", "head.bias")
"""Of either network, its last layer."""


def noised_parameters(network: Generator | Discriminator, choice: Noised) -> tuple[str, ...]:
    """Names of a study's choice, of the network that it is of.

    Of the generator ``generator-head``; of the discriminator ``norms`` (scales and shifts, and the head's bias),
    ``head``, or ``all``.
    """
    if choice == "all":
        return tuple(name for name, _ in network.named_parameters())
    if choice in ("head", "generator-head"):
        return HEAD
    norms = [
        f"{prefix}.{name}"
        for prefix, module in network.named_modules()
        if isinstance(module, nn.GroupNorm)
        for name, _ in module.named_parameters()
    ]
    return (*norms, "head.bias")


def numbers_noised(study: Study) -> int:
    """P: numbers that each noised step of a study that makes a promise tells."""
    promise = study.privacy.promise
    assert promise is not None  # noqa: S101  # asked by callers that know
    if promise.noised == "means":
        return (len(study.labels) - 1) * (2 * len(study.channels) + 1)  # both moments of every channel, and presence
    make = make_generator if promise.noised == "generator-head" else make_discriminator
    network = make(study, 0)
    named = dict(network.named_parameters())
    return sum(named[name].numel() for name in noised_parameters(network, promise.noised))
