"""How a site's round is trained: what starts it, what the generator sees, what each network learns from, what it costs.

Without a promise it is :class:`PlainTraining`; under one :class:`~.private_training.PrivateTraining`. The trainer asks
either the same questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ..common.cohorts.preparation import PreparedScans
from ..common.device import Device
from ..common.exchange import Parameters
from ..common.gan.generation import initial_parameters
from ..common.gan.public_start import PublicStart, read_public_start
from ..common.gan.training import (
    DiscriminatorStep,
    GeneratorLoss,
    Pairs,
    generator_loss,
    plain_discriminator_step,
)
from ..common.gan.training_state import TrainingState, new_state
from ..common.site_folder import PUBLIC_START, SiteFolder
from ..common.study import Study
from ..privacy.dp.statement import NONE


@dataclass(frozen=True)
class Steps:
    """What the networks learn from in a round."""

    discriminator: DiscriminatorStep
    generator: GeneratorLoss


class WayOfTraining(Protocol):
    """What the trainer asks."""

    @property
    def pairs(self) -> Pairs:
        """What the training loop shows the generator."""
        ...

    @property
    def resumable(self) -> bool:
        """Whether a round that was cut off goes on from where it was."""
        ...

    def fresh_state(self) -> TrainingState:
        """Networks and optimisers that a site begins with."""
        ...

    def initial(self) -> Parameters:
        """The generator of the first round, where none is sent."""
        ...

    def begin(self) -> Steps:
        """Begin a round; PolicyRefused where it may not be."""
        ...

    def end(self) -> None:
        """All of the round's steps were taken."""
        ...

    def metrics(self) -> Mapping[str, float]:
        """What a reply tells beside figures on fakes."""
        ...

    def statement(self) -> str:
        """What is promised of the site's own generator, for its file's header."""
        ...


@dataclass(frozen=True)
class PlainTraining:
    """Without a promise: on the site's own scans, cut off and gone on with as often as it takes.

    Attributes:
        pairs: The training patients' scans.
        study: What is trained.
        seed: Of the site's networks.
        device: Where.
        start: The public start that the study names; networks are freshly initialised without one.
    """

    pairs: PreparedScans
    study: Study
    seed: int
    device: Device
    start: PublicStart | None = None
    resumable: bool = True

    @classmethod
    def open(cls, folder: SiteFolder, study: Study, scans: PreparedScans, seed: int, device: Device) -> PlainTraining:
        """With the public start that lies in the site's folder, where the study names one.

        Raises:
            DataError, VerificationFailed: as :func:`.read_public_start`.
        """
        start = read_public_start(folder.root / PUBLIC_START, study) if study.from_public_start else None
        return cls(scans, study, seed, device, start)

    def fresh_state(self) -> TrainingState:
        """Freshly initialised, or the public start's networks."""
        return (
            self.start.state(self.study, self.device) if self.start else new_state(self.study, self.seed, self.device)
        )

    def initial(self) -> Parameters:
        """A function of the study alone."""
        return self.start.generator if self.start else initial_parameters(self.study)

    def begin(self) -> Steps:
        """The plain steps."""
        return Steps(plain_discriminator_step, generator_loss)

    def end(self) -> None:
        """Nothing is to be said of them."""

    def metrics(self) -> Mapping[str, float]:
        """Nothing."""
        return {}

    def statement(self) -> str:
        """That nothing is promised."""
        return NONE
