"""The release of a run on one machine, or of one site: packed and signed, or refused with the reasons on file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...common.atomic import write_atomic
from ...common.cohort import Cohort
from ...common.errors import ConfigError, DataError, PolicyRefused, about
from ...common.gan.weights import load_weights, study_of
from ...common.keys import generate_key, load_private_key
from ...common.labels.choice import public_cohort
from ...common.output_place import refuse_taken
from ...common.run_result import refuse_several_generators
from ...common.site_folder import SITE_FILE
from ...common.study import Study
from ..audit.run import RESULT, verify_audit
from ..evidence import ReleaseKind
from ..joint.combination import is_combined, verify_combined
from ..joint.site_extract import FEWEST_TOLD
from ..policy import SitePolicy, Tier, read_policy
from ..synthetic_cohort import painters, synthetic_of
from .content import GENERATOR, check_weights
from .history import PACKED, keeps_history, note, refusals_noted
from .label_carriers import LabelCarriers, count_label_carriers, fewest_carriers
from .origin import check_origin
from .pack import ReleaseReport, pack, verify_release
from .permission import permitted, refuse_reader
from .policy_file import unnamed_signers
from .text_scan import names_someone

REFUSED = "release-refused.json"
_LONGEST_REASON = 300


def pack_run(
    run: Path,
    out: Path,
    kind: ReleaseKind,
    tier: Tier,
    key: Path,
    audit: Path | None,
    synthetic: Path | None,
    public: Path | None,
    stage: Callable[[str], Callable[[int, int], None]],
    evaluations: Sequence[Path] = (),
    policies: Sequence[Path] = (),
    say: Callable[[str], None] = lambda text: None,
    allow_faces: str | None = None,
) -> ReleaseReport:
    """``release pack``: make every scan again from its public source, then pack, sign and write it down.

    Args:
        run: What ``simulate`` left; where sites train alone, one site's own folder.
        out: A new folder.
        kind: What is released.
        tier: Whom for.
        key: The signer's private key, a file.
        audit: Result file of ``audit run``; None for the one in ``run``, if there is one.
        synthetic: For kind ``volumes``; None for the cohort in or beside ``run``, if there is one.
        public: The public cohort, where the study's label maps come from one.
        stage: Begins a named stage; returns (scans made again, scans in all).
        evaluations: As :func:`~fedphantom.privacy.release.pack.pack`.
        policies: Policy files of the sites behind it.
        say: Told what a person should know of them.
        allow_faces: Why volumes may leave that are not shown to be without a face, for the journal of ``run``; None
            where they may not.

    Raises:
        OutputTaken: ``out`` is there already.
        PolicyRefused: an origin, the audit or the tier stands against it, or several generators painted the cohort.
        DataError: no finished run, the whole folder of one whose sites each have a generator of their own, or an audit,
            volume or cohort that cannot be read.
        ConfigError: ``public`` would have no effect, or a reason for faces is none, names somebody, or no journal would
            keep it.
        FedPhantomError: as :func:`~fedphantom.privacy.release.origin.check_origin` and
            :func:`~fedphantom.privacy.release.pack.pack`.
    """
    refuse_taken(out)  # before every scan is made again
    if allow_faces is not None:
        with about("--allow-faces"):
            _refuse_unfit_reason(allow_faces, run)
    private = load_private_key(key)
    refuse_several_generators(run)
    by = [read_policy(path) for path in policies]
    for remark in unnamed_signers(by):
        say(remark)
    with refusals_noted(run, kind=kind, tier=tier):
        return _packed(run, out, kind, tier, private, audit, synthetic, public, stage, evaluations, by, allow_faces)


def _packed(
    run: Path,
    out: Path,
    kind: ReleaseKind,
    tier: Tier,
    private: Ed25519PrivateKey,
    audit: Path | None,
    synthetic: Path | None,
    public: Path | None,
    stage: Callable[[str], Callable[[int, int], None]],
    evaluations: Sequence[Path],
    policies: Sequence[SitePolicy],
    allow_faces: str | None,
) -> ReleaseReport:
    if not (run / GENERATOR).is_file():
        raise DataError(
            f"no {GENERATOR} at the path given for RUN",
            expected="a finished run's folder, or that of a site with a generator of its own",
            remedy="Check the path.",
        )
    if kind == "volumes":
        synthetic = synthetic or synthetic_of(run)
        _refuse_several_painters(synthetic)
    audit = audit or next((file for file in (run / "audit" / RESULT,) if file.is_file()), None)
    study = study_of(load_weights(run / GENERATOR)[1])
    refuse_reader(study)  # before its audit is looked for
    cohort = public_cohort(study, public) if public else None
    has_sites = any(run.glob(f"sites/*/{SITE_FILE}")) or (run / SITE_FILE).exists()
    audit = audit / RESULT if audit is not None and audit.is_dir() else audit
    told = _told_by_sites(run, audit, study)
    if audit is not None and told is None:  # else pack says that there is none
        verdict = verify_audit(audit, run)["verdict"]
        if verdict == "PASS" and not has_sites:
            raise PolicyRefused(
                "a PASS in a run without a site's folder: nobody's journal can confirm it",
                expected=f"the sites' folders for a release of tier '{tier}'",
                remedy="Pack where the sites' folders lie.",
            )
    if kind == "volumes" and synthetic is not None and audit is not None:  # else pack says what is missing
        content = (run / GENERATOR).read_bytes()
        digest, parameters, day = hashlib.sha256(content).hexdigest(), check_weights(content)[2], datetime.now(UTC)
        # Before what takes long, though pack asks again.
        permitted(run, digest, study, parameters, kind, tier, audit, policies, day.date())
        check_origin(run, synthetic, cohort, progress=stage("making every scan again"))
    counts = told is None and has_sites and audit is not None and fewest_carriers(policies, tier) is not None
    return pack(
        run,
        out,
        kind=kind,
        tier=tier,
        key=private,
        audit=audit,
        synthetic=synthetic,
        evaluations=evaluations,
        policies=policies,
        carriers=count_label_carriers(run, study) if counts else told,
        allow_faces=allow_faces is not None,
        before=partial(_note_packed, run, allow_faces=allow_faces),
    )


def _told_by_sites(run: Path, audit: Path | None, study: Study) -> LabelCarriers | None:
    """Who carries each structure, as far as sites say, where the audit was combined from what they signed; else None.

    The coordinator's journal stands for the generator then, and each extract for its site.
    """
    content = audit.read_bytes() if audit is not None and audit.is_file() else b""
    if not is_combined(content):
        return None
    return LabelCarriers.told_by([part.carried for part in verify_combined(content, run)], study, FEWEST_TOLD)


def _refuse_unfit_reason(reason: str, run: Path) -> None:
    """A reason stands in the journal as it is."""
    if not reason.strip() or len(reason) > _LONGEST_REASON or not reason.isprintable():
        found = "no reason on one line of 1 to 300 characters"
    elif names_someone(run, reason):
        found = "a reason with a date, a record number or a patient's identifier in it"
    elif not keeps_history(run):
        found = "a reason that no journal would keep, for RUN has none"
    else:
        return
    raise ConfigError(
        found,
        expected="why faces may be there, in words that name nobody, and RUN's journal to keep them",
        remedy="Give another reason, or pack where the journal is.",
    )


def _note_packed(run: Path, report: ReleaseReport, allow_faces: str | None = None) -> None:
    if keeps_history(run):
        allowed = {} if allow_faces is None else {"faces_allowed_because": allow_faces}
        note(
            run,
            PACKED,
            release=report.release_sha256,
            kind=report.kind,
            tier=report.tier,
            verdict=report.verdict,
            generator=report.generator_sha256,
            key=report.signed_by,
            approving_sites=report.approving_sites,
            **allowed,
        )


def _refuse_several_painters(synthetic: Path | None) -> None:
    found = painters(synthetic) - {""} if synthetic else set()  # a missing sidecar is refused as such
    if len(found) > 1:
        raise PolicyRefused(
            f"a synthetic cohort painted by {len(found)} generators",
            expected="one generator behind a release: its audit says nothing of another's patients",
            remedy=f"Generate a cohort with the {GENERATOR} of this folder alone, audit and pack it; where sites train"
            " alone, each does so from its own folder.",
        )


def pack_or_refuse(
    run: Path,
    out: Path,
    synthetic: Path,
    public: Cohort | None,
    audit: Path,
    tier: Tier,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Try to pack ``out/release``; write ``release-refused.json`` where the gate refuses.

    The key lies in ``out/keys``: it says which demo packed the release, and stands for no compliance officer. It is
    packed without a policy: nobody is asked to approve it, and beyond the study it is refused.

    Raises:
        VerificationFailed: the audit or a volume belongs to another generator.
        StorageError: the disk is full, read-only or forbidden.
    """
    folder = out / "release"
    keys = out / "keys"
    private = keys / "key.pem"
    if not private.exists():
        generate_key(keys)
    key = load_private_key(private)
    if folder.exists():
        report = verify_release(folder, [key.public_key()])
        if (report.tier, report.generator_sha256) != (tier, _sha256(run / "generator.safetensors")):
            raise PolicyRefused(
                f"the folder holds a release of another generator, or for the tier '{report.tier}'",
                expected=f"a release of this run for the tier '{tier}', or none",
                remedy="Remove the release folder, or choose another --out.",
            )
        return {"packed": True, "tier": tier, "kind": "volumes", "reasons": []}
    try:
        with refusals_noted(run, kind="volumes", tier=tier):
            check_origin(run, synthetic, public, progress=progress)
            noted = partial(_note_packed, run)
            pack(run, folder, kind="volumes", tier=tier, key=key, audit=audit, synthetic=synthetic, before=noted)
    except PolicyRefused as error:
        outcome = {
            "packed": False,
            "tier": tier,
            "kind": "volumes",
            "reasons": [error.found, f"expected {error.expected}"],
        }
        write_atomic(out / REFUSED, (json.dumps(outcome, indent=1) + "\n").encode())
        return outcome
    (out / REFUSED).unlink(missing_ok=True)  # of an earlier try
    return {"packed": True, "tier": tier, "kind": "volumes", "reasons": []}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
