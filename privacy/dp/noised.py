"""What of a discriminator patients may move, and how many numbers a noised step tells of them."""

from __future__ import annotations

from torch import nn

from ...common.gan.networks import Discriminator, make_discriminator
from ...common.promise import Noised
from ...common.study import Study


def noised_parameters(discriminator: Discriminator, choice: Noised) -> tuple[str, ...]:
    """Names of a study's choice: ``norms`` (scales and shifts, and the head's bias), ``head``, or ``all``."""
    if choice == "all":
        return tuple(name for name, _ in discriminator.named_parameters())
    if choice == "head":
        return ("head.weight", "head.bias")
    norms = [
        f"{prefix}.{name}"
        for prefix, module in discriminator.named_modules()
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
    discriminator = make_discriminator(study, 0)
    named = dict(discriminator.named_parameters())
    return sum(named[name].numel() for name in noised_parameters(discriminator, promise.noised))
