"""Noised means of whoever is drawn, as often as was paid for: what every private step of a network takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from ...common.counted import counted
from ...common.errors import BudgetSpent
from .provenance import mark
from .randomness import SecretRandom
from .step import NoisedSum, noised_mean


class DrawnSum:
    """Draws patients by coins of their own, and gives the noised mean of what each says.

    Args:
        patients: How many there are.
        sampling_rate: q, with which each takes part in a step.
        how: Clipping and noise.
        random: Sampling and noise.
        paid: Steps that may be taken in all.
        canaries: Vectors, each (P,), of parties beside the patients, drawn, clipped and noised as theirs are; a study
            has none (:mod:`.canaries`).

    Attributes:
        taken: Steps begun so far.
    """

    def __init__(
        self,
        patients: int,
        sampling_rate: float,
        how: NoisedSum,
        random: SecretRandom,
        paid: int,
        canaries: Sequence[Tensor] = (),
    ) -> None:
        self._patients, self._rate, self._how, self._random, self._paid = patients, sampling_rate, how, random, paid
        self._canaries = tuple(mark(gradient) for gradient in canaries)
        self.taken = 0

    def mean(self, gradient_of: Callable[[int], Sequence[Tensor]], size: int) -> Tensor:
        """One noised step's mean, (P,), which is no longer private.

        Args:
            gradient_of: Of a patient, by number: parts of P numbers together.
            size: P.

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

        def vector_of(party: int) -> Sequence[Tensor]:
            if party >= self._patients:
                return (self._canaries[party - self._patients],)
            return gradient_of(party)

        drawn = self._random.poisson_sample(self._patients + len(self._canaries), self._rate).tolist()
        return noised_mean(drawn, vector_of, size, self._how, self._random)
