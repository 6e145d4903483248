"""A site's release policy: three tiers of thresholds, each changeable only with a recorded reason (PRIVACY §5)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..common.errors import ConfigError
from ..common.misfit import first_misfit

Tier = Literal["internal", "controlled", "public"]


@dataclass(frozen=True, kw_only=True)
class ReleasePolicy:
    """Thresholds of one tier. None: the figure is reported and bounds nothing.

    Attributes:
        tier: Who gets the release.
        formal_epsilon_max: Patient-level ε that the tier asks for.
        formal_epsilon_binds: Whether a formal promise is required; an override to false records why it is waived.
        auc_upper_max: τ: every binding attack's U95(AUC) lies at or below it.
        attacks_must_not_reject: Whether an attack that rejects "no leak" after Holm fails the release.
        tpr_lower_max: Bound on the lower Clopper-Pearson limit of the TPR where no holdout patient is flagged.
        outlier_auc_upper_max: τ of the most isolated quartile.
        linkage_upper_max: Bound on the upper 95 % Clopper-Pearson limit of the share of members whose scan is copied.
            Links short of a copy are not measured.
        min_holdout: Fewest holdout patients for this tier.
        reasons: Overridden key to the reason given; empty for the defaults.
    """

    tier: Tier
    formal_epsilon_max: float | None
    formal_epsilon_binds: bool
    auc_upper_max: float | None
    attacks_must_not_reject: bool
    tpr_lower_max: float | None
    outlier_auc_upper_max: float | None
    linkage_upper_max: float
    min_holdout: int
    reasons: Mapping[str, str]


TIERS: dict[Tier, ReleasePolicy] = {
    "internal": ReleasePolicy(
        tier="internal",
        formal_epsilon_max=None,
        formal_epsilon_binds=False,
        auc_upper_max=None,
        attacks_must_not_reject=False,
        tpr_lower_max=None,
        outlier_auc_upper_max=None,
        linkage_upper_max=0.09,
        min_holdout=20,
        reasons={},
    ),
    "controlled": ReleasePolicy(
        tier="controlled",
        formal_epsilon_max=8.0,
        formal_epsilon_binds=False,
        auc_upper_max=0.65,
        attacks_must_not_reject=True,
        tpr_lower_max=0.05,
        outlier_auc_upper_max=0.75,
        linkage_upper_max=0.09,
        min_holdout=50,
        reasons={},
    ),
    "public": ReleasePolicy(
        tier="public",
        formal_epsilon_max=3.0,
        formal_epsilon_binds=True,
        auc_upper_max=0.60,
        attacks_must_not_reject=True,
        tpr_lower_max=0.02,
        outlier_auc_upper_max=0.70,
        linkage_upper_max=0.09,
        min_holdout=104,
        reasons={},
    ),
}

DEFAULT_TIER: Tier = "controlled"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Threshold(_Table):
    value: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    reason: Annotated[str, Field(min_length=10)]


class _Share(_Threshold):
    value: Annotated[float, Field(ge=0, le=1)]


class _Auc(_Threshold):
    value: Annotated[float, Field(ge=0.5, le=1)]


class _Count(_Threshold):
    # 20 is no default of a tier but the fewest on which any statistic is read (PRIVACY §3.4).
    value: Annotated[int, Field(ge=20)]


class _Waiver(_Threshold):
    # A tier's requirement can be waived by a person, not invented.
    value: Literal[False]


class _Overrides(_Table):
    formal_epsilon_max: _Threshold | None = None
    formal_epsilon_binds: _Waiver | None = None
    auc_upper_max: _Auc | None = None
    tpr_lower_max: _Share | None = None
    outlier_auc_upper_max: _Auc | None = None
    linkage_upper_max: _Share | None = None
    min_holdout: _Count | None = None


class _PolicyFile(_Table):
    tier: Tier = DEFAULT_TIER
    override: _Overrides = _Overrides()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, threshold in self.override:
            if threshold is not None and len(threshold.reason.split()) < 2:
                raise ValueError(f"override.{name}.reason: say why, in a sentence")
        return self


def parse_policy(text: str) -> ReleasePolicy:
    """Parse a policy file: a tier, and ``[override.KEY]`` tables of ``value`` and ``reason``.

    ::

        tier = "controlled"
        [override.auc_upper_max]
        value = 0.70
        reason = "data use agreement 12/2026 forbids linkage; approved by the board"

    Raises:
        ConfigError: not TOML, an unknown key, a value out of range, or an override without a reason.
    """
    try:
        file = _PolicyFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        raise ConfigError(
            "the policy is not valid TOML", expected="TOML 1.0", remedy="Mend the file, or leave it out."
        ) from None
    except ValidationError as error:
        misfit = first_misfit(error)
        raise ConfigError(
            (f"policy key '{misfit.key}'" if misfit.key else "the policy") + misfit.found,
            expected=misfit.expected,
            remedy="Mend it; a policy holds tier, and [override.KEY] tables with a value and a reason of a few words.",
        ) from None
    policy = TIERS[file.tier]
    changed = {name: threshold for name, threshold in file.override if threshold is not None}
    return replace(
        policy,
        **{name: threshold.value for name, threshold in changed.items()},
        reasons={name: threshold.reason for name, threshold in changed.items()},
    )


def read_policy(path: Path | None) -> ReleasePolicy:
    """The policy in a file, or the default tier for None. Raises ConfigError as :func:`parse_policy`."""
    if path is None:
        return TIERS[DEFAULT_TIER]
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            f"no readable policy file '{path.name}'",
            expected="a UTF-8 TOML file",
            remedy="Check its name, or leave it out for the controlled tier.",
        ) from None
    return parse_policy(text)
