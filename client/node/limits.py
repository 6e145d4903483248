"""What a site lets a study ask of it (``limits.toml``), whoever coordinates it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...common.atomic import write_atomic
from ...common.counted import counted
from ...common.errors import ConfigError, PolicyRefused
from ...common.federation import Sharing
from ...common.misfit import first_misfit
from ...common.study import Study
from ...common.toml_text import parse_toml

LIMITS_FILE = "limits.toml"

LIMITS_TEXT = """\
# What this site lets a study ask of it. A study beyond any of these cannot be approved, and an approved one stops
# where they are tightened later. Nothing here is told to the coordinator.
rounds = 200                            # rounds of a study, at most
local_steps = 5000                      # optimiser steps in a round, at most
patients = 10                           # training patients of this site, at least
sites = 2                               # sites in the study, and in each round (its quorum), at least
sharing = ["weights", "ensemble", "volumes"]  # what may leave at all
differential_privacy = false            # whether a study must promise it
secure_aggregation = false              # whether a study must hide this site's generator from the coordinator
epsilon = 10.0                          # ε that a promise may spend on this site's patients, at most
reply_mb = 512                          # size of a reply, at most
"""
"""The file that a new site starts from."""

_Count = Annotated[int, Field(ge=1, le=10_000_000)]


class SiteLimits(BaseModel):
    """The file's keys; none has a default, so that a file says all that it allows.

    Attributes:
        rounds: Most rounds of a study.
        local_steps: Most optimiser steps in a round.
        patients: Fewest training patients of this site.
        sites: Fewest sites of a study.
        sharing: What may leave.
        differential_privacy: Whether a study must promise it.
        secure_aggregation: Whether a study must hide this site's generator from its coordinator.
        epsilon: Most ε of a promise.
        reply_mb: Largest reply, in 10⁶ bytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    rounds: _Count
    local_steps: _Count
    patients: _Count
    sites: _Count
    sharing: Annotated[list[Sharing], Field(min_length=1, max_length=3)]
    differential_privacy: bool
    secure_aggregation: bool
    epsilon: Annotated[float, Field(gt=0)]
    reply_mb: _Count

    def refuse(self, study: Study, *, sites: Sequence[str], patients: int, reply_bytes: int) -> None:
        """Refuse a study that asks for more.

        Args:
            study: What is to be trained.
            sites: Names of those that take part.
            patients: Training patients of this site.
            reply_bytes: Size of this site's largest reply.

        Raises:
            PolicyRefused: names every limit that is passed.
        """
        promise = study.privacy.promise
        training = study.training
        beyond = [
            sentence
            for passed, sentence in (
                (training.rounds > self.rounds, f"{counted(training.rounds, 'round')} (at most {self.rounds})"),
                (
                    training.local_steps > self.local_steps,
                    f"{counted(training.local_steps, 'step')} a round (at most {self.local_steps})",
                ),
                (patients < self.patients, f"fewer training patients here than {self.patients}"),
                (len(sites) < self.sites, f"{counted(len(sites), 'site')} (at least {self.sites})"),
                (
                    study.federation.quorum < self.sites,
                    f"rounds of {counted(study.federation.quorum, 'site')} (at least {self.sites})",
                ),
                (
                    study.federation.sharing not in self.sharing,
                    f"sharing = '{study.federation.sharing}' (allowed: {', '.join(self.sharing)})",
                ),
                (self.differential_privacy and promise is None, "no differential privacy (required)"),
                (
                    self.secure_aggregation and study.federation.secure_aggregation is None,
                    "no secure aggregation (required)",
                ),
                (
                    promise is not None and promise.epsilon > self.epsilon,
                    f"ε = {promise.epsilon if promise else 0:g} (at most {self.epsilon:g})",
                ),
                (
                    reply_bytes > self.reply_mb * 1_000_000,
                    f"replies of {reply_bytes / 1e6:.0f} MB (at most {self.reply_mb})",
                ),
            )
            if passed
        ]
        if beyond:
            raise PolicyRefused(
                f"the study asks for more than this site allows: {'; '.join(beyond)}",
                expected=f"a study within the site's {LIMITS_FILE}",
                remedy="Ask the coordinator for another study, or have whoever answers for the site change them.",
            )


def write_first_limits(root: Path) -> None:
    """Write the file that a new site starts from; one that is there stays as it is."""
    if not (root / LIMITS_FILE).exists():
        write_atomic(root / LIMITS_FILE, LIMITS_TEXT.encode())


def read_limits(root: Path) -> SiteLimits:
    """The limits in a site's folder.

    Raises:
        ConfigError: there is no such file, or it does not hold exactly the keys of :class:`SiteLimits`.
    """
    try:
        return SiteLimits.model_validate(parse_toml((root / LIMITS_FILE).read_text(encoding="utf-8")))
    except ValidationError as error:
        misfit = first_misfit(error)
        found, expected = f"{LIMITS_FILE}: key '{misfit.key}'{misfit.found}", misfit.expected
    except (OSError, ValueError):
        found, expected = f"no readable {LIMITS_FILE} in the site's folder", "TOML, as 'fedphantom site init' writes it"
    raise ConfigError(found, expected=expected, remedy="Mend the file; it says what a study may ask of this site.")
