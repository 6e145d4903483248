"""A site's training under differential privacy: budget first, then noised steps, then what was done of them.

The generator sees public label maps, the discriminator its site's patients through the noised step alone. A round is
paid for before its first step, whole; one that is cut off is begun anew and paid for again (PRIVACY §2).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..common.cohorts.preparation import PreparedScans
from ..common.device import Device
from ..common.gan.public_maps import PublicMaps, draw_public_maps
from ..common.gan.public_start import PUBLIC_START, PublicStart, read_public_start
from ..common.gan.training import DiscriminatorStep
from ..common.gan.training_state import TrainingState
from ..common.site_folder import SiteFolder
from ..common.study import Study
from ..privacy.dp.discriminator import PrivateDiscriminatorStep, check_discriminator, noised_parameters
from ..privacy.dp.patients import PrivatePatients
from ..privacy.dp.plan import NoisedPlan, noised_plan
from ..privacy.dp.randomness import SecretRandom
from ..privacy.dp.step import NoisedSum
