"""What coordinator and site exchange in a round; the only types both sides know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError

SITE_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}"
"""A site's public name: one that can name a folder everywhere."""

EPSILON, NOISED_STEPS = "epsilon", "noised_steps"
"""Metrics of a reply under differential privacy, of the site's own ledger: what the study has cost its patients so far,
and the noised steps behind it, broken-off ones included. Functions of public constants, and of who takes part in
several of the site's cohorts, which counts as public too (``docs/privacy.md``, "What it takes as public")."""

Parameters = Mapping[str, NDArray[np.float32]]
"""Generator parameters by name; nothing else travels."""


@dataclass(frozen=True)
class RoundRequest:
    """Coordinator to site.

    Attributes:
        study_digest: :meth:`Study.digest` of the study both sides hold.
        round: 1-based.
        generator: The aggregate to start from; empty where no weights travel: each site then starts from the study's
            own initial generator.
    """

    study_digest: str
    round: int
    generator: Parameters


@dataclass(frozen=True)
class RoundReply:
    """Site to coordinator.

    Attributes:
        site: The site's public name.
        round: As requested.
        generator: Raw parameters after local training (no EMA); empty where no weights leave.
        weight: Publicly declared; equal for all unless the study says otherwise. Never a patient count.
        metrics: Computed on fakes only; never a loss on real data (PRIVACY §2). With a promise, also :data:`EPSILON`
            and :data:`NOISED_STEPS`.
    """

    site: str
    round: int
    generator: Parameters
    weight: float
    metrics: Mapping[str, float]


class SiteTrainer(Protocol):
    """What the client does, as the server's simulation sees it."""

    def train_round(self, request: RoundRequest) -> RoundReply:
        """Train locally from the request's generator; repeatable after a kill at any moment."""
        ...


def check_site_name(name: str) -> None:
    """Refuse a site name that could not name a folder everywhere.

    Raises:
        ConfigError: not 1 to 32 letters, digits, hyphens or underscores, beginning with a letter or digit.
    """
    if not re.fullmatch(SITE_NAME, name):
        raise ConfigError(
            "a site name with other characters, or too long",
            expected="1 to 32 letters, digits, hyphens or underscores",
            remedy="Name the site like 'site-a'.",
        )
