"""Who may sign at a site: people with a public key, a role and a last day; a site's policy lists them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..common.errors import ConfigError, SignatureInvalid
from ..common.keys import key_id, public_key_of
from ..common.one_line import ONE_LINE

SignerRole = Literal["compliance officer", "second person"]


@dataclass(frozen=True)
class Signer:
    """A person who may sign for a site.

    Attributes:
        name: Stays in the site's policy file; no release holds it.
        role: As what.
        key: The key's name in envelopes (64 hex).
        expires: The last day on which a signature by the key counts.
    """

    name: str
    role: SignerRole
    key: str
    expires: date

    def current(self, day: date) -> Self:
        """The same. Raises SignatureInvalid where the key expired before that day."""
        if self.expires < day:
            raise expired_key(self.key, self.role, self.expires.isoformat())
        return self


def expired_key(key: str, role: SignerRole, last_day: str) -> SignatureInvalid:
    """For a signature, made or to be made, after a key's last day (ISO 8601)."""
    return SignatureInvalid(
        f"the {role}'s key {key[:12]}…, which expired on {last_day}",
        expected="a signature on or before the key's last day",
        remedy="Write a new key, or a later day for this one, into the site's policy, and pack the release by it.",
    )


def nobody_signs() -> ConfigError:
    """For a policy of thresholds alone, where somebody has to sign."""
    return ConfigError(
        "a policy that lists nobody who may sign",
        expected="[[signer]] tables with name, role, key and expires",
        remedy="Add the compliance officer's; 'fedphantom release policy' writes a policy to start from.",
    )


class SignerTable(BaseModel):
    """A ``[[signer]]`` table of a policy file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=80), ONE_LINE]
    role: SignerRole
    key: str
    expires: date

    @field_validator("expires", mode="before")
    @classmethod
    def _is_a_day(cls, value: object) -> object:
        if not isinstance(value, date) or isinstance(value, datetime):
            raise ValueError("write the last day as 2027-12-31, without quotation marks")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            public_key_of(self.key.encode())
        except ValueError:
            raise ValueError("key: paste the whole text of a key.pub.pem (Ed25519), its two marked lines too") from None
        return self

    def signer(self) -> Signer:
        """The person."""
        return Signer(self.name, self.role, key_id(public_key_of(self.key.encode())), self.expires)


def signer_of(signers: Sequence[Signer], key: str) -> Signer:
    """Who signs with this key. Raises ConfigError where nobody may sign, SignatureInvalid where it is nobody's."""
    if not signers:
        raise nobody_signs()
    for signer in signers:
        if signer.key == key:
            return signer
    raise SignatureInvalid(
        f"the unknown key {key[:12]}…",
        expected="a key that the site's policy lists under [[signer]]",
        remedy="Sign with a listed key; a new person is first written into the policy that the release is packed by.",
    )
