"""``audit share``: what the other institutions may see of a site's own audit, signed, and noted before it leaves."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ...common.atomic import write_atomic
from ...common.enrolment.signed_file import file_digest, signed
from ...common.enrolment.site_keys import identity_pem
from ...common.errors import ConfigError, about
from ...common.gan.parameters import parameters_digest
from ...common.gan.weights import load_weights
from ...common.journal import Journal
from ...common.keys import key_id, load_private_key
from ...common.output_place import refuse_taken_file
from ...common.site_folder import SiteFolder
from ..audit.reading import read_audit
from ..audit.run import RESULT, verify_audit
from ..audit.signature import NO_LAST_DAY, refuse_unsigned, signed_by
from ..audit.small_cells import travelling
from ..release.label_carriers import count_label_carriers
from ..verdict import Outcome
from .site_extract import FEWEST_TOLD, SITE_EXTRACT, SiteExtract, refuse_stranger

SHARED = "audit-shared"
"""Journal event: which audit's extract leaves, by the SHA-256 of result and file."""


@dataclass(frozen=True)
class AuditShared:
    """What leaves.

    Attributes:
        file: Where it lies.
        sha256: Of it.
        verdict: Of the site's own audit.
        key: The officer's.
    """

    file: str
    sha256: str
    verdict: Outcome
    key: str

    def text(self) -> str:
        """For a terminal."""
        return (
            f"wrote {self.file}, signed by {self.key[:12]}…: this site's audit (verdict {self.verdict}) as it may"
            " travel, without a patient's score, a coin, or a number of patients under twenty\n"
            "send it to the coordinator, who runs: fedphantom audit combine RUN FILE... --out audit.json"
        )


def share_audit(site: Path, generator: Path, key: Path, out: Path, audit: Path | None) -> AuditShared:
    """Sign what of a site's own audit the other institutions may see.

    Args:
        site: The site's folder.
        generator: The generator that was audited.
        key: The compliance officer's private key, which the study names.
        out: A new file.
        audit: The result file; ``audit/audit.json`` in the site's folder for None.

    Raises:
        ConfigError: no site's folder or key, or a study whose sites release alone.
        SignatureInvalid: a key that the study does not name, or an audit that another signed as it ended.
        PolicyRefused: an audit that nobody signed.
        VerificationFailed: as :func:`~fedphantom.privacy.audit.run.verify_audit`: the site's journal does not tell of
            such an audit of this generator, for example, or tells of one that failed.
        DataError: no readable result.
        OutputTaken: something is there already.
    """
    with about("--out"):
        refuse_taken_file(out)
    home, private = SiteFolder.open(site), load_private_key(key)
    study = home.study()
    if study.federation.alone:
        raise ConfigError(
            "a study whose sites train and release alone",
            expected="an average: of that, sites' audits are put together",
            remedy="Pack this site's release by its own audit.",
        )
    signer = key_id(private.public_key())
    with about("--key"):
        refuse_stranger(signer, study.federation.approval_keys)
    result = audit or site / "audit"
    verify_audit(result, site, generator)
    content = (result / RESULT if result.is_dir() else result).read_bytes()
    digest, (extract, _) = hashlib.sha256(content).hexdigest(), read_audit(content)
    refuse_unsigned(signed_by(digest, result if result.is_dir() else result.parent), {signer: NO_LAST_DAY})
    carriers = count_label_carriers(site, study).patients
    said = SiteExtract(
        study_digest=study.digest(),
        officer_key=identity_pem(private.public_key()),
        parameters=parameters_digest(load_weights(generator)[0]),
        result_sha256=digest,
        carried=tuple(sorted(name for name, number in carriers.items() if number >= FEWEST_TOLD)),
        audit=travelling(extract),
    )
    file = signed(SITE_EXTRACT, said, private)
    Journal(home.journal).append(SHARED, result=digest, sha256=file_digest(file), key=signer)
    write_atomic(out, file)
    return AuditShared(str(out), file_digest(file), extract.verdict, signer)
