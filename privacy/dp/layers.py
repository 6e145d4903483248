"""Layers by which one patient's gradient would hold others: batch norm, running statistics, spectral norm."""

from __future__ import annotations

from torch import nn

from ...common.errors import ConfigError


def refuse_mixing_layers(network: nn.Module) -> None:
    """Refuse a network whose gradient for one patient would depend on others, or escape the clipping.

    Raises:
        ConfigError: batch norm, or any other layer with running statistics; spectral norm.
    """
    for module in network.modules():
        mixing = isinstance(module, nn.modules.batchnorm._BatchNorm) or getattr(module, "track_running_stats", False)
        spectral = any("spectral" in type(hook).__name__.lower() for hook in module._forward_pre_hooks.values()) or any(
            "spectral" in type(part).__name__.lower()
            for parametrised in getattr(module, "parametrizations", {}).values()
            for part in parametrised
        )
        if mixing or spectral:
            raise ConfigError(
                "a network with " + ("spectral norm" if spectral else "batch norm or running statistics"),
                expected="norms of each scan alone, such as group norm",
                remedy="Differential privacy counts one patient's gradient at a time; such a layer mixes patients.",
            )
