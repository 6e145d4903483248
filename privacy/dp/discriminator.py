"""The discriminator's private step: the place where patients touch anything at all.

Stands in for :func:`~fedphantom.common.gan.training.plain_discriminator_step` in the training loop, whose pairs are
then public ones. The generator that the loop trains is post-processing of the discriminator's noised iterates
(PRIVACY §1.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...common.gan.losses import fake_loss, real_loss
from ...common.gan.training import Batch
from ...common.gan.training_state import TrainingState
from ...common.promise import Fakes
from .drawn_sum import DrawnSum
from .examples import DrawnScans, Example, ScansBesideFakes
from .patients import PrivatePatients
from .provenance import refuse_marked
from .randomness import SecretRandom
from .step import as_gradients


class PrivateDiscriminatorStep:
    """Updates the discriminator from patients, by noised steps; a ``DiscriminatorStep``.

    With fakes of own label maps, a patient's loss holds the patient's scan as real and, as fake, what the generator
    makes of the patient's own label map, so that the two differ by the image alone. Both are inside the one gradient
    that is clipped (PRIVACY §1.3: own-mask pairing). With fakes of public label maps, the scan alone is inside; the
    batch's fakes, always as many, are nobody's, and their gradient is added as it is (mode P). There a discriminator
    can win by telling label maps apart, and teach the generator nothing (``docs/experiments.md``).

    Args:
        patients: Of the site, those in training.
        sums: Draws them, and gives noised means of their gradients.
        noised: Names of the discriminator's parameters that are updated; the others stay as they are.
        steps: Of the discriminator for each of the generator.
        random: Of scans, patches and fakes.
        fakes: What scans are held against.
    """

    def __init__(
        self,
        patients: PrivatePatients,
        sums: DrawnSum,
        noised: Sequence[str],
        steps: int,
        random: SecretRandom,
        fakes: Fakes = "own-label-maps",
    ) -> None:
        self._patients, self._sums, self._random, self._noised = patients, sums, random, tuple(noised)
        self._steps, self._fakes = steps, fakes

    def __call__(self, state: TrainingState, batch: Batch, fake: Tensor) -> Tensor:
        """Take the steps; the loss on public fakes, which is all that may be looked at."""
        # The generator stands still meanwhile: a patient's draw and its fake serve all these steps.
        scans, beside = DrawnScans(self._patients, self._random), self._fakes == "own-label-maps"
        example = ScansBesideFakes(scans, state, self._random) if beside else scans
        outside = None if beside else (batch.given, fake)
        for _ in range(self._steps):
            self.update(state, example, outside)
        with torch.no_grad(), state.device.autocast():
            return fake_loss(state.discriminator(batch.given, fake)[0])

    def update(
        self, state: TrainingState, example: Callable[[int], Example], outside: tuple[Tensor, Tensor] | None = None
    ) -> None:
        """One noised step, from what ``example`` gives of each patient drawn.

        Args:
            state: Whose discriminator is updated.
            example: Of a patient, by number.
            outside: Public label maps and fakes of them, whose gradient is added outside the clip.

        Raises:
            PrivateDataReached: what is outside the clip derives from a patient.
            BudgetSpent: as :meth:`.DrawnSum.mean`.
        """

        def gradient_of(patient: int) -> tuple[Tensor, ...]:
            return _gradient(state, self._noised, lambda: _loss(state, *example(patient)))

        named = dict(state.discriminator.named_parameters())
        parameters = [named[name] for name in self._noised]
        mean = self._sums.mean(gradient_of, sum(parameter.numel() for parameter in parameters))
        if outside:
            mean = mean + gradient_of_fakes(state, self._noised, *outside)
        state.discriminator_optimiser.zero_grad(set_to_none=True)
        for parameter, gradient in zip(parameters, as_gradients(mean, parameters), strict=True):
            parameter.grad = gradient
        state.discriminator_optimiser.step()


def gradient_of_fakes(state: TrainingState, noised: Sequence[str], given: Tensor, fake: Tensor) -> Tensor:
    """What fakes that are nobody's pull at the named parameters of the discriminator, (P,): half of least squares.

    Args:
        state: The networks.
        noised: Names of the discriminator's parameters.
        given: Public label maps (B, L, X, Y, Z); B is the study's, so that it tells nothing of who was drawn.
        fake: What was painted of them (B, C, X, Y, Z).

    Raises:
        PrivateDataReached: either derives from a patient.
    """
    refuse_marked(given, fake)

    def loss() -> Tensor:
        with state.device.autocast():
            return fake_loss(state.discriminator(given, fake.detach())[0]) / 2

    return torch.cat([part.reshape(-1) for part in _gradient(state, noised, loss)])


def _gradient(state: TrainingState, noised: Sequence[str], loss: Callable[[], Tensor]) -> tuple[Tensor, ...]:
    named = dict(state.discriminator.named_parameters())
    # Asked for and dropped: torch 2.13 crashes on the CPU where a group norm's input needs no gradient.
    biases = [value for name, value in named.items() if name.endswith("conv.bias") and name not in noised]
    return torch.autograd.grad(loss(), [*(named[name] for name in noised), *biases])[: len(noised)]


def _loss(state: TrainingState, given: Tensor, volumes: Tensor) -> Tensor:
    """Least squares on a patient's scan and, where there is one, on a fake of the same label map; half each."""
    with state.device.autocast():
        logits = state.discriminator(given, volumes)[0]
        if len(volumes) == 1:
            return real_loss(logits) / 2
        on_real, on_fake = logits.chunk(2)
        return (real_loss(on_real) + fake_loss(on_fake)) / 2
