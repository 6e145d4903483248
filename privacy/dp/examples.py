"""What noised steps see of each patient while the generator stands still: one draw, and a fake of its label map.

A patient's example serves all noised steps between two of the generator. What was drawn and the noise of the fake are
kept for that as numbers; scans and fakes are held only as far as there is room for, and are read and painted again, to
the same bits, for each step beyond. So memory does not grow with the number of patients; time does, where there are
more than fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...common.gan.networks import draw_noise
from ...common.gan.training_state import TrainingState
from .patients import Place, PrivatePatients
from .randomness import SecretRandom

MOST_FAKES, MOST_SCANS = 2**30, 2**29
"""Bytes held at a time: at 96³ voxels of four channels, fakes of 75 patients. A fake takes longest to have again."""

Example = tuple[Tensor, Tensor]
"""A patient's label map, twice the same, (2, L, X, Y, Z), and volumes (2, C, X, Y, Z): the scan, and a fake."""


@dataclass(frozen=True)
class _Draw:
    place: Place
    noise: Tensor
    """State of the generator of the fake's noise, before it."""


class PatientExamples:
    """Examples of patients by number, each drawn when it is first asked for; marked.

    Args:
        patients: Of the site, those in training.
        state: Whose generator paints; it must not learn meanwhile.
        random: Of the draws and of the fakes.
    """

    def __init__(self, patients: PrivatePatients, state: TrainingState, random: SecretRandom) -> None:
        self._patients, self._state, self._random = patients, state, random
        self._draws: dict[int, _Draw] = {}
        self._scans, self._fakes = _Held(MOST_SCANS), _Held(MOST_FAKES)

    def __call__(self, patient: int) -> Example:
        """The same for the same patient, always."""
        if patient not in self._draws:
            place = self._patients.place(patient, self._random)
            self._draws[patient] = _Draw(place, self._random.fakes.get_state())
            given, real = self._scans.of(patient, lambda: self._patients.at(place))
            (fake,) = self._fakes.of(patient, lambda: (self._paint(given, self._random.fakes),))
        else:
            drawn = self._draws[patient]
            given, real = self._scans.of(patient, lambda: self._patients.at(drawn.place))
            again = torch.Generator().set_state(drawn.noise)
            (fake,) = self._fakes.of(patient, lambda: (self._paint(given, again),))
        return torch.cat([given, given]), torch.cat([real, fake.to(real.dtype)])

    def _paint(self, given: Tensor, random: torch.Generator) -> Tensor:
        x, y, z = given.shape[2:]
        noise = self._state.device.tensor(draw_noise(1, (x, y, z), random))
        with torch.no_grad(), self._state.device.autocast():
            fake: Tensor = self._state.generator(given, noise)
        return fake


class _Held:
    """Tensors of the patients who came first, as many as there is room for."""

    def __init__(self, room: int) -> None:
        self._parts: dict[int, tuple[Tensor, ...]] = {}
        self._room = room

    def of(self, patient: int, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        if patient in self._parts:
            return self._parts[patient]
        made = make()
        size = sum(part.numel() * part.element_size() for part in made)
        if size <= self._room:
            self._parts[patient], self._room = made, self._room - size
        return made
