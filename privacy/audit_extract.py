"""The part of an audit's result that travels with a release: verdict, table and controls.

Only figures about whole groups pass: an entry for each patient, were there one in the result, has
no place here.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..common.errors import DataError
from ..common.label_chain import Sha256
from .evidence import ReleaseKind
from .policy import Tier
from .statement import AuditClaim
from .verdict import Outcome

Word = Annotated[str, Field(max_length=120, pattern=r"^[^\x00-\x1f]*$")]
Sentence = Annotated[str, Field(max_length=800, pattern=r"^[^\x00-\x1f]*$")]
Figure = bool | int | float | None | Word | Annotated[tuple[float | None, ...], Field(max_length=2)]
Count = int | Annotated[dict[Word, int], Field(max_length=32)]


class _Extract(BaseModel):
    # What is not listed is left out, and not an error: the result file holds more than may travel.
    model_config = ConfigDict(extra="ignore", frozen=True)


class TprRow(_Extract):
    """True positives at one rate of false alarms."""

    fpr: float
    tpr: float
    ci: tuple[float, float] | None = None
    resolvable: bool | None = None
    fpr_bound: float | None = None


class AttackRow(_Extract):
    """One line of the attack table; intervals are (low, high)."""

    id: Word
    threat_model: Word
    auc: float | None
    auc_ci: tuple[float | None, float | None] | None = None
    tpr: float | Annotated[tuple[TprRow, ...], Field(max_length=8)] | None = None
    eps_lower_bound: float | None = None
    p_value: float | None = None


class ControlRow(_Extract):
    """One control: what it had to show, and what it showed."""

    id: Word
    required: Figure
    got: Figure
    ok: bool | None


class AuditExtract(_Extract):
    """``audit.json`` of a release; keys as ``audit run --json`` prints them."""

    verdict: Outcome
    tier: Tier
    release: ReleaseKind
    generator_sha256: Sha256
    attacks: tuple[AttackRow, ...] = Field(max_length=200)
    controls: tuple[ControlRow, ...] = Field(max_length=200)
    counts: Annotated[dict[Word, Count], Field(max_length=64)]
    reasons: Annotated[tuple[Sentence, ...], Field(max_length=64)] = ()

    def encode(self) -> bytes:
        """The file's bytes."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n").encode()


def read_audit(content: bytes) -> tuple[AuditExtract, AuditClaim]:
    """Parse an audit's result file.

    Returns:
        What travels, and what the release's statement says about the whole file.

    Raises:
        DataError: not a result as ``audit run`` writes it; the key is named, its value is not.
    """
    try:
        extract = AuditExtract.model_validate_json(content)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        raise DataError(
            f"an audit result whose '{first['loc'][0] if first['loc'] else 'content'}' cannot be used",
            expected="the result file of 'fedphantom audit run'",
            remedy="Give that file, or run the audit again.",
        ) from None
    digest = hashlib.sha256(content).hexdigest()
    return extract, AuditClaim(verdict=extract.verdict, tier=extract.tier, release=extract.release, sha256=digest)
