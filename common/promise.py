"""The formal promise that a study makes to every patient, and how its noised steps are taken (PRIVACY §0, §1)."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from .study_table import Positive, StudyTable

Noised = Literal["means", "generator-head", "norms", "head", "all"]
"""What a site's patients are asked for. ``means``: once, what each structure looks like on average, which the generator
then matches. ``generator-head``: at every step of the generator, how its last layer would come nearer to the patient's
scan, painted on the patient's own label map. The others: hundreds of gradients of the discriminator; of the scales and
shifts of its norms and the bias of its head, of its head, or of all of it. The fewer numbers and steps, the less noise
(PRIVACY §1.4)."""
DISCRIMINATING: Final[frozenset[Noised]] = frozenset({"norms", "head", "all"})
"""With which a discriminator learns from patients."""

HEAD_CLIP: Final = 0.05
"""The usual clip norm for ``generator-head``, whose gradients are short after a long public start."""

Fakes = Literal["own-label-maps", "public-label-maps"]
"""What a discriminator holds scans against. ``own-label-maps``: a fake of the patient's own label map, inside the one
clipped gradient. ``public-label-maps``: fakes of public ones, always as many, outside the clip, where it can win by
telling label maps apart (PRIVACY §1.3)."""
_OWN: Final[Fakes] = "own-label-maps"

SMALLEST_DELTA: Final = 1e-12
"""Below it no ε can be computed: the accountant cuts off tails of 1e-15 and more at each composition, and adds them to
δ; what is left of a smaller δ is its rounding."""
SMALLEST_RATE: Final = 1e-6
"""Below it nobody of a million patients is expected in a step, and an ε takes ever longer to compute."""
CLIP_NORMS: Final = (1e-6, 1e6)
"""Beyond them sums and noise leave what 32 bits can hold, which would show after the budget was spent."""
MOST_STEPS: Final = 1_000_000
"""Noised steps in all; to account for more takes minutes, and their noise would drown whatever there is."""

ACCOUNTANT: Final = "pld"
"""What computes ε: the whole privacy loss distribution (dp-accounting)."""
_REFUSED = {
    "gdp": "the Gaussian approximation, whose ε is always below the truth",
    "prv": "computed beside the official one as a cross-check, and fails on extreme input",
    "rdp": "computed beside the official one as a cross-check; its ε is valid but loose",
}


class PromiseTable(StudyTable):
    """``[privacy.promise]``: what a site's whole part in the study may cost one of its patients, and the steps."""

    epsilon: float = Field(gt=0, le=100)
    """Of a site's patient, over all rounds, the spare ones among them."""
    delta: float = Field(gt=0, lt=1)
    """Below 1/n at every site, or the site refuses; 1/(10·n) is usual."""
    sampling_rate: float = Field(default=1.0, ge=SMALLEST_RATE, le=1)
    """q: each patient's probability to take part in a noised step, by itself (Poisson)."""
    clip_norm: float = Field(default=1.0, ge=CLIP_NORMS[0], le=CLIP_NORMS[1])
    noised: Noised = "means"
    discriminator_steps: Positive = 5
    """Noised steps for each step of the generator, where the discriminator learns."""
    fakes: Fakes = Field(default=_OWN, exclude_if=lambda fakes: fakes == _OWN)
    """Where the discriminator learns. The usual choice stands in no digest, as if it were left out."""
    spare_rounds: int = Field(default=1, ge=0, le=1000)
    """How often a site may have to begin noised steps anew, after a power cut for example: they are paid for again, and
    the noise is chosen so that the promise holds with that."""

    accountant: Literal["pld"] = Field(default=ACCOUNTANT, exclude=True)
    """May be named and not chosen, so that no study's digest depends on whether it is."""

    @field_validator("accountant", mode="before")
    @classmethod
    def _refuse_others(cls, name: object) -> object:
        if name != ACCOUNTANT and isinstance(name, str):
            raise ValueError(f"the accountant '{name}' is {_REFUSED.get(name.lower(), 'unknown')}: leave it out")
        return name

    @field_validator("delta")
    @classmethod
    def _refuse_less_than_an_accountant_sees(cls, delta: float) -> float:
        if delta < SMALLEST_DELTA:
            raise ValueError(
                f"below {SMALLEST_DELTA:g}, where no ε can be computed: the accountant cuts off tails of 1e-15 at each"
                " composition; 1/(10·n) for n patients is usual"
            )
        return delta

    sites_overlap: bool = False
    """Whether a patient may be known at several sites, so that what the sites cost a patient adds up."""

    @model_validator(mode="after")
    def _refuse_fakes_without_discriminator(self) -> PromiseTable:
        if self.noised not in DISCRIMINATING and self.fakes != _OWN:
            raise ValueError(
                f"fakes = '{self.fakes}' with noised = '{self.noised}', which holds no scan against a fake"
            )
        return self

    def over_sites(self, epsilons: Collection[float]) -> float:
        """ε of the study from those of its sites: the largest, or their sum where patients may be at several.

        Disjoint patients compose in parallel (PRIVACY §2).
        """
        return math.fsum(epsilons) if self.sites_overlap else max(epsilons, default=0.0)

    def refuse_endless(self, rounds: int, local_steps: int) -> None:
        """Raise ValueError where a study takes more noised steps than can be accounted for."""
        _, most = self.noised_steps(rounds, local_steps)
        if most > MOST_STEPS:
            raise ValueError(
                f"training.rounds, training.local_steps, privacy.promise.spare_rounds: {most:,} noised steps in all,"
                f" of which {MOST_STEPS:,} can be accounted for"
            )

    def noised_steps(self, rounds: int, local_steps: int) -> tuple[int, int]:
        """Noised steps that a site takes at a time (of a round; of the whole study for means), and at most in all."""
        if self.noised == "means":
            return 1, 1 + self.spare_rounds
        steps = local_steps * (self.discriminator_steps if self.noised in DISCRIMINATING else 1)
        return steps, (rounds + self.spare_rounds) * steps


Start = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of a public start file (:mod:`.gan.public_start`)."""
