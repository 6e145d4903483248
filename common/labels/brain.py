"""The names and values of brain label maps, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError

BRAIN_LABELS: Mapping[str, int] = {
    "background": 0,
    "csf": 1,
    "grey": 2,
    "white": 3,
    "oedema": 4,
    "enhancing": 5,
    "necrosis": 6,
}
"""Label name to value in the cohorts we write."""


@dataclass(frozen=True, kw_only=True)
class BrainLabels:
    """The value of each tissue; background is 0.

    Attributes:
        oedema: The outermost part of a tumour.
        enhancing: Its rim.
        necrosis: Its core.
    """

    csf: int = 1
    grey: int = 2
    white: int = 3
    oedema: int = 4
    enhancing: int = 5
    necrosis: int = 6


def brain_labels(labels: Mapping[str, int]) -> BrainLabels:
    """The values a study gives to the tissues of a brain.

    Args:
        labels: Label name to value, as in ``study.toml``.

    Raises:
        ConfigError: a tissue has no value.
    """
    missing = sorted(set(BRAIN_LABELS) - set(labels))
    if missing:
        raise ConfigError(
            f"study labels without {', '.join(missing)}",
            expected=f"the labels {', '.join(BRAIN_LABELS)} for public_labels.source = 'atlas'",
            remedy="Add them, or take label maps from a cohort with public_labels.source = 'folder'.",
        )
    return BrainLabels(**{name: labels[name] for name in BRAIN_LABELS if name != "background"})
