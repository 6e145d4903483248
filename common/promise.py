"""The formal promise that a study makes to every patient, and how its noised steps are taken (PRIVACY §0, §1)."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Annotated, Final, Literal

from pydantic import Field

from .study_table import Positive, StudyTable

Noised = Literal["norms", "head", "all"]
"""Which of the discriminator's parameters patients may move: the scales and shifts of its norms and the bias of its
head; its head; all. The fewer, the less noise (PRIVACY §1.4)."""


class PromiseTable(StudyTable):
    """``[privacy.promise]``: what a site's whole part in the study may cost one of its patients, and the steps."""

    epsilon: float = Field(gt=0, le=100)
    """Of a site's patient, over all rounds, the spare ones among them."""
    delta: float = Field(gt=0, lt=1)
    """Below 1/n at every site, or the site refuses; 1/(10·n) is usual."""
    sampling_rate: float = Field(default=1.0, gt=0, le=1)
    """q: each patient's probability to take part in a noised step, by itself (Poisson)."""
    clip_norm: float = Field(default=1.0, gt=0)
    noised: Noised = "norms"
    discriminator_steps: Positive = 5
    """Noised steps for each step of the generator."""
    spare_rounds: int = Field(default=1, ge=0, le=1000)
    """Rounds that a site may have to begin anew, after a power cut for example: their noised steps are paid for twice,
    and the noise is chosen so that the promise holds with them."""

    sites_overlap: bool = False
    """Whether a patient may be known at several sites, so that what the sites cost a patient adds up."""

    def over_sites(self, epsilons: Collection[float]) -> float:
        """ε of the study from those of its sites: the largest, or their sum where patients may be at several.

        Disjoint patients compose in parallel (PRIVACY §2).
        """
        return math.fsum(epsilons) if self.sites_overlap else max(epsilons, default=0.0)

    def noised_steps(self, local_steps: int) -> int:
        """Noised steps that a site takes in a round of so many steps of the generator."""
        return local_steps * self.discriminator_steps


UNIT: Final = "patient"
ADJACENCY: Final = "add or remove one patient with all scans; numbers of patients are public constants (zero-out)"
SAMPLING: Final = "Poisson"

Start = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of a public start file (:mod:`.gan.public_start`)."""
