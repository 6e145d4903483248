"""An invitation: what a coordinator sends a hospital, signed, with a last moment and for one enrolment.

Whoever receives it has no earlier trust in the key that signed it. The signature shows that nobody changed the file;
whose key it is, two people find out by reading its fingerprint to each other.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from ..errors import ConfigError, SignatureInvalid
from ..in_toto import Time, time_text
from ..study import Study, parse_study
from .address import Address
from .certificates import authority_of
from .fingerprint import fingerprint
from .signed_file import AboutStudy, Kind, opened_by_own_key, read_content
from .site_keys import IdentityKey, SiteName


def _address(text: str) -> str:
    if str(Address.parse(text)) != text:
        raise ValueError("another spelling of the address")
    return text


def _authority(text: str) -> str:
    authority_of(text.encode())
    return text


Token = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""32 random bytes; who has them may enrol once."""


class Invitation(AboutStudy):
    """What it says.

    Attributes:
        study_name: The study's own.
        study: Its whole TOML text, as the coordinator has it.
        site: The public name that the hospital gets.
        address: ``host:port`` of the fleet endpoint.
        authority: PEM of the certificate that the endpoint's own is signed by.
        coordinator_key: PEM of the Ed25519 key that signed this, and will sign rosters.
        token: For one enrolment.
        issued: When.
        expires: The last moment at which it can be used.
    """

    study_name: str
    study: str
    site: SiteName
    address: Annotated[str, AfterValidator(_address)]
    authority: Annotated[str, AfterValidator(_authority)]
    coordinator_key: IdentityKey
    token: Token
    issued: Time
    expires: Time

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            study = parse_study(self.study)
        except ConfigError:
            raise ValueError("its study does not hold") from None
        if (study.name, study.digest()) != (self.study_name, self.study_digest):
            raise ValueError("its study is another than its name and digest say")
        if self.issued >= self.expires:
            raise ValueError("it expires before it begins")
        return self

    def parsed_study(self) -> Study:
        """The study."""
        return parse_study(self.study)

    def fingerprint(self) -> str:
        """Of the coordinator's key: what the coordinator reads out."""
        return coordinator_fingerprint(self.coordinator_key)

    def refuse_expired(self, now: datetime) -> None:
        """Raise SignatureInvalid after its last moment."""
        if self.expires < time_text(now):
            raise SignatureInvalid(
                f"an invitation that expired on {self.expires[:10]}",
                expected=f"one that is valid now, {time_text(now)} by this machine's clock",
                remedy="Ask the coordinator for a new one ('fedphantom server invite'); if the clock is wrong, set it.",
            )


INVITATION_FILE = "invitation.dsse.json"
"""In the folder of a site that came by it."""

INVITATION = Kind("invitation", Invitation, "fedphantom server invite")


def coordinator_fingerprint(key: str) -> str:
    """Of a coordinator's public key, PEM."""
    return fingerprint("coordinator", key.encode())


def open_invitation(content: bytes) -> Invitation:
    """An invitation by whoever holds the key in it.

    Raises:
        SignatureInvalid: it was changed, or is no signed file.
        ConfigError: another kind of file.
    """
    return opened_by_own_key(INVITATION, content, ("coordinator_key",))


def read_invitation(path: Path) -> tuple[Invitation, bytes]:
    """The same from a file, and the file's bytes. Raises ConfigError also where it cannot be read."""
    content = read_content(path, INVITATION)
    return open_invitation(content), content
