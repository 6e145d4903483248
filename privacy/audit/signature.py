"""By whose key an audit's result was signed as the audit ended: small files beside it, which anyone can check.

A result is JSON that anybody can write, and a journal is a file that whoever may write at a site can add a line to. A
signature is neither: it takes the key of the one who had the attacks run, and is given by the process that ran them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...common.atomic import write_atomic
from ...common.enrolment.signed_file import LARGEST, AboutStudy, Kind, opened_by_own_key, signed
from ...common.enrolment.site_keys import IdentityKey, identity_pem
from ...common.errors import PolicyRefused, SignatureInvalid, about
from ...common.in_toto import Time, content_within, time_text
from ...common.keys import key_id, public_key_of
from ...common.labels.chain import Sha256
from ...common.signing import unverified

ENDING: Final = ".signed.dsse.json"
NO_LAST_DAY: Final = "9999-12-31"
"""Of a key that a study names: it has none."""
AGAIN: Final = "Run the audit again with 'fedphantom audit run --key', by the key of this site's compliance officer."
"""The remedy: nobody signs an audit that they did not run."""


class SignedResult(AboutStudy):
    """What is signed.

    Attributes:
        auditor_key: PEM of the key that signed it; whose it is, a site's policy says.
        result_sha256: Of the audit's whole result file, which names generator, volumes, scans and program by theirs.
        time: UTC, ISO 8601, seconds, by the signer's clock.
    """

    auditor_key: IdentityKey
    result_sha256: Sha256
    time: Time


SIGNED_RESULT = Kind("audit-result", SignedResult, "fedphantom audit run --key")


def sign_result(result: Path, study_digest: str, keys: Sequence[Ed25519PrivateKey]) -> None:
    """Write each key's signature beside a result file. Raises StorageError where that cannot be."""
    digest, now = hashlib.sha256(result.read_bytes()).hexdigest(), time_text(datetime.now(UTC))
    for key in keys:
        said = SignedResult(
            study_digest=study_digest, auditor_key=identity_pem(key.public_key()), result_sha256=digest, time=now
        )
        name = f"{result.stem}.{key_id(key.public_key())[:16]}{ENDING}"
        write_atomic(result.with_name(name), signed(SIGNED_RESULT, said, key))


def signed_by(result: str, folder: Path) -> dict[str, str]:
    """Whose signatures of a result lie in a folder.

    Args:
        result: SHA-256 of the result file.
        folder: In which it lies.

    Returns:
        Key id to the time of signing; none where nobody signed it. Signatures of other results are passed over.

    Raises:
        SignatureInvalid: one that names this result and does not hold.
    """
    found = {}
    for file in sorted(folder.glob(f"*{ENDING}")):
        content = content_within(file, LARGEST)
        if content is None or not _names(content, result):
            continue
        with about(file.name):
            said = opened_by_own_key(SIGNED_RESULT, content, ("auditor_key",))
        if said.result_sha256 == result:
            found[key_id(public_key_of(said.auditor_key.encode()))] = said.time
    return found


def refuse_unsigned(signatures: Mapping[str, str], trusted: Mapping[str, str]) -> str:
    """Find that an audit is signed by one of these keys, on or before its last day; returns which.

    Args:
        signatures: Key id to time, as :func:`signed_by` found them.
        trusted: Key id to the last day on which a signature by the key counts (ISO 8601).

    Raises:
        PolicyRefused: nobody signed it.
        SignatureInvalid: others did, or a key after its last day.
    """
    if not signatures:
        raise PolicyRefused(
            "an audit that nobody signed",
            expected="one signed, as it ended, by the key of this site's compliance officer, in a file beside its"
            " result: without a key whoever can write to a site's folder could have written it",
            remedy=AGAIN,
        )
    counting = [key for key, time in sorted(signatures.items()) if key in trusted and time[:10] <= trusted[key]]
    if not counting:
        raise SignatureInvalid(
            f"an audit signed by {_keys(signatures)}, none of which is a compliance officer's at this site, or was on"
            " that day",
            expected="one signed by the key of a compliance officer whom this site's policy lists",
            remedy=AGAIN,
        )
    return counting[0]


def signature_text(signatures: Collection[str]) -> str:
    """By whose keys, in a sentence."""
    if not signatures:
        return "Nobody signed it: no ground for a release beyond the study."
    return f"Signed as it ended by {_keys(signatures)}; whose that is, the site's policy says."


def sealed(inputs: str, keys: Sequence[Ed25519PrivateKey]) -> str:
    """A name for what an audit depends on that nobody makes up without its keys; without a key it is ``inputs``.

    What a broken-off audit left is gone on with by this name alone, so none signs what another process left. Ed25519
    gives one signature for one message; it is not kept, only its hash.
    """
    if not keys:
        return inputs
    seals = sorted(key.sign(f"fedphantom audit inputs {inputs}".encode()) for key in keys)
    return hashlib.sha256(b"".join(seals)).hexdigest()


def _names(content: bytes, result: str) -> bool:
    """Whether a file says that it is about a result, believed or not."""
    try:
        return result.encode() in unverified(content)[1]
    except SignatureInvalid:
        return False


def _keys(keys: Collection[str]) -> str:
    return f"the key{'s' * (len(keys) > 1)} " + ", ".join(f"{key[:12]}…" for key in sorted(keys))
