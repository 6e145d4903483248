"""The noised step: one vector a patient, a gradient mostly, clipped, summed, noised, divided by a public constant.

DP-SGD (Abadi et al. 2016, arXiv 1607.00133) with patients as the unit: whatever scans, patches and augmentations of a
patient are drawn, they make one gradient, and that one is clipped (PRIVACY §1.3). Patients are gone through one by one
(a micro-batch loop), so that the step's memory does not grow with their number, nor does that of their examples
(:mod:`.examples`); per-sample hooks were measured slower and larger (``make bench``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from ...common.errors import ConfigError
from .provenance import disclosed, mark
from .randomness import SecretRandom

_Patient = TypeVar("_Patient")
_HELD = (1e-30, 1e30)
"""Standard deviations of noise that numbers of 32 bits hold, with what lies far from zero or near it."""


@dataclass(frozen=True)
class NoisedSum:
    """What is done to patients' vectors.

    Attributes:
        clip_norm: C, the largest Euclidean norm of one patient's vector.
        noise_multiplier: σ; the noise of the sum has standard deviation σC in every coordinate. Zero makes no promise
            and is for tests and canaries.
        expected_batch: B̄ = qn, by which the noised sum is divided: a public constant, never the number drawn.

    Raises:
        ConfigError: one of them is outside its range, or the noise of the mean is too large or too small for the
            networks' numbers to hold.
    """

    clip_norm: float
    noise_multiplier: float
    expected_batch: float

    def __post_init__(self) -> None:
        in_range = 0 < self.clip_norm < math.inf and 0 <= self.noise_multiplier < math.inf and self.expected_batch > 0
        if not in_range or not self._noise_is_held():
            raise ConfigError(
                f"noised steps with C = {self.clip_norm:g}, σ = {self.noise_multiplier:g}, B̄ = {self.expected_batch:g}",
                expected="a clip norm and an expected batch above 0, noise of 0 or more, all finite",
                remedy="Mend the study's [privacy.promise]; 'fedphantom study check' reads it.",
            )

    def _noise_is_held(self) -> bool:
        deviation = self.noise_multiplier * self.clip_norm / self.expected_batch
        return self.noise_multiplier == 0 or _HELD[0] <= deviation <= _HELD[1]


def noised_mean(
    patients: Iterable[_Patient],
    vector_of: Callable[[_Patient], Sequence[Tensor]],
    size: int,
    how: NoisedSum,
    random: SecretRandom,
) -> Tensor:
    """The noised mean of the drawn patients' clipped vectors, which no longer counts as private.

    Args:
        patients: Those drawn; none gives noise alone, as it must.
        vector_of: One patient's gradient (or another vector), in parts of P coordinates together; of the mean over
            what was drawn of that patient.
        size: P.
        how: Clipping and noise.
        random: Where the noise comes from.

    Returns:
        Shape (P,), parts in their order; float64 on devices that have it.
    """
    noise = random.normal(size)
    total = mark(torch.zeros_like(noise))
    for patient in patients:
        total = total + clipped(vector_of(patient), how.clip_norm)
    return disclosed(total + how.noise_multiplier * how.clip_norm * noise) / how.expected_batch


def clipped(vector: Sequence[Tensor], clip_norm: float) -> Tensor:
    """One patient's parts as one vector (P,), float64 on devices that have it, no longer than ``clip_norm``.

    What is not finite counts as nothing: one patient's overflow must not undo the sum, nor escape the clipping.
    """
    dtype = torch.float32 if vector[0].device.type == "mps" else torch.float64
    flat = torch.cat([part.reshape(-1) for part in vector]).to(dtype).nan_to_num(0.0, 0.0, 0.0)
    factor: Tensor = (clip_norm / (torch.linalg.vector_norm(flat) + 1e-6)).clamp(max=1.0)
    return flat * factor


def as_gradients(flat: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """A vector (P,) cut into the parameters' shapes, types and memory formats."""
    parts = torch.split(flat, [parameter.numel() for parameter in parameters])
    with torch.no_grad():
        return [torch.empty_like(p).copy_(part.view_as(p)) for part, p in zip(parts, parameters, strict=True)]
