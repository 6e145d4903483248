"""A site's training: from the round's generator, on its own members, to the parameters that may leave.

Discriminator and optimisers live in the site's ``state/`` folder (:mod:`.kept_state`). A kill at any moment costs at
most the minute since the last save: the round goes on from there to the same bits, and a round already finished
answers again with the same reply.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..common import curves, previews
from ..common.atomic import write_atomic
from ..common.by_product import by_product
from ..common.cohorts.preparation import PreparedScans
from ..common.cohorts.procedural import procedural_patients
from ..common.device import Device, choose_device
from ..common.exchange import RoundReply, RoundRequest
from ..common.gan.generation import numpy_parameters, paint
from ..common.gan.inference import infer
from ..common.gan.losses import proximal
from ..common.gan.networks import Generator
from ..common.gan.parameters import parameters_digest
from ..common.gan.training import StepLosses, train
from ..common.gan.training_state import TrainingState
from ..common.journal import Fact
from ..common.labels.schematic import schematic_classes
from ..common.montage import Pictured, montage
from ..common.randomness import derived_seed
from ..common.site_folder import SiteFolder, site_material
from ..common.study import Study
from .kept_state import KeptState
from .own_generator import settle_generator
from .private_training import PrivateTraining
from .site_setup import refuse_without_training
from .way_of_training import PlainTraining, WayOfTraining

SAVE_EVERY_S = 60.0
"""Seconds of training that a kill may cost."""

PICTURED = 2
"""Scans in a preview."""

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
        procedural: frozenset[str] = frozenset(),
        way: WayOfTraining | None = None,
    ) -> None:
        self._procedural = procedural  # of the patients in a preview
        self._folder, self._study, self._scans, self._progress = folder, study, scans, progress
        self._seed, self._device = derived_seed(study.seed, "site", folder.name), device
        self.way: WayOfTraining = way or PlainTraining.open(folder, study, scans, self._seed, device)
        self._kept = KeptState(folder, self.way.fresh_state)

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
        procedural = procedural_patients(material.cohort.only(set(scans.patients[:PICTURED])))
        device = choose_device()
        way = PrivateTraining(folder, study, material, scans, device) if study.privacy.promise else None
        return cls(folder, study, scans, device, progress, procedural, way)

    def train_round(self, request: RoundRequest) -> RoundReply:
        """Train ``local_steps`` from the request's generator, or from the study's initial one where it has none.

        Raises:
            PolicyRefused: this round was already answered from another generator, or its answer cannot be repeated.
            TrainingError: NaN or collapse; names the step.
        """
        incoming = parameters_digest(request.generator)
        # From the disk: an attempt that failed in this process must leave no trace in the next.
        state, trained = self._kept.before(request.round, incoming)
        if not trained:
            state = self._train(state, request, incoming)
        generator, way = numpy_parameters(state.generator), self.way
        return RoundReply(
            self._folder.name,
            request.round,
            settle_generator(self._folder, self._study, request.round, generator, way.statement()),
            self._study.federation.weight_of(self._folder.name),
            self._metrics(state.generator, self._study.training.local_steps),
        )

    def _train(self, state: TrainingState, request: RoundRequest, incoming: str) -> TrainingState:
        """Train this round from its beginning, or from where it was cut off; the state after it, committed."""
        steps, way = self._study.training.local_steps, self.way
        begun = self._kept.within(request.round, incoming) if way.resumable else None
        initial = request.generator or way.initial()
        start = {name: self._device.tensor(torch.from_numpy(np.array(value))) for name, value in initial.items()}
        if begun:
            state, first = begun
        else:
            # Also after rounds that this site missed: draws and learning rate are those of the study's step.
            first = state.step = (request.round - 1) * steps
            state.generator.load_state_dict(start)
        facts: dict[str, Fact] = {"round": request.round, "incoming": incoming, "first": first}
        held = self._study.federation.proximal_weight
        unsaved: list[StepLosses] = []
        saved = time.monotonic()
        learning = way.begin()
        for losses in train(
            state,
            way.pairs,
            self._study,
            until_step=first + steps,
            total_steps=self._study.training.rounds * steps,
            seed=self._seed,
            discriminator_step=learning.discriminator,
            loss_of_generator=learning.generator,
            penalty=partial(proximal, start=start, weight=held) if held else None,
        ):
            unsaved.append(losses)
            if self._progress:
                self._progress(losses.step - first, steps)
            if way.resumable and time.monotonic() - saved > SAVE_EVERY_S:
                self._kept.save_within(state, facts)
                self._draw_curves(request.round, unsaved)
                unsaved = []
                saved = time.monotonic()
        way.end()
        self._kept.commit(state, facts)
        self._draw_curves(request.round, unsaved)
        self._draw_preview(request.round, state.generator)
        return state

    def _draw_curves(self, round_: int, steps: list[StepLosses]) -> None:
        """Losses on real data, for the site's own eyes."""
        with by_product(self._folder.journal, "curves", round_):
            points = [(losses.step, {n: v for n, v in asdict(losses).items() if n != "step"}) for losses in steps]
            curves.write_curves(self._folder.root / curves.FOLDER, points)

    def _draw_preview(self, round_: int, generator: Generator) -> None:
        """The site's own scans beside what its generator makes of them; it never leaves."""
        with by_product(self._folder.journal, "preview", round_):
            file = previews.preview_due(self._folder.root / previews.FOLDER, round_)
            if file is None:
                return
            shown = pictured(generator, self._scans, self._study, self._seed, self._device, self._procedural)
            write_atomic(file, montage(self._study, shown), mode=0o600)

    def _metrics(self, generator: Generator, steps: int) -> dict[str, float]:
        fake = made_of_schema(generator, self._study, self._seed, self._device)
        figures = {"fake_mean": float(fake.mean()), "fake_std": float(fake.std()), "steps": float(steps)}
        return figures | dict(self.way.metrics())


def made_of_schema(network: Generator, study: Study, seed: int, device: Device) -> NDArray[np.float32]:
    """What a network makes of a public input: an image of nested ellipsoids, or the classes it sees in one."""
    classes = schematic_classes(study)
    if study.network.maps == "labels-to-images":
        return paint(network, classes[None], study, seed, device)
    image = (classes / np.float32(len(study.labels) / 2) - 1).astype(np.float32)
    shares = infer(network, np.stack([image] * len(study.channels)), study, device)
    return np.asarray(shares.argmax(axis=0), dtype=np.float32)


def pictured(
    network: Generator,
    scans: PreparedScans,
    study: Study,
    seed: int,
    device: Device,
    procedural: frozenset[str] = frozenset(),
) -> list[Pictured]:
    """The first scans beside what a network paints of their label maps, or under what it infers from them."""
    classes, real = scans.classes[:PICTURED], scans.volumes[:PICTURED]
    if study.network.maps == "labels-to-images":
        painted = paint(network, classes, study, seed, device)
        return [
            Pictured(f"scan {i + 1}", classes[i], painted[i], real[i], scans.patients[i] in procedural)
            for i in range(len(classes))
        ]
    class_of = np.searchsorted(study.label_values, study.inferred_labels).astype(np.uint8)
    shown = []
    for i, volume in enumerate(real):
        inferred = class_of[infer(network, volume, study, device).argmax(axis=0)]
        shown += [Pictured(f"scan {i + 1}", classes[i], volume), Pictured("inferred", inferred, volume)]
    return shown
