"""The roster: who takes part, with which keys, and whose keys no longer count; signed by the coordinator.

Sites believe of each other what is signed by an identity key that stands here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self

from pydantic import Field, model_validator

from ..in_toto import Record, Time, time_text
from .signed_file import AboutStudy, Kind
from .site_keys import SiteKeys, SiteName


class EnrolledSite(SiteKeys):
    """A site that takes part.

    Attributes:
        enrolled: When these keys were.
        expires: The last moment at which they count.
    """

    enrolled: Time
    expires: Time

    def active(self, now: datetime) -> bool:
        """Whether its keys count."""
        return time_text(now) <= self.expires

    def keys(self) -> SiteKeys:
        """Its name and keys alone."""
        return SiteKeys(name=self.name, node_key=self.node_key, identity_key=self.identity_key)


class RevokedKeys(Record):
    """Keys that no longer count.

    Attributes:
        name: Of the site that had them.
        fingerprint: Of its name and both keys.
        revoked: Since when.
    """

    name: SiteName
    fingerprint: str = Field(pattern=r"^[0-9A-HJKMNP-TV-Z]{5}(-[0-9A-HJKMNP-TV-Z]{5}){4}$")
    revoked: Time


class Roster(AboutStudy):
    """The signed file.

    Attributes:
        serial: Rises with every change.
        issued: When the last change was made.
        sites: By name, each name and each key once.
        revoked: In the order in which they were.
    """

    serial: Annotated[int, Field(ge=0, lt=2**53)]
    issued: Time
    sites: Annotated[tuple[EnrolledSite, ...], Field(max_length=1000)]
    revoked: Annotated[tuple[RevokedKeys, ...], Field(max_length=10_000)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [site.name for site in self.sites]
        if names != sorted(set(names)):
            raise ValueError("its sites are not sorted, or a name is given twice")
        if any(len(set(keys)) < len(keys) for keys in _columns(self.sites)):
            raise ValueError("two sites with one key")
        gone = {keys.fingerprint for keys in self.revoked}
        if any(site.fingerprint() in gone for site in self.sites):
            raise ValueError("a site with revoked keys")
        return self

    def active(self, now: datetime) -> dict[str, EnrolledSite]:
        """Name to site, of those whose keys count now, in the order of names."""
        return {site.name: site for site in self.sites if site.active(now)}


def _columns(sites: Sequence[SiteKeys]) -> tuple[list[str], list[str]]:
    return [site.node_key for site in sites], [site.identity_key for site in sites]


ROSTER = Kind("roster", Roster, "fedphantom server enroll")
