"""A site's training: from the round's generator, on its own members, to the parameters that may leave.

Discriminator and optimisers live in the site's ``state/`` folder (:mod:`.kept_state`). A kill at any moment costs at
most the minute since the last save: the round goes on from there to the same bits, and a round already finished
answers again with the same reply.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..common.cohorts.preparation import PreparedScans
from ..common.device import Device, choose_device
from ..common.exchange import RoundReply, RoundRequest
from ..common.gan.generation import numpy_parameters, paint
from ..common.gan.networks import Generator
from ..common.gan.parameters import parameters_digest
from ..common.gan.training import train
from ..common.gan.training_state import TrainingState, new_state
from ..common.journal import Fact
from ..common.randomness import derived_seed
from ..common.site_folder import SiteFolder, site_material
from ..common.study import Study
from .egress import DECLARED_WEIGHT
from .kept_state import KeptState
from .site_setup import refuse_without_training

SAVE_EVERY_S = 60.0
"""Seconds of training that a kill may cost."""

StepProgress = Callable[[int, int], None]
"""(steps done in this round, steps in all)."""


class LocalTrainer:
    """Trains one site's networks; a :class:`~fedphantom.common.exchange.SiteTrainer`."""

    def __init__(
        self,
        folder: SiteFolder,
        study: Study,
        scans: PreparedScans,
        device: Device,
        progress: StepProgress | None = None,
    ) -> None:
        self._folder, self._study, self._scans, self._progress = folder, study, scans, progress
        self._seed, self._device = derived_seed(study.seed, "site", folder.name), device
        self._kept = KeptState(folder, lambda: new_state(study, self._seed, device))

    @classmethod
    def open(cls, root: Path, progress: StepProgress | None = None) -> LocalTrainer:
        """Check the site's cohort, draw or read its roles, prepare its scans.

        Raises:
            DataError: no usable scan, or no training patient.
            PolicyRefused: the cohort changed since its roles were drawn.
        """
        folder = SiteFolder.open(root)
        study = folder.study()
        material = site_material(folder, study)
        refuse_without_training(material.coins)
        scans = material.scans_of(material.coins.training_patients())
        return cls(folder, study, scans, choose_device(), progress)

    def train_round(self, request: RoundRequest) -> RoundReply:
        """Train ``local_steps`` from the request's generator.

        Raises:
            PolicyRefused: this round was already answered from another generator, or its answer cannot be repeated.
            TrainingError: NaN or collapse; names the step.
        """
        incoming = parameters_digest(request.generator)
        # From the disk: an attempt that failed in this process must leave no trace in the next.
        state, trained = self._kept.before(request.round, incoming)
        if not trained:
            state = self._train(state, request, incoming)
        return RoundReply(
            self._folder.name,
            request.round,
            numpy_parameters(state.generator),
            DECLARED_WEIGHT,
            self._metrics(state.generator, self._study.training.local_steps),
        )

    def _train(self, state: TrainingState, request: RoundRequest, incoming: str) -> TrainingState:
        """Train this round from its beginning, or from where it was cut off; the state after it, committed."""
        steps, begun = self._study.training.local_steps, self._kept.within(request.round, incoming)
        if begun:
            state, first = begun
        else:
            # Also after rounds that this site missed: draws and learning rate are those of the study's step.
            first = state.step = (request.round - 1) * steps
            weights = {name: torch.from_numpy(np.array(value)) for name, value in request.generator.items()}
            state.generator.load_state_dict(weights)
        facts: dict[str, Fact] = {"round": request.round, "incoming": incoming, "first": first}
        saved = time.monotonic()
        for losses in train(
            state,
            self._scans,
            self._study,
            until_step=first + steps,
            total_steps=self._study.training.rounds * steps,
            seed=self._seed,
        ):
            if self._progress:
                self._progress(losses.step - first, steps)
            if time.monotonic() - saved > SAVE_EVERY_S:
                self._kept.save_within(state, facts)
                saved = time.monotonic()
        self._kept.commit(state, facts)
        return state

    def _metrics(self, generator: Generator, steps: int) -> dict[str, float]:
        fake = paint(generator, schematic_classes(self._study)[None], self._study, self._seed, self._device)
        return {"fake_mean": float(fake.mean()), "fake_std": float(fake.std()), "steps": float(steps)}


def schematic_classes(study: Study) -> NDArray[np.uint8]:
    """Nested ellipsoids of all classes, (X, Y, Z): a label map that is public by construction."""
    axes = [np.linspace(-1, 1, n) for n in study.grid.shape]
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    classes = len(study.labels)
    inside = np.clip(np.ceil((0.9 - radius) / 0.9 * (classes - 1)), 0, classes - 1)
    return np.asarray(inside, dtype=np.uint8)
