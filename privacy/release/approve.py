"""A person approves or withdraws a release, at a site: what is checked first, signed, and written down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ...common.atomic import write_atomic
from ...common.errors import DataError, OutputTaken, PolicyRefused, VerificationFailed, about
from ...common.gan.parameters import parameters_digest
from ...common.gan.weights import load_weights
from ...common.journal import read_journal
from ...common.keys import key_id, load_private_key, load_public_key
from ...common.run_result import check_generator
from ...common.signing import sign, unverified
from ...common.site_folder import SiteFolder
from ..approving_site import ApprovingSite
from ..audit.history import DONE, failed_before
from ..audit.reading import read_audit
from ..dp.run_spent import refuse_understated
from ..dp.statement import NONE
from ..joint.combination import check_combined, is_combined
from ..page_record import is_page_of
from ..policy import SitePolicy, read_policy
from ..signers import SignerRole, signer_of
from ..statement import ReleasePredicate, parse_statement
from ..synthetic_files import image_keys
from ..verdict import Outcome
from .approval import ApprovalPredicate, ApprovalStatement, LookedAt, approval_file, missing_approvals
from .content import PUBLIC_LABELS, public_sources_of
from .folder import VerifiedRelease, read_manifest, verify_content
from .gate import refuse_by_policy, refuse_other_sites
from .grounds import GivenAudit, Grounds, said_of, signed_grounds_of
from .history import APPROVED, WITHDRAWN, note, refusals_noted, refuse_what_was_withdrawn
from .policy_file import unnamed_signers
from .text_scan import TextScan, days_told, names_someone
from .unfinished import forget_unfinished
from .withdrawal import NamedRelease, refuse_stranger, write_notice
from .withdrawal_reason import REASONS, Because, FreeReason

UNSIGNED = (
    "That audit counts as unsigned: no signature of this site's officer lies beside a file of --audit, so whoever can"
    " write to the site's folder could have made it up. For use inside the study that is accepted."
)


@dataclass(frozen=True)
class ApprovalReport:
    """What was signed, and what the release still lacks.

    Attributes:
        release_sha256: Of the packed statement.
        key: Of the signer.
        role: As what.
        verdict: Of the audit's figures, by the site's own policy.
        grounds: On which audit of this site's patients it rests.
        audit_signed_by: The compliance officer's key by which that audit was signed as it ended; None for none found.
        file: The approval, inside the release.
        missing_approvals: By the files that lie in this copy of the release; whether those hold, ``verify`` says.
    """

    release_sha256: str
    key: str
    role: SignerRole
    verdict: Outcome
    grounds: Grounds
    audit_signed_by: str | None
    file: str
    missing_approvals: tuple[str, ...]

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self), sort_keys=True)

    def to_text(self) -> str:
        """A few lines for a person."""
        by = self.audit_signed_by
        signed = f"That audit is signed by the key {by[:12]}…." if by else UNSIGNED
        lacks = [f"Still missing in this copy: {one}." for one in self.missing_approvals]
        return "\n".join(
            (
                f"Approved by the {self.role}'s key {self.key[:12]}…, {said_of(self.grounds)}: release"
                f" {self.release_sha256}.",
                signed,
                f"Verdict by this site's policy: {self.verdict}. The approval is {self.file}; send it with the release,"
                " or alone, to the packer, who takes it in with 'fedphantom release collect'.",
                *lacks,
            )
        )


def approve_release(
    release: Path,
    key: Path,
    policy: Path,
    site: Path,
    packed_by: Path,
    audit: Path | None,
    report: Path | None,
    say: Callable[[str], None] = lambda text: None,
) -> ApprovalReport:
    """``release approve``: check the release against the site's own policy, study and journal, then sign exactly it.

    Args:
        release: The site's copy of it.
        key: The signer's private key, a file.
        policy: The site's policy file.
        site: The site's folder.
        packed_by: The packer's public key, a file.
        audit: The audit's whole result file, its signatures beside it; a release inside the study can be approved
            without. Or one of the site's own of the same generator, which is needed where the release's is none that
            this site took part in.
        report: The audit's page, if it was looked at: of the release's audit, of the given one, or of the site's own
            part in it.
        say: Told what a person should know of the policy.

    Raises:
        SignatureInvalid: the packer's signature, a key that the policy does not list, or one that expired.
        VerificationFailed: a release that changed, was packed by another policy or for another study, names other sites
            than the study, states less than the site's privacy ledger, or an audit of another generator, or one that
            the site's journal does not tell of, or a page that it does not tell of.
        PolicyRefused: the site's policy, or an audit of its own that failed, stands against it; or no audit of its
            patients stands for it, or beyond the study one that nobody signed; or what is in it was withdrawn before,
            by the site's journal; or a text of the release names one of
            this site's patients, the site or a day.
        OutputTaken: this key has approved it already.
        ConfigError: no readable key, policy or site's folder.
    """
    private, own, home = load_private_key(key), read_policy(policy), SiteFolder.open(site)
    now = datetime.now(UTC)
    signer = signer_of(own.signers, key_id(private.public_key())).current(now.date())
    for remark in unnamed_signers([own]):
        say(remark)
    with about("RELEASE"):
        forget_unfinished(release)
    verified = verify_content(release, [load_public_key(packed_by)])
    file = approval_file(signer.key)
    if file in verified.approvals:
        raise OutputTaken(
            f"an approval by the key {signer.key[:12]}… is there already",
            expected="a release that this key has not approved",
            remedy="'fedphantom release verify' says whose approval is still missing.",
        )
    facts = {"release": verified.statement_sha256, "key": signer.key, "role": signer.role}
    with refusals_noted(home.root, **facts):
        _refuse_other_grounds(verified.predicate, own, home)
        named = NamedRelease.of(verified.payload)
        refuse_what_was_withdrawn([home.root], named.kind, named.generator_sha256, named.synthetic_sha256)
        _refuse_names(verified, home)
        verdict, audited, (grounds, signed) = _judged(verified, own, home, audit)
        page = _page(report, verified.predicate, home, audit) if report else None
    looked_at = LookedAt(policy=own.sha256, audit=audited, report=page)
    said = ApprovalPredicate(
        decision="approved",
        role=signer.role,
        verdict=verdict,
        grounds=grounds,
        audit_signed_by=signed,
        looked_at=looked_at,
        time=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    envelope = sign(ApprovalStatement.about(verified.statement_sha256, said).encode(), private)
    with about("--site"):
        seen = looked_at.model_dump(mode="json")
        note(home.root, APPROVED, **facts, verdict=verdict, grounds=grounds, looked_at=seen)
    with about("RELEASE"):
        write_atomic(release / file, envelope)
    given = [name.removeprefix("approvals/").removesuffix(".dsse.json") for name in (*verified.approvals, file)]
    missing = missing_approvals(verified.predicate, given)
    return ApprovalReport(verified.statement_sha256, signer.key, signer.role, verdict, grounds, signed, file, missing)


def withdraw_release(release: Path, key: Path, reason: Because | FreeReason, run: Path, notices: Path | None) -> Path:
    """``release withdraw``: sign a notice that takes the release back, also one that is damaged or was never approved.

    Args:
        release: A copy of it; only its signed statement is read.
        key: Private key of its packer, or of one whom it names for its approval.
        reason: One of the sentences that name nobody, by its name, or the signer's own; it travels.
        run: The run's or site's folder, whose journal notes it.
        notices: Where notices are collected; ``notices`` beside the release for None.

    Returns:
        Path of the notice.

    Raises:
        SignatureInvalid: another key, or no signed statement.
        PolicyRefused: the reason names a patient or site of this run, a scan, a date or a record number.
        OutputTaken: this key has withdrawn it already, in that folder.
        DataError: a reason of the signer's own that is no sentence, or of which the signer does not say that it names
            nobody.
    """
    text = REASONS[reason] if isinstance(reason, str) else reason.checked()
    private = load_private_key(key)
    packer, payload = unverified(read_manifest(release))
    named = NamedRelease.of(payload)
    refuse_stranger(private.public_key(), packer, parse_statement(payload).predicate)
    if names_someone(run, text):
        raise PolicyRefused(
            "a reason with a patient's or site's name, a subject's label, a date or a record number in it",
            expected="a sentence that everyone with the release may read",
            remedy="Say why in words that name nobody and no day; the notice is dated itself.",
        )

    def noted() -> None:
        with about("--run"):
            note(
                run,
                WITHDRAWN,
                release=named.statement_sha256,
                kind=named.kind,
                generator=named.generator_sha256,
                synthetic=named.synthetic_sha256,
                key=key_id(private.public_key()),
                reason=text,
            )

    folder = notices or release.absolute().parent / "notices"
    return write_notice(folder, named, private, text, before=noted)


def _refuse_other_grounds(predicate: ReleasePredicate, policy: SitePolicy, home: SiteFolder) -> None:
    """Find that the release was packed by this policy, of this study and its sites, and of this site's generator."""
    packed = datetime.fromisoformat(predicate.created).date()
    if ApprovingSite.of(policy, packed) not in predicate.approving_sites:
        raise _other("a release that was not packed by this site's policy as it now is")
    study = home.study()
    if study.digest() != predicate.study_digest or study.federation.sharing != predicate.sharing:
        raise _other("a release of another study than this site's own copy")
    if predicate.cohort and predicate.cohort.channels != image_keys(study.channels):
        raise _other("a release of other channels than the site's study has")
    if study.privacy.promise:
        refuse_understated(home, study, None if predicate.dp == NONE else predicate.dp)
    if not study.federation.alone:
        refuse_other_sites(study, predicate.approving_sites, None)
        return
    try:
        same = hashlib.sha256(home.generator.read_bytes()).hexdigest() == predicate.generator_sha256
    except OSError:
        same = False
    if not same:
        raise _other("a release of another generator than this site's own")
    parameters, metadata = load_weights(home.generator)
    check_generator(home.root, parameters_digest(parameters), metadata, {home.name: home.journal})


