"""``audit combine``: the sites' signed extracts as one audit, in a file that holds them: anyone can do it again.

The file is read as any audit's result is. Beside the figures it holds every extract as its officer signed it; what
travels with a release are the figures and the digests alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...common.atomic import write_atomic
from ...common.counted import counted
from ...common.enrolment.signed_file import read_content
from ...common.errors import DataError, PolicyRefused, VerificationFailed, about
from ...common.exchange import Parameters
from ...common.gan.parameters import parameters_digest
from ...common.gan.weights import GENERATOR, load_weights, study_of
from ...common.journal import read_journal
from ...common.output_place import refuse_taken_file
from ...common.run_result import refuse_unfinished
from ...common.site_folder import SITE_FILE, SiteFolder
from ...common.study import Study
from ..audit.extract import AuditExtract
from ..audit.history import DONE
from ..audit.recomputation import policy_of
from ..policy import ReleasePolicy, read_thresholds
from ..power import Power
from .evidence import joint_audit
from .power import combined_power
from .site_extract import SITE_EXTRACT, SiteExtract, open_extract

PARTS = "signed_extracts"
"""Key of the file under which the extracts lie."""


def combine_audits(
    run: Path,
    extracts: Sequence[Path],
    policy: Path | None,
    out: Path,
    announce: Callable[[Power | None, ReleasePolicy, int], None] = lambda power, policy, audits: None,
) -> dict[str, Any]:
    """Put the sites' audits together.

    Args:
        run: The coordinator's folder of the run: its generator names the study, and that whose keys count.
        extracts: Files of ``audit share``, one of each site.
        policy: Policy file with the thresholds; None for the default tier's.
        out: A new file.
        announce: Told, before anything is decided, what audits of these sizes can show together, None where no site
            tells its size; by which thresholds; and how many audits they are.

    Returns:
        The file's content.

    Raises:
        DataError: no generator, or no audit in an extract.
        ConfigError: a file that is no extract, or a policy of another tier.
        SignatureInvalid: an extract that was changed, or that no officer whom the study names signed.
        PolicyRefused: a site's is missing or there twice, or a study that names no officers.
        VerificationFailed: audits of different things, or of another generator than the run's.
        OutputTaken: something is there already.
    """
    with about("--out"):
        refuse_taken_file(out)
    parameters, metadata = load_weights(run / GENERATOR)
    study, thresholds = study_of(metadata), read_thresholds(policy)
    files = []
    for path in extracts:
        with about("EXTRACT"), about(path.name):
            files.append(read_content(path, SITE_EXTRACT))
    parts = _opened(files, study)
    _refuse_other_generator(parts, run / GENERATOR, parameters)
    announce(combined_power([part.audit for part in parts], thresholds), thresholds, len(parts))
    content = _content(parts, thresholds, files)
    write_atomic(out, content)
    found: dict[str, Any] = json.loads(content)
    return found


def is_combined(content: bytes) -> bool:
    """Whether a result file says that it was combined from several sites' audits."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and PARTS in found


def check_combined(content: bytes, study: Study) -> tuple[SiteExtract, ...]:
    """Do a combination again from what the sites signed; returns that.

    Raises:
        DataError: no combined audit.
        SignatureInvalid, PolicyRefused, VerificationFailed: as :func:`combine_audits`.
        VerificationFailed: its figures are others than its extracts give.
    """
    try:
        extract = AuditExtract.model_validate_json(content)
        files = [str(text).encode() for text in json.loads(content)[PARTS]]
    except (ValidationError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(
            "no combined audit",
            expected="the file that 'fedphantom audit combine' wrote",
            remedy="Give that file.",
        ) from None
    parts = _opened(files, study)
    if _content(parts, policy_of(extract), files) != content:
        raise VerificationFailed(
            "a combined audit with other figures than the sites' signed extracts give",
            expected="the file as 'fedphantom audit combine' wrote it",
            remedy="Combine the extracts anew; believe nothing of this file.",
        )
    return parts


def verify_combined(content: bytes, run: Path, generator: Path | None = None) -> tuple[SiteExtract, ...]:
    """Check that a combined audit speaks of a run's generator and is what the sites signed; returns that.

    Args:
        content: Of the file.
        run: The coordinator's folder of the run, where no site's is needed; or the folder of a site whose own audit is
            among those combined.
        generator: The generator, where ``run`` is a site's folder.

    Raises:
        DataError, SignatureInvalid, PolicyRefused: as :func:`check_combined`.
        VerificationFailed: likewise; or the generator is another, or none that the run's journal knows, or the site's
            tells of none of the audits.
    """
    file = generator or run / GENERATOR
    parameters, metadata = load_weights(file)
    parts = check_combined(content, study_of(metadata))
    if (run / SITE_FILE).exists():
        _refuse_others_audits(parts, SiteFolder.open(run).journal)
    else:
        refuse_unfinished(run, parameters_digest(parameters))
    _refuse_other_generator(parts, file, parameters)
    return parts


def _refuse_others_audits(parts: Sequence[SiteExtract], journal: Path) -> None:
    done = {entry.facts.get("sha256") for entry in read_journal(journal) if entry.event == DONE}
    if not any(part.result_sha256 in done for part in parts):
        raise VerificationFailed(
            "a combined audit without one that this site's journal tells of",
            expected="the site's own audit among those combined",
            remedy="Ask the coordinator what was taken for this site's.",
        )


def _refuse_other_generator(parts: Sequence[SiteExtract], file: Path, parameters: Parameters) -> None:
    actual = hashlib.sha256(file.read_bytes()).hexdigest(), parameters_digest(parameters)
    if any((part.audit.generator_sha256, part.parameters) != actual for part in parts):
        raise VerificationFailed(
            "a site's audit of another generator than the run's",
            expected="audits of the very file that is to be released",
            remedy="Send each site that file, and have it audited and shared anew.",
        )


def _opened(files: Sequence[bytes], study: Study) -> tuple[SiteExtract, ...]:
    """One of every site that the study names."""
    named = study.federation.approval_keys
    if not named:
        raise PolicyRefused(
            "a study that does not name its sites' compliance officers: nobody's signature counts",
            expected="the key of each under federation.approval_keys",
            remedy="Begin a study with 'fedphantom study new STUDY.toml --approval-key KEY.pub.pem ...', a key a site.",
        )
    parts = tuple(open_extract(file, named) for file in files)
    for part in parts:
        if part.study_digest != study.digest():
            raise VerificationFailed(
                "a site's audit in another study",
                expected="audits in the study that the generator was trained for",
                remedy="Have the site share its audit of this generator.",
            )
    keys = [part.key() for part in parts]
    if sorted(keys) != sorted(named):
        raise PolicyRefused(
            f"audits signed by {counted(len(set(keys)), 'officer')}, {counted(len(keys), 'file')} in all, of"
            f" {len(named)} whom the study names",
            expected="one of every site: patients who were not audited cannot be passed over",
            remedy="Get the missing site's from 'fedphantom audit share', and give each site's once.",
        )
    return parts


def _content(parts: Sequence[SiteExtract], policy: ReleasePolicy, files: Sequence[bytes]) -> bytes:
    """The file: the same for the same extracts, in whatever order they came."""
    order = sorted(range(len(parts)), key=lambda i: parts[i].result_sha256)
    audits = [parts[i].audit for i in order]
    audit, power = joint_audit(audits, policy, [parts[i].result_sha256 for i in order]), combined_power(audits, policy)
    told = {"power": power and asdict(power), PARTS: [files[i].decode() for i in order]}
    table = audit.model_dump(mode="json") | told
    return (json.dumps(table, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
