"""A site's release policy: three tiers of thresholds, each changeable only with a recorded reason, and who may sign.

Source of the thresholds: PRIVACY §5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..common.errors import ConfigError, about
from ..common.misfit import first_misfit
from ..common.one_line import ONE_LINE
from ..common.toml_text import parse_toml
from .signers import Signer, SignerTable

Tier = Literal["internal", "controlled", "public"]

FEWEST_FOR_PUBLIC = 3
"""A structure that fewer training patients carry blocks publication, and no reason overrides that."""


@dataclass(frozen=True)
class OverrideReason:
    """Why a threshold is not its tier's.

    Attributes:
        reason: In a sentence.
        by: Who decided.
        on: The day, ISO 8601.
    """

    reason: str
    by: str
    on: str


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
        label_carriers_min: Fewest training patients who may carry a structure of the study, unless nobody does.
        reasons: Overridden key to the recorded reason; empty for the defaults.
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
    label_carriers_min: int | None
    reasons: Mapping[str, OverrideReason]


@dataclass(frozen=True)
class SitePolicy:
    """A site's policy file: by which thresholds it judges, and whose signatures let a release leave.

    Attributes:
        thresholds: Of its tier, with its overrides.
        signers: Who may sign for the site.
        second_person: Whether the compliance officer's approval needs a second person's beside it.
        sha256: Of the file.
    """

    thresholds: ReleasePolicy
    signers: tuple[Signer, ...]
    second_person: bool
    sha256: str


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
        label_carriers_min=None,
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
        label_carriers_min=10,
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
        label_carriers_min=10,
        reasons={},
    ),
}

DEFAULT_TIER: Tier = "controlled"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Threshold(_Table):
    value: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    reason: Annotated[str, Field(min_length=10, max_length=500), ONE_LINE]
    by: Annotated[str, Field(min_length=2, max_length=80), ONE_LINE]
    on: date


class _Share(_Threshold):
    value: Annotated[float, Field(ge=0, le=1)]


class _Auc(_Threshold):
    value: Annotated[float, Field(ge=0.5, le=1)]


class _Count(_Threshold):
    # 20 is no default of a tier but the fewest on which any statistic is read (PRIVACY §3.4).
    value: Annotated[int, Field(ge=20)]


class _Carriers(_Threshold):
    value: Annotated[int, Field(ge=1)]


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
    label_carriers_min: _Carriers | None = None


class _PolicyFile(_Table):
    tier: Tier = DEFAULT_TIER
    second_person: bool = False
    signer: tuple[SignerTable, ...] = ()
    override: _Overrides = _Overrides()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, threshold in self.override:
            if threshold is not None and len(threshold.reason.split()) < 2:
                raise ValueError(f"override.{name}.reason: say why, in a sentence")
        carriers = self.override.label_carriers_min
        if self.tier == "public" and carriers is not None and carriers.value < FEWEST_FOR_PUBLIC:
            raise ValueError(f"override.label_carriers_min.value: at least {FEWEST_FOR_PUBLIC} for publication")
        people = [row.signer() for row in self.signer]
        roles, keys = {signer.role for signer in people}, [signer.key for signer in people]
        if len(set(keys)) < len(keys):
            raise ValueError("signer: one key listed twice; every person has one of their own, and one role")
        if people and "compliance officer" not in roles:
            raise ValueError("signer: nobody has the role 'compliance officer'")
        if self.second_person and "second person" not in roles:
            raise ValueError("second_person = true, and no signer with the role 'second person'")
        return self


MOST_CHARACTERS = 1 << 15
"""Of a policy: dozens of signers. A longer text could keep its reader busy for minutes, with nothing that counts."""


def parse_policy(text: str) -> SitePolicy:
    """Parse a policy file: a tier, ``[override.KEY]`` tables, and who may sign.

    ::

        tier = "controlled"
        second_person = true             # the officer's signature alone is not enough
        [[signer]]
        name = "A. Berg"                 # stays in this file
        role = "compliance officer"      # or "second person"
        expires = 2027-12-31             # last day on which a signature by this key counts
        key = '''
        -----BEGIN PUBLIC KEY-----
        …
        -----END PUBLIC KEY-----
        '''
        [override.auc_upper_max]
        value = 0.70
        reason = "data use agreement 12/2026 forbids linkage"
        by = "board of the biobank"
        on = 2026-11-20

    Raises:
        ConfigError: not TOML, an unknown key, a value out of range, an override without why, who and when, or signers
            who cannot give the approval that it asks for.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(
            f"a policy of {len(text)} characters",
            expected=f"at most {MOST_CHARACTERS}",
            remedy="Give the policy's own file; 'fedphantom release policy' writes one to start from.",
        )
    try:
        file = _PolicyFile.model_validate(parse_toml(text))
    except ValidationError as error:
        misfit = first_misfit(error)
        raise ConfigError(
            (f"policy key '{misfit.key}'" if misfit.key else "the policy") + misfit.found,
            expected=misfit.expected,
            remedy="Mend it; a policy holds tier, second_person, [[signer]] tables with name, role, key and expires,"
            " and [override.KEY] tables with a value, a reason of a few words, by (who) and on (the day).",
        ) from None
    except ValueError:
        raise ConfigError("the policy is not valid TOML", expected="TOML 1.0", remedy="Mend the file.") from None
    if not file.model_fields_set:
        raise ConfigError(
            "a policy file that says nothing",
            expected="a tier, or more",
            remedy="Write one with 'fedphantom release policy', or leave it out for the controlled tier.",
        )
    changed = {name: threshold for name, threshold in file.override if threshold is not None}
    thresholds = replace(
        TIERS[file.tier],
        **{name: threshold.value for name, threshold in changed.items()},
        reasons={name: OverrideReason(t.reason, t.by, t.on.isoformat()) for name, t in changed.items()},
    )
    signers = tuple(row.signer() for row in file.signer)
    return SitePolicy(thresholds, signers, file.second_person, hashlib.sha256(text.encode()).hexdigest())


def read_policy(path: Path) -> SitePolicy:
    """The policy in a file. Raises ConfigError as :func:`parse_policy`."""
    try:
        with path.open("rb") as file:
            text = file.read(4 * MOST_CHARACTERS + 1).decode()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            f"no readable policy file '{path.name}'",
            expected="a UTF-8 TOML file",
            remedy="Check its name; 'fedphantom release policy' writes one to start from.",
        ) from None
    with about(f"policy '{path.name}'"):
        return parse_policy(text)


def read_thresholds(path: Path | None) -> ReleasePolicy:
    """The thresholds of a policy file, or the default tier's for None. Raises ConfigError as :func:`parse_policy`."""
    return TIERS[DEFAULT_TIER] if path is None else read_policy(path).thresholds
