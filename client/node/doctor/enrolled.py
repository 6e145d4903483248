"""Whether a site stands enrolled with keys that are its own alone, and for how long."""

from __future__ import annotations

import stat
from datetime import datetime
from pathlib import Path

from ....common.keys import PRIVATE_KEY_NAME
from ....common.site_folder import SiteFolder
from ....privacy.dp.ledger import SECRET
from ..folder import NodeFolder
from ..joining import accepted_roster, open_enrolled
from ..keys import IDENTITY, NODE, present_keys
from .finding import Outcome, green, red, yellow
from .reach import SOON


def check_enrolment(folder: SiteFolder, now: datetime) -> Outcome:
    """Whether the site's own keys stand on the roster that it accepted, and until when.

    Raises:
        ConfigError: it did not join yet, or a key cannot be read.
        SignatureInvalid: its roster or invitation was changed.
        VerificationFailed: the roster is another study's.
    """
    site, node, invitation = open_enrolled(folder.root)
    roster, keys = accepted_roster(node, invitation), present_keys(node)
    own = next((one for one in roster.sites if one.name == site.name), None)
    if own is None or keys is None or own.keys() != keys.public(site.name):
        return red(
            f"roster number {roster.serial} does not name the keys in this folder",
            "Join by the newest roster, or ask the coordinator which request was granted.",
        )
    said = f"roster number {roster.serial} names this site until {own.expires[:10]}"
    renew = "Run 'fedphantom site renew', and send the coordinator the request that it writes."
    if not own.active(now):
        return red(f"{said}: expired", "Ask the coordinator to revoke this site and invite it again.")
    return yellow(said, renew) if datetime.fromisoformat(own.expires) - now < SOON else green(said)


def check_key_files(folder: SiteFolder) -> Outcome:
    """Whether private keys and secrets can be read by their owner alone."""
    node = NodeFolder(folder.root)
    secrets = [
        place / name for place in (node.keys, node.next_keys) for name in (NODE, f"{IDENTITY}/{PRIVATE_KEY_NAME}")
    ]
    secrets += [folder.ledger / SECRET, node.invitation, node.request(folder.name)]
    secrets += sorted(folder.masking.glob("*.json"))
    open_to_others = [path for path in secrets if path.exists() and _mode(path) & 0o077]
    if not (node.keys / NODE).exists():
        return red("no keys in the site's folder", "Run 'fedphantom site init' with the invitation.")
    if open_to_others:
        return red(
            f"others on this machine may read {', '.join(path.name for path in open_to_others)}",
            "Take their rights away (chmod go= FILE); if others had access, renew the keys ('fedphantom site renew').",
        )
    if _mode(folder.root) & 0o077:
        return yellow(
            "others on this machine may look into the site's folder", "Take their rights away (chmod go= FOLDER)."
        )
    return green("keys and secrets are their owner's alone")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
