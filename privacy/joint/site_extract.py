"""A site's own audit as it leaves the site: figures about groups, signed by the compliance officer.

What is in it is what may travel of an audit (:mod:`..audit.small_cells`): no score and no coin of a patient, no number
of patients under twenty. Instead of a variance each AUC has its interval's two ends, which keep its skew.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Final

from pydantic import Field

from ...common.enrolment.signed_file import AboutStudy, Kind, opened_by_own_key
from ...common.enrolment.site_keys import IdentityKey
from ...common.errors import SignatureInvalid
from ...common.keys import key_id, public_key_of
from ...common.labels.chain import Sha256
from ..audit.extract import AuditExtract, Word

FEWEST_TOLD: Final = 10
"""Training patients of one site from whom on it says that they carry a structure (PRIVACY §5)."""


class SiteExtract(AboutStudy):
    """What the officer signs.

    Attributes:
        officer_key: PEM of the key that signed it: one of those that the study names.
        parameters: Digest of the audited generator's parameters.
        result_sha256: Of the audit's whole result file, which stays at the site and stands in its journal.
        carried: Structures that ten training patients of this site or more carry, by name; of others nothing is told.
        audit: What may travel of the result.
    """

    officer_key: IdentityKey
    parameters: Sha256
    result_sha256: Sha256
    carried: Annotated[tuple[Word, ...], Field(max_length=256)]
    audit: AuditExtract

    def key(self) -> str:
        """The officer's key by its name in envelopes."""
        return key_id(public_key_of(self.officer_key.encode()))


SITE_EXTRACT = Kind("audit-extract", SiteExtract, "fedphantom audit share")


def open_extract(content: bytes, approval_keys: Collection[str]) -> SiteExtract:
    """An extract that one of the study's officers signed.

    Raises:
        SignatureInvalid: it was changed, or the study does not name its key.
        ConfigError: another kind of file.
        DataError: an audit by another battery of attacks than this program's.
    """
    found = opened_by_own_key(SITE_EXTRACT, content, ("officer_key",))
    refuse_stranger(found.key(), approval_keys)
    return found


def refuse_stranger(key: str, approval_keys: Collection[str]) -> None:
    """Raise SignatureInvalid for a key that the study does not name."""
    if key not in approval_keys:
        raise SignatureInvalid(
            f"the key {key[:12]}…, which the study does not name",
            expected="the key of a site's compliance officer under federation.approval_keys",
            remedy="Sign with that key; a study that names other people is another study.",
        )
