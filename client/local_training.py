"""A site's training: from the round's generator, on its own members, to the parameters that may leave.

Discriminator and optimisers live in the site's ``state/`` folder. A kill at any moment costs at most the minute
since the last save: the round goes on from there to the same bits, and a round already finished answers again
with the same reply.
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
from ..common.errors import DataError, PolicyRefused
from ..common.exchange import RoundReply, RoundRequest
from ..common.gan.generation import numpy_parameters, paint
from ..common.gan.inference import infer
from ..common.gan.networks import Generator
from ..common.gan.parameters import parameters_digest
from ..common.gan.training import train
from ..common.gan.training_state import load_state, new_state, save_state
from ..common.journal import Fact
from ..common.randomness import derived_seed
from ..common.site_folder import SiteFolder, site_material
from ..common.study import Study
from .egress import DECLARED_WEIGHT

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
        self._seed = derived_seed(study.seed, "site", folder.name)
        self._state = new_state(study, self._seed, device)
        self._committed = folder.state / "committed.safetensors"
        self._partial = folder.state / "partial.safetensors"
        folder.state.mkdir(parents=True, exist_ok=True)

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
        scans = material.scans_of(material.coins.training_patients())
        if not len(scans):
            raise DataError(
                "a site without a training patient once the roles are drawn",
                expected="more patients, or smaller shares under [roles]",
                remedy="Run 'fedphantom cohort check' and look at [roles] in the study.",
            )
        return cls(folder, study, scans, choose_device(), progress)

    def train_round(self, request: RoundRequest) -> RoundReply:
        """Train ``local_steps`` from the request's generator.

        Raises:
            PolicyRefused: this round was already answered from another generator.
            TrainingError: NaN or collapse; names the step.
        """
        incoming = parameters_digest(request.generator)
        if not self._is_answered(request.round, incoming):
            self._train(request, incoming)
        generator = numpy_parameters(self._state.generator)
        return RoundReply(
            self._folder.name,
            request.round,
            generator,
            DECLARED_WEIGHT,
            self._metrics(self._study.training.local_steps),
        )

    def _is_answered(self, round_: int, incoming: str) -> bool:
        # Fresh networks: an attempt that failed in this process must leave no trace in the next.
        self._state = new_state(self._study, self._seed, self._state.device)
        if not self._committed.exists():
            return False
        facts = load_state(self._committed, self._state)
        done = int(str(facts["round"]))
        if done > round_ or (done == round_ and facts["incoming"] != incoming):
            raise PolicyRefused(
                f"the coordinator asks for round {round_} again from another generator; round {done} is done here",
                expected="the next round, or this one unchanged",
                remedy="The coordinator must go on from its last checkpoint, or start a new run.",
            )
        return done == round_

    def _train(self, request: RoundRequest, incoming: str) -> None:
        first, steps = self._resume_partial(request.round, incoming), self._study.training.local_steps
        state = self._state
        if first is None:
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
                save_state(self._partial, state, facts)
                saved = time.monotonic()
        save_state(self._committed, state, facts)
        self._partial.unlink(missing_ok=True)

    def _resume_partial(self, round_: int, incoming: str) -> int | None:
        """The first step of the interrupted round, its state loaded; None where this round was not begun."""
        if not self._partial.exists():
            return None
        try:
            fresh = new_state(self._study, self._seed, self._state.device)
            facts = load_state(self._partial, fresh)
        except DataError:
            return None  # a damaged partial state costs its steps, not the round
        if (facts["round"], facts["incoming"]) != (round_, incoming):
            return None
        self._state = fresh
        return int(str(facts["first"]))

    def _metrics(self, steps: int) -> dict[str, float]:
        fake = made_of_schema(self._state.generator, self._study, self._seed, self._state.device)
        return {"fake_mean": float(fake.mean()), "fake_std": float(fake.std()), "steps": float(steps)}


def made_of_schema(network: Generator, study: Study, seed: int, device: Device) -> NDArray[np.float32]:
    """What a network makes of a public input: an image of nested ellipsoids, or the classes it sees in one."""
    classes = schematic_classes(study)
    if study.network.maps == "labels-to-images":
        return paint(network, classes[None], study, seed, device)
    image = (classes / np.float32(len(study.labels) / 2) - 1).astype(np.float32)
    shares = infer(network, np.stack([image] * len(study.channels)), study, device)
    return np.asarray(shares.argmax(axis=0), dtype=np.float32)


def schematic_classes(study: Study) -> NDArray[np.uint8]:
    """Nested ellipsoids of all classes, (X, Y, Z): a label map that is public by construction."""
    axes = [np.linspace(-1, 1, n) for n in study.grid.shape]
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    classes = len(study.labels)
    inside = np.clip(np.ceil((0.9 - radius) / 0.9 * (classes - 1)), 0, classes - 1)
    return np.asarray(inside, dtype=np.uint8)
