"""The generator's private step: what a patient's own label map and scan may teach it directly.

Elsewhere the generator sees patients only through what a noised discriminator became. Here its own gradients are
clipped and noised, patient by patient, so that the distance of a painted scan from the paired real one is admissible
(PRIVACY §1.2, mode J; the discriminator takes no part and costs nothing). Only its last layer learns so: a few dozen
numbers, over which the noise of hundreds of steps can be borne (PRIVACY §1.4).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...common.gan.losses import l1
from ...common.gan.networks import draw_noise
from ...common.gan.training_state import TrainingState
from .drawn_sum import DrawnSum
from .patients import PrivatePatients
from .randomness import SecretRandom
from .step import as_gradients

DRAWS = 2
"""Of the painted scan's noise for each patient and step. Their mean lies inside the one gradient that is clipped, so
that it costs nothing (De et al. 2022, arXiv 2204.13650); and a CPU paints two volumes faster than one."""


class PrivateGeneratorStep:
    """Noised gradients of how far painted scans lie from the patients' own, each painted on the patient's label map.

    Args:
        patients: Of the site, those in training.
        sums: Draws them, and gives noised means of their gradients.
        noised: Names of the generator's parameters that they are of; only these may learn.
        random: Of patches and of the painted scans' noise.
    """

    def __init__(self, patients: PrivatePatients, sums: DrawnSum, noised: Sequence[str], random: SecretRandom) -> None:
        self._patients, self._sums, self._noised, self._random = patients, sums, tuple(noised), random

    def gradient(self, state: TrainingState) -> list[tuple[nn.Parameter, Tensor]]:
        """Take one noised step: of each noised parameter, the gradient it is to follow; no longer private.

        Raises:
            BudgetSpent: as :meth:`.DrawnSum.mean`.
        """
        named = dict(state.generator.named_parameters())
        parameters = [named[name] for name in self._noised]

        def gradient_of(patient: int) -> tuple[Tensor, ...]:
            given, real = self._patients.draw(patient, self._random)
            x, y, z = given.shape[2:]
            noise = state.device.tensor(draw_noise(DRAWS, (x, y, z), self._random.fakes))
            with state.device.autocast():
                distance = l1(state.generator(given.repeat(DRAWS, 1, 1, 1, 1), noise), real)
            return torch.autograd.grad(distance, parameters)

        mean = self._sums.mean(gradient_of, sum(parameter.numel() for parameter in parameters))
        return list(zip(parameters, as_gradients(mean, parameters), strict=True))

    def loss(self, state: TrainingState) -> Tensor:
        """A number whose gradient is :meth:`gradient`; its value says nothing."""
        return torch.stack([(one * slope).sum() for one, slope in self.gradient(state)]).sum()