def _refuse_names(verified: VerifiedRelease, home: SiteFolder) -> None:
    """Look for this site's patients, its name and days in every text: where it was packed nobody may know them."""
    predicate, public = verified.predicate, public_sources_of(verified.texts[PUBLIC_LABELS])
    told = (predicate.created, *days_told(predicate.audit, predicate.approving_sites))
    scan = TextScan.of(home.root, home.study(), public, told)
    for name, content in {**verified.texts, "statement.json": verified.payload}.items():
        problem = scan.problem(name, content)
        if problem:
            raise PolicyRefused(
                f"{problem}: {name}",
                expected="no patient of this site, not its name, and no day but those of packing and policies",
                remedy="Do not approve it; have it packed without that text, and every copy deleted. A policy's or an"
                " audit's reasons come from whoever wrote them.",
            )


def _judged(
    verified: VerifiedRelease, policy: SitePolicy, home: SiteFolder, audit: Path | None
) -> tuple[Outcome, str | None, tuple[Grounds, str | None]]:
    """The verdict by the site's own thresholds, the digest of the given result file, and what the approval rests on.

    The latter as :func:`~fedphantom.privacy.release.grounds.signed_grounds_of` says it.
    """
    predicate, thresholds = verified.predicate, policy.thresholds
    done = [entry.facts for entry in read_journal(home.journal) if entry.event == DONE]
    extract, _ = read_audit(verified.audit_json)
    generator = (predicate.generator_sha256, extract.parameters_sha256 or "")
    if any(failed_before(facts, *generator, predicate.kind, thresholds.tier) for facts in done):
        raise PolicyRefused(
            "a generator that failed an audit of this site's own",
            expected="no FAIL among the audits that the site's journal tells of",
            remedy="Do not approve it; train another generator.",
        )
    given = None if audit is None else GivenAudit(_bytes(audit, "audit result"), audit.parent)
    digest = given.sha256 if given else None
    if given is not None:
        looked_at, claim = read_audit(given.content)
        if looked_at.generator_sha256 != predicate.generator_sha256 or (
            predicate.kind == "volumes" and looked_at.synthetic_sha256 != extract.synthetic_sha256
        ):
            raise VerificationFailed(
                "an audit of another generator, or of other volumes",
                expected="one of what is released",
                remedy="Give the result file that belongs to it, or leave --audit out.",
            )
        if digest == predicate.audit.sha256:
            extract = looked_at  # the same audit, with the figures that do not travel
        elif claim.verdict in ("FAIL", "INVALID"):
            raise PolicyRefused(
                f"an audit of the site's own with the verdict {claim.verdict}",
                expected="no audit that speaks against the release",
                remedy="Do not approve it.",
            )
    verdict = refuse_by_policy(extract, thresholds, predicate.kind, predicate.tier)
    return verdict, digest, signed_grounds_of(predicate, given, done, policy, home.study())


