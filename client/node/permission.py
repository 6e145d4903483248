"""Whether a site may answer a round now; asked before every one, whatever started it."""

from __future__ import annotations

from ...common.site_folder import SiteFolder
from .approval import refuse_unapproved
from .standing import refuse_absent


def check_permission(folder: SiteFolder) -> None:
    """Find that the site takes part and that exactly what runs now was approved.

    Raises:
        PolicyRefused: it paused or withdrew, nobody approved, or something changed since.
        ConfigError, VerificationFailed: what it would be judged by cannot be read or was edited.
    """
    refuse_absent(folder)
    refuse_unapproved(folder)
