"""A site's policy file to start from."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path

from ...common.atomic import write_atomic
from ...common.errors import ConfigError, OutputTaken
from ...common.keys import load_public_key
from ...common.storage import CHOOSE_ANOTHER, refuse_unwritable
from ..policy import SitePolicy, Tier, parse_policy

_NO_NAME = "to be filled in"


def write_policy(out: Path, tier: Tier, officer: Path, second_person: Path | None, expires: date) -> None:
    """Write a policy of a tier's own thresholds whose signers hold these public keys.

    Raises:
        OutputTaken: the file is there already.
        ConfigError: no readable key, one for both people, or a last day that is over.
        StorageError: it cannot be written.
    """
    refuse_unwritable(out.absolute().parent)
    if out.exists() or out.is_symlink():
        raise OutputTaken(f"'{out.name or out}' is there already", expected="a new file", remedy=CHOOSE_ANOTHER)
    if expires < datetime.now(UTC).date():
        raise ConfigError(
            f"a last day, {expires.isoformat()}, that is over",
            expected="a day on which somebody can still sign",
            remedy="Give a later day with --expires.",
        )
    people = {"compliance officer": officer, **({"second person": second_person} if second_person else {})}
    for key in people.values():
        load_public_key(key)
    signers = "".join(
        f"""
[[signer]]
name = "{_NO_NAME}"            # stays in this file
role = "{role}"
expires = {expires.isoformat()}                # last day on which a signature by this key counts
key = '''
{key.read_text(encoding="ascii").strip()}
'''
"""
        for role, key in people.items()
    )
    text = f"""# Whose signatures let a release leave this site, and by which thresholds its audit is judged.
tier = "{tier}"                       # internal, controlled or public: the widest readership that this site permits
second_person = {"true" if second_person else "false"}                  # whether the officer alone cannot approve
{signers}
# A threshold other than the tier's needs a reason, who decided and when; all three are signed with every release:
# [override.auc_upper_max]
# value = 0.70
# reason = "data use agreement forbids linkage"
# by = "board of the biobank"
# on = 2026-11-20
"""
    parse_policy(text)  # what is written can be read
    write_atomic(out, text.encode())


def unnamed_signers(policies: Iterable[SitePolicy]) -> tuple[str, ...]:
    """What to say of signers whose names nobody has written into the policy since :func:`write_policy` made it."""
    return tuple(
        f"Note: the policy {policy.sha256[:12]}… still names its {signer.role} '{_NO_NAME}'. The keys alone count, but"
        " who reads that file later cannot tell whose they were; a name written in now changes the policy's digest, and"
        " the release is then packed anew."
        for policy in policies
        for signer in policy.signers
        if signer.name == _NO_NAME
    )
