"""Whether a site may answer at all: its study readable, its limits kept, its approval standing, no pause."""

from __future__ import annotations

from ....common.errors import PolicyRefused
from ....common.site_folder import SiteFolder
from ...site_setup import read_egress_rule
from ..approval import refuse_unapproved
from ..limits import LIMITS_FILE, read_limits
from ..membership import read_membership
from ..standing import standing
from .finding import Outcome, green, red, yellow


def check_study(folder: SiteFolder) -> Outcome:
    """Whether the study can be read, and is the one that the roster names.

    Raises:
        ConfigError, SignatureInvalid: as :func:`.read_membership` and :meth:`.SiteFolder.study`.
    """
    study = folder.study()
    if study.digest() != read_membership(folder).study_digest:
        return red(
            "study.toml is not the study that the coordinator's roster names",
            "Restore it; or ask the coordinator for an invitation to the new study.",
        )
    return green(f"study '{study.name}', digest {study.digest()[:16]}, as the roster names it")


def check_limits(folder: SiteFolder) -> Outcome:
    """Whether the limits can be read and the study keeps to them; which are passed, the site alone is told.

    Raises:
        ConfigError: the limits or the egress rule cannot be read, or the site has not joined.
    """
    limits, sites = read_limits(folder.root), sorted(read_membership(folder).fingerprints)
    try:
        # The site's own patients are counted where it approves: a number here would be told to whoever reads this.
        limits.refuse(
            folder.study(), sites=sites, patients=limits.patients, reply_bytes=read_egress_rule(folder).max_bytes
        )
    except PolicyRefused:
        return red(
            f"the study asks for more than {LIMITS_FILE} allows",
            "Run 'fedphantom site approve' here: it says where, and refuses it.",
        )
    return green(f"{LIMITS_FILE} can be read, and the study keeps to it")


def check_approval(folder: SiteFolder) -> Outcome:
    """Whether exactly what would run was approved.

    Raises:
        PolicyRefused: it was not; says what changed.
        ConfigError, VerificationFailed: it cannot be told.
    """
    refuse_unapproved(folder)
    return green("exactly what would run was approved")


def check_standing(folder: SiteFolder) -> Outcome:
    """Whether the site takes part, has paused or withdrawn.

    Raises:
        VerificationFailed: its journal was edited.
    """
    match standing(folder):
        case "takes part":
            return green("takes part")
        case "paused":
            return yellow("paused: no round is answered", "'fedphantom site go-on' ends the pause.")
        case "withdrawn":
            return red("withdrawn, for good", "To take part again, begin a new folder with a new invitation.")
