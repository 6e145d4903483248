"""Curves as TensorBoard itself reads them."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def read_curves(folder: Path) -> dict[str, dict[int, float]]:
    """Name to step to value."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    names = accumulator.Tags()["scalars"]
    return {name: {event.step: event.value for event in accumulator.Scalars(name)} for name in names}
