"""A site's training under differential privacy: budget first, then noised steps, then what was done of them.

The generator sees public label maps and what noised steps say of the patients, and nothing else of them. Noised steps
are paid for before the first, whole; what is cut off is begun anew and paid for again (PRIVACY §2).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..common.atomic import write_atomic
from ..common.cohorts.preparation import PreparedScans
from ..common.device import Device
from ..common.errors import DataError
from ..common.exchange import EPSILON, NOISED_STEPS, Parameters
from ..common.gan.label_means import TargetMeans, means_loss
from ..common.gan.public_maps import PublicMaps
from ..common.gan.public_start import read_public_start
from ..common.gan.training import Batch, generator_loss
from ..common.gan.training_state import TrainingState
from ..common.promise import DISCRIMINATING, PromiseTable
from ..common.site_folder import PUBLIC_START, SiteFolder, SiteMaterial
from ..common.study import Study
from ..common.tensor_file import decode, encode
from ..privacy.dp.discriminator import PrivateDiscriminatorStep
from ..privacy.dp.drawn_sum import DrawnSum
from ..privacy.dp.feasibility import refuse_noise
from ..privacy.dp.generator import PrivateGeneratorStep
from ..privacy.dp.layers import refuse_mixing_layers
from ..privacy.dp.ledger import Ledger, NoisedRun, OpenReservation
from ..privacy.dp.limits import Budget
from ..privacy.dp.means import noised_means
from ..privacy.dp.noised import HEAD, noised_parameters
from ..privacy.dp.patients import PrivatePatients
from ..privacy.dp.plan import asked_feasibility, noised_plan
from ..privacy.dp.randomness import SecretRandom
from ..privacy.dp.run_spent import run_name, spent_at_site
from ..privacy.dp.statement import dp_statement
from ..privacy.dp.step import NoisedSum
from .training_people import training_people
from .way_of_training import Steps

NOISED_MEANS = "noised-means.safetensors"
"""In a site's state: what its patients' structures look like on average, noised; taken once."""


class PrivateTraining:
    """A site's noised steps, their budget and what the generator learns from them; a :class:`.WayOfTraining`.

    Args:
        folder: The site's.
        study: One that makes a promise.
        material: Its patients and their roles.
        scans: Of the training patients.
        device: Where networks are.

    Attributes:
        pairs: Public label maps.
        resumable: Never: steps since a save were taken and paid for, and cannot be taken back.
    """

    resumable = False

    def __init__(
        self, folder: SiteFolder, study: Study, material: SiteMaterial, scans: PreparedScans, device: Device
    ) -> None:
        promise = study.privacy.promise
        assert promise is not None  # noqa: S101  # asked for such a study alone
        self._promise: PromiseTable = promise
        self._folder, self._study, self._device = folder, study, device
        self._start = read_public_start(folder.root / PUBLIC_START, study)
        self.pairs = PublicMaps(self._start.sampler(study), study)
        self._patients = PrivatePatients(scans, study, device)
        self._material = material
        self._paid: OpenReservation | None = None
        self._sums: DrawnSum | None = None
        self._plan = noised_plan(study)
        self._ledger = Ledger(folder.ledger, folder.journal)
        self._random = SecretRandom(device.torch)
        state = self._start.state(study, device)
        for network in (state.discriminator, state.generator):
            refuse_mixing_layers(network)
        learning = promise.noised in DISCRIMINATING
        self._noised = noised_parameters(state.discriminator, promise.noised) if learning else HEAD
        self._public = self._start.means(device)
        refuse_noise(asked_feasibility(study, len(material.coins.training_patients())))
        self._run = NoisedRun(
            run_name(study, material.coins.cohort_digest), study.digest(), promise.clip_norm, study.name
        )

    def fresh_state(self) -> TrainingState:
        """The public start's networks; where no discriminator teaches, only the generator's last layer is to learn.

        It turns features into intensities. With all layers free, images that match means came out worse
        (``docs/experiments.md``).
        """
        state = self._start.state(self._study, self._device)
        if self._promise.noised not in DISCRIMINATING:
            for name, parameter in state.generator.named_parameters():
                parameter.requires_grad_(name in HEAD)
        return state

    def initial(self) -> Parameters:
        """The public start's generator."""
        return self._start.generator

    def begin(self) -> Steps:
        """Pay for a round's noised steps, and say what the networks learn from.

        Raises:
            BudgetSpent: the patients' budget does not allow it.
            PolicyRefused, VerificationFailed, StorageError: as :meth:`.Ledger.reserve`.
        """
        if self._promise.noised == "means":
            return self._matching()
        self._paid = self._reserve()
        how, rate = _noised_as_reserved(self._paid), self._plan.sampling_rate
        self._sums = DrawnSum(len(self._patients), rate, how, self._random, self._plan.steps)
        if self._promise.noised == "generator-head":
            return self._following(PrivateGeneratorStep(self._patients, self._sums, self._noised, self._random))
        steps, fakes = self._promise.discriminator_steps, self._promise.fakes
        step = PrivateDiscriminatorStep(self._patients, self._sums, self._noised, steps, self._random, fakes)
        return Steps(step, generator_loss)

    def end(self) -> None:
        """Say in the ledger how many of the round's steps were taken."""
        if self._paid and self._sums:
            self._paid.commit(self._sums.taken)
            self._paid = None

    def metrics(self) -> Mapping[str, float]:
        """What this study has cost the patients so far."""
        spent = spent_at_site(self._folder, self._study)
        return {EPSILON: spent.epsilon, NOISED_STEPS: float(spent.steps)}

    def statement(self) -> str:
        """What holds for the site's own generator, for its file's header."""
        statement = dp_statement(self._study, {self._folder.name: spent_at_site(self._folder, self._study)})
        assert statement is not None  # noqa: S101  # the study promises something
        return statement.encode()

    def _following(self, step: PrivateGeneratorStep) -> Steps:
        def loss(state: TrainingState, batch: Batch, fake: Tensor, study: Study) -> tuple[Tensor, Tensor, Tensor]:
            # Nothing but 0 or NaN, by the public fake: the loop stops where a generator's output is not finite.
            zero = 0 * fake.detach().float().mean()
            return step.loss(state), zero, torch.zeros(())

        return Steps(_no_step, loss)

    def _matching(self) -> Steps:
        file = self._folder.state / NOISED_MEANS
        if file.exists():
            target = _read_means(file, self._run.name, self._device)
        else:
            paid = self._reserve()
            rate, how = self._plan.sampling_rate, _noised_as_reserved(paid)
            target = noised_means(self._patients, self._public, rate, how, self._random)
            _write_means(file, self._run.name, target)
            paid.commit(self._plan.steps)

        def loss(state: TrainingState, batch: Batch, fake: Tensor, study: Study) -> tuple[Tensor, Tensor, Tensor]:
            distance = means_loss(self._public, target, batch.given, fake)
            return distance, distance, torch.zeros(())

        return Steps(_no_step, loss)

    def _reserve(self) -> OpenReservation:
        budget = Budget(self._promise.epsilon, self._promise.delta, self._folder.budget)
        people = training_people(self._material.cohort, self._material.coins)
        # As the steps will be made: whatever is wrong with it is told before anything is spent.
        NoisedSum(self._promise.clip_norm, self._plan.noise_multiplier, self._plan.sampling_rate * len(people))
        return self._ledger.reserve(self._run, people, self._plan.once(), budget)


