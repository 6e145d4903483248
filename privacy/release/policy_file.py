"""A site's policy file to start from."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from ...common.atomic import write_atomic
from ...common.errors import OutputTaken
from ...common.keys import load_public_key
from ...common.storage import CHOOSE_ANOTHER, refuse_unwritable
from ..policy import Tier, parse_policy


def write_policy(out: Path, tier: Tier, officer: Path, second_person: Path | None, expires: date) -> None:
    """Write a policy of a tier's own thresholds whose signers hold these public keys.

    Raises:
        OutputTaken: the file is there already.
        ConfigError: no readable key, or one for both people.
        StorageError: it cannot be written.
    """
    refuse_unwritable(out.absolute().parent)
    if out.exists() or out.is_symlink():
        raise OutputTaken(f"'{out.name or out}' is there already", expected="a new file", remedy=CHOOSE_ANOTHER)
    people = {"compliance officer": officer, **({"second person": second_person} if second_person else {})}
    for key in people.values():
        load_public_key(key)
    signers = "".join(
        f"""
[[signer]]
name = "to be filled in"            # stays in this file
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
