"""A site whose approval a release needs: by whose keys, by which policy. Signed with the release; it names nobody."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import date
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..common.labels.chain import Sha256
from ..common.one_line import ONE_LINE
from .policy import TIERS, OverrideReason, SitePolicy, Tier
from .signers import SignerRole, nobody_signs

Day = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
_Said = Annotated[str, Field(min_length=1, max_length=500), ONE_LINE]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Override(_Record):
    """A threshold that is not its tier's, and why, by whom and when it was changed."""

    threshold: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")]
    value: bool | int | float
    reason: _Said
    by: _Said
    on: Day


class NamedSigner(_Record):
    """A key that may approve for the site: its name in envelopes, its holder's role, its last day."""

    key: Sha256
    role: SignerRole
    expires: Day


class ApprovingSite(_Record):
    """One contributing site, as the signed statement knows it.

    Attributes:
        policy_sha256: Of the site's policy file.
        tier: The policy's.
        second_person: Whether the officer's approval needs a second person's beside it.
        signers: Who may give them.
        overrides: Where the policy departs from its tier.
    """

    policy_sha256: Sha256
    tier: Tier
    second_person: bool
    signers: tuple[NamedSigner, ...] = Field(min_length=1, max_length=64)
    overrides: tuple[Override, ...] = Field(default=(), max_length=16)

    @model_validator(mode="after")
    def _check(self) -> Self:
        keys = [signer.key for signer in self.signers]
        if keys != sorted(set(keys)):
            raise ValueError("signers are not sorted by key, or one is listed twice")
        if not self.roles_needed() <= {signer.role for signer in self.signers}:
            raise ValueError("nobody can give an approval that is needed")
        return self

    @classmethod
    def of(cls, policy: SitePolicy, day: date) -> Self:
        """From a site's policy; keys that expired before that day are left out.

        Raises:
            ConfigError: the policy lists nobody who may sign.
            SignatureInvalid: every key of a role whose approval it asks for has expired.
        """
        for role in _roles_needed(policy.second_person):
            holders = sorted((s for s in policy.signers if s.role == role), key=lambda s: s.expires)
            if not holders:
                raise nobody_signs()
            holders[-1].current(day)
        signers = [s for s in policy.signers if s.expires >= day]
        return cls(
            policy_sha256=policy.sha256,
            tier=policy.thresholds.tier,
            second_person=policy.second_person,
            signers=tuple(
                NamedSigner(key=s.key, role=s.role, expires=s.expires.isoformat())
                for s in sorted(signers, key=lambda s: s.key)
            ),
            overrides=overrides_of(asdict(policy.thresholds), policy.thresholds.reasons),
        )

    def label_carriers_min(self) -> float | None:
        """Fewest training patients who may carry a structure, by the site's policy."""
        changed = [override.value for override in self.overrides if override.threshold == "label_carriers_min"]
        return changed[0] if changed else TIERS[self.tier].label_carriers_min

    def roles_needed(self) -> set[SignerRole]:
        """Roles of which one signature each makes the site's approval."""
        return _roles_needed(self.second_person)

    def missing(self, keys: Collection[str]) -> tuple[SignerRole, ...]:
        """Roles by which nobody has signed, where these keys have."""
        given = {signer.role for signer in self.signers if signer.key in keys}
        return tuple(sorted(self.roles_needed() - given))


def overrides_of(values: Mapping[str, object], reasons: Mapping[str, OverrideReason]) -> tuple[Override, ...]:
    """The thresholds among these values that have a reason."""
    return tuple(
        Override.model_validate({"threshold": name, "value": values[name], **asdict(why)})
        for name, why in sorted(reasons.items())
        if values.get(name) is not None
    )


def _roles_needed(second_person: bool) -> set[SignerRole]:
    return {"compliance officer", "second person"} if second_person else {"compliance officer"}
