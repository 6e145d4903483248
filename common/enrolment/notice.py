"""A site's notice that it has left the study, signed with its identity key; the reason stays at the site."""

from __future__ import annotations

from ..in_toto import Time
from .signed_file import AboutStudy, Kind
from .site_keys import SiteName


class Notice(AboutStudy):
    """The signed file.

    Attributes:
        site: Its public name.
        withdrawn: Since when, by the site's clock.
    """

    site: SiteName
    withdrawn: Time


NOTICE = Kind("notice", Notice, "fedphantom site withdraw")