def _no_step(state: TrainingState, batch: Batch, fake: Tensor) -> Tensor:
    """The discriminator stands still."""
    return torch.zeros(())


def _noised_as_reserved(paid: OpenReservation) -> NoisedSum:
    """With the constants that the ledger holds, never counted anew (PRIVACY §0)."""
    return NoisedSum(paid.constants.clip_norm, paid.mechanism.noise_multiplier, paid.constants.expected_batch)


def _write_means(file: Path, run: str, target: TargetMeans) -> None:
    arrays = {"shift": target.shift.cpu().numpy(), "weight": target.weight.cpu().numpy()}
    write_atomic(file, encode(arrays, {"run": run}))


def _read_means(file: Path, run: str, device: Device) -> TargetMeans:
    """What was paid for. Raises DataError where it is damaged or of another run."""
    arrays, facts = decode(file.read_bytes(), f"file of noised means 'state/{file.name}'")
    if facts.get("run") != run or arrays.keys() != {"shift", "weight"}:
        raise DataError(
            f"noised means of another run in state/{file.name}",
            expected="those of this study and these roles",
            remedy="Remove the file: means are then taken, and paid for, again.",
        )
    return TargetMeans(*(device.tensor(torch.from_numpy(np.array(arrays[name]))) for name in ("shift", "weight")))
