"""An audit's result file as a release reads it: parsed, its verdict held against its own figures."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import ValidationError

from ...common.errors import DataError
from ..approving_site import overrides_of
from ..finding import finding
from ..statement import AuditClaim
from .extract import AuditExtract
from .recomputation import policy_of, refuse_better, with_rejections
from .small_cells import travelling


def read_audit(content: bytes) -> tuple[AuditExtract, AuditClaim]:
    """Parse an audit's result file.

    Returns:
        The part of it that a release is about, small numbers still in it, and what the release's statement says of the
        whole file.

    Raises:
        DataError: not a result as ``audit run`` writes it; the key is named, its value is not.
        VerificationFailed: its verdict is better than its own figures allow.
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
    refuse_better(
        extract,
        "an audit result",
        expected="the result file as 'fedphantom audit run' left it",
        remedy="Give that file, or run the audit again.",
    )
    policy = policy_of(extract)
    claim = AuditClaim(
        verdict=extract.verdict,
        tier=extract.tier,
        release=extract.release,
        finding=finding(with_rejections(travelling(extract)), extract.release),
        sha256=hashlib.sha256(content).hexdigest(),
        overrides=overrides_of(vars(policy), policy.reasons),
    )
    return extract, claim
