"""The discriminator's private step: the place where patients touch anything at all.

Stands in for :func:`~fedphantom.common.gan.training.plain_discriminator_step` in the training loop, whose pairs are
then public ones. The generator that the loop trains is post-processing of the discriminator's noised iterates
(PRIVACY §1.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...common.counted import counted
from ...common.errors import BudgetSpent, ConfigError
from ...common.gan.losses import fake_loss, real_loss
from ...common.gan.training import Batch
from ...common.gan.training_state import TrainingState
from .examples import Example, PatientExamples
from .patients import PrivatePatients
from .provenance import mark
from .randomness import SecretRandom
from .step import NoisedSum, as_gradients, noised_mean


class PrivateDiscriminatorStep:
    """Updates the discriminator from patients, by noised steps; a ``DiscriminatorStep``.

    A patient's loss holds the patient's scan as real and, as fake, what the generator makes of the patient's own label
    map, so that the two differ by the image alone: against fakes of public label maps a discriminator wins by telling
    the label maps apart, and teaches the generator nothing. Both are inside the one gradient that is clipped (PRIVACY
    §1.3: own-mask pairing).

    Args:
        patients: Of the site, those in training.
        sampling_rate: q, with which each takes part in a step.
        how: Clipping and noise.
        noised: Names of the discriminator's parameters that are updated; the others stay as they are.
        steps: Of the discriminator for each of the generator.
        random: Sampling and noise.
        paid: Steps that may be taken in all.
        canaries: Gradients, each (P,), of parties beside the patients, drawn, clipped and noised as theirs are; a
            study has none (:mod:`.canaries`).

    Attributes:
        taken: Steps begun so far.
    """

    def __init__(
        self,
        patients: PrivatePatients,
        sampling_rate: float,
        how: NoisedSum,
        noised: Sequence[str],
        steps: int,
        random: SecretRandom,
        paid: int,
        canaries: Sequence[Tensor] = (),
    ) -> None:
        self._paid, self.taken = paid, 0
        self._patients, self._rate, self._how = patients, sampling_rate, how
        self._noised, self._steps, self._random = tuple(noised), steps, random
        self._canaries = tuple(mark(gradient) for gradient in canaries)

    def __call__(self, state: TrainingState, batch: Batch, fake: Tensor) -> Tensor:
        """Take the steps; the loss on public fakes, which is all that may be looked at."""
        # The generator stands still meanwhile: a patient's draw and its fake serve all these steps.
        example = PatientExamples(self._patients, state, self._random)
        for _ in range(self._steps):
            self.update(state, example)
        with torch.no_grad(), state.device.autocast():
            return fake_loss(state.discriminator(batch.given, fake)[0])

    def update(self, state: TrainingState, example: Callable[[int], Example]) -> None:
        """One noised step, from what ``example`` gives of each patient drawn.

        Raises:
            BudgetSpent: there is none left of those that were paid for.
        """
        if self.taken >= self._paid:
            raise BudgetSpent(
                f"a noised step beyond the {counted(self._paid, 'step')} that were paid for",
                expected="no more than were reserved",
                remedy="It was not taken. Report this: it is a defect of the program.",
            )
        self.taken += 1
        named = dict(state.discriminator.named_parameters())
        parameters = [named[name] for name in self._noised]
        # Asked for and dropped: torch 2.13 crashes on the CPU where a group norm's input needs no gradient.
        biases = [value for name, value in named.items() if name.endswith("conv.bias") and name not in self._noised]

        def gradient_of(patient: int) -> tuple[Tensor, ...]:
            if patient >= len(self._patients):
                return (self._canaries[patient - len(self._patients)],)
            loss = _loss(state, *example(patient))
            return torch.autograd.grad(loss, [*parameters, *biases])[: len(parameters)]

        drawn = self._random.poisson_sample(len(self._patients) + len(self._canaries), self._rate).tolist()
        size = sum(parameter.numel() for parameter in parameters)
        mean = noised_mean(drawn, gradient_of, size, self._how, self._random)
        state.discriminator_optimiser.zero_grad(set_to_none=True)
        for parameter, gradient in zip(parameters, as_gradients(mean, parameters), strict=True):
            parameter.grad = gradient
        state.discriminator_optimiser.step()


def _loss(state: TrainingState, given: Tensor, volumes: Tensor) -> Tensor:
    """Least squares on a patient's scan and on a fake of the same label map, half each."""
    with state.device.autocast():
        on_real, on_fake = state.discriminator(given, volumes)[0].chunk(2)
        return (real_loss(on_real) + fake_loss(on_fake)) / 2


def check_discriminator(network: nn.Module) -> None:
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
                "a discriminator with " + ("spectral norm" if spectral else "batch norm or running statistics"),
                expected="norms of each scan alone, such as group norm",
                remedy="Differential privacy counts one patient's gradient at a time; such a layer mixes patients.",
            )
