"""Private patients, out of which nothing comes but marked tensors."""

from __future__ import annotations

from torch import Tensor

from ...common.cohorts.preparation import PreparedScans
from ...common.device import Device
from ...common.gan.patches import WHOLE, Box, draw_box
from ...common.gan.training import cut
from ...common.study import Study
from .provenance import mark
from .randomness import SecretRandom

Place = tuple[int, Box]
"""Row of a scan, and the box of it that is seen."""


class PrivatePatients:
    """A site's training patients, by number; each with one scan or more.

    Args:
        scans: Of the training patients alone.
        study: Grid, patches, labels.
        device: Where tensors go.
    """

    def __init__(self, scans: PreparedScans, study: Study, device: Device) -> None:
        self._scans, self._study, self._device = scans, study, device
        names = sorted(set(scans.patients))
        self._rows = [scans.rows_of([name]) for name in names]

    def __len__(self) -> int:
        return len(self._rows)

    def whole(self, patient: int, random: SecretRandom) -> tuple[Tensor, Tensor]:
        """One scan of a patient: label map (1, L, X, Y, Z) and volume (1, C, X, Y, Z), marked."""
        return self.at((self._row(patient, random), WHOLE))

    def draw(self, patient: int, random: SecretRandom) -> tuple[Tensor, Tensor]:
        """One scan of a patient, or a patch of it: label map (1, L, X, Y, Z) and volume (1, C, X, Y, Z), marked.

        Which scan and where says nothing of others: it is part of the one gradient that is clipped.
        """
        return self.at(self.place(patient, random))

    def place(self, patient: int, random: SecretRandom) -> Place:
        """Which scan, and where in it, :meth:`draw` would take; as private as what lies there."""
        row, patch = self._row(patient, random), self._study.training.patch
        box = draw_box(self._scans.classes[row], patch, len(self._study.labels), random.numpy) if patch else WHOLE
        return row, box

    def at(self, place: Place) -> tuple[Tensor, Tensor]:
        """What lies there, marked; shapes as of :meth:`draw`."""
        given, real = cut(self._scans, [place], self._study, self._device)
        return mark(given), mark(real)

    def _row(self, patient: int, random: SecretRandom) -> int:
        rows = self._rows[patient]
        return int(rows[random.numpy.integers(len(rows))])
