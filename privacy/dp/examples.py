"""What noised steps see of each patient while the generator stands still: one draw, alone or beside a fake of it.

A patient's example serves all noised steps between two of the generator. What was drawn and the noise of the fake are
kept for that as numbers; scans and fakes are held only as far as there is room for, and are read and painted again, to
the same bits, for each step beyond. So memory does not grow with the number of patients; time does, where there are
more than fit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...common.gan.networks import draw_noise
from ...common.gan.training_state import TrainingState
from .patients import Place, PrivatePatients
from .randomness import SecretRandom

MOST_FAKES, MOST_SCANS = 2**30, 2**29
"""Bytes held at a time: at 96³ voxels of four channels, fakes of 75 patients. A fake takes longest to have again."""

Example = tuple[Tensor, Tensor]
"""A patient's label map (1, L, X, Y, Z) and scan (1, C, X, Y, Z). With a fake, both have two rows: the label map twice;
the scan, then the fake."""


class DrawnScans:
    """Scans of patients by number, with their label maps, each drawn when it is first asked for; marked.

    Args:
        patients: Of the site, those in training.
        random: Of the draws.
    """

    def __init__(self, patients: PrivatePatients, random: SecretRandom) -> None:
        self._patients, self._random = patients, random
        self._places: dict[int, Place] = {}
        self._scans = _Held(MOST_SCANS)

    def __call__(self, patient: int) -> Example:
        """The same for the same patient, always."""
        if patient not in self._places:
            self._places[patient] = self._patients.place(patient, self._random)
        place = self._places[patient]
        given, real = self._scans.of(patient, lambda: self._patients.at(place))
        return given, real


class ScansBesideFakes:
    """The same, each beside a fake of its own label map; marked.

    Args:
        scans: Of the patients.
        state: Whose generator paints; it must not learn meanwhile.
        random: Of the fakes.
    """

    def __init__(self, scans: DrawnScans, state: TrainingState, random: SecretRandom) -> None:
        self._scans, self._state, self._random = scans, state, random
        self._noise: dict[int, Tensor] = {}  # state of the generator of each fake's noise, before it
        self._fakes = _Held(MOST_FAKES)

    def __call__(self, patient: int) -> Example:
        """The same for the same patient, always."""
        given, real = self._scans(patient)
        random = self._random.fakes
        if patient in self._noise:
            random = torch.Generator().set_state(self._noise[patient])
        else:
            self._noise[patient] = random.get_state()
        (fake,) = self._fakes.of(patient, lambda: (self._paint(given, random),))
        return torch.cat([given, given]), torch.cat([real, fake.to(real.dtype)])

    def _paint(self, given: Tensor, random: torch.Generator) -> Tensor:
        x, y, z = given.shape[2:]
        noise = self._state.device.tensor(draw_noise(1, (x, y, z), random))
        # Two volumes that are the same: a CPU takes a third to a half of the time of one, whose convolutions torch
        # does slowly.
        twice = 2 if given.device.type == "cpu" else 1
        with torch.no_grad(), self._state.device.autocast():
            fake: Tensor = self._state.generator(*(part.repeat(twice, 1, 1, 1, 1) for part in (given, noise)))
        return fake[:1]


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