def _page(report: Path, predicate: ReleasePredicate, home: SiteFolder, audit: Path | None) -> str:
    """The page's digest, once the site's journal told that it was made of an audit that the approval rests on."""
    content = _bytes(report, "report")
    meant = {predicate.audit.sha256}
    if audit is not None:
        given = _bytes(audit, "audit result")
        meant.add(hashlib.sha256(given).hexdigest())
        if is_combined(given):
            done = {entry.facts.get("sha256") for entry in read_journal(home.journal) if entry.event == DONE}
            parts = {part.result_sha256 for part in check_combined(given, home.study())}
            meant |= {part for part in parts if part in done}
    if not is_page_of(content, meant, home.journal):
        raise VerificationFailed(
            "a --report that this site's journal does not tell of as a page of the audit that is approved by",
            expected="the very file that 'fedphantom audit report' made of the site's folder or of the run's around it,"
            " about the release's audit or the one that --audit names",
            remedy="Make the page there with 'fedphantom audit report', read it and name it; or leave --report out, and"
            " the approval says that no page was looked at.",
        )
    return hashlib.sha256(content).hexdigest()


def _bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise DataError(
            f"no readable {what}", expected="the file that was looked at", remedy="Check the path."
        ) from None


def _other(found: str) -> VerificationFailed:
    return VerificationFailed(
        found,
        expected="a release by this site's policy, of the study that it took part in",
        remedy="Do not approve it; ask the packer what it is, or to pack it anew by the policy as it stands.",
    )
