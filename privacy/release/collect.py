"""Approvals that sites sent, put into the packer's copy of a release, each checked as a reader of it would."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ...common.atomic import write_atomic
from ...common.counted import counted
from ...common.errors import DataError, PolicyRefused, VerificationFailed, about
from ...common.gan.weights import GENERATOR, load_weights, study_of
from ...common.in_toto import content_within
from ...common.signing import unverified
from ..statement import ReleasePredicate
from .approval import LARGEST, Approval, approval_file, check_approvals, missing_approvals
from .folder import VerifiedRelease, verify_content
from .gate import refuse_other_sites
from .history import COLLECTED, note, refusals_noted
from .unfinished import forget_unfinished


@dataclass(frozen=True)
class ApprovalsCollected:
    """What a release has of its sites' approvals once some were taken in.

    Attributes:
        release_sha256: Of the packed statement.
        collected: Those taken in now.
        here_before: Those that lay in this copy already; among them files that were given again.
        missing_approvals: Those that it lacks, in words.
        approved: Whether it needs some and lacks none.
    """

    release_sha256: str
    collected: tuple[Approval, ...]
    here_before: tuple[Approval, ...]
    missing_approvals: tuple[str, ...]
    approved: bool

    def text(self) -> str:
        """For a terminal."""
        return "\n".join(
            (
                f"Release {self.release_sha256}: {counted(len(self.collected), 'approval')} taken in.",
                *(f"Here before: {_said(one)}." for one in self.here_before),
                *(f"Taken in: {_said(one)}." for one in self.collected),
                *(f"Still missing: {one}." for one in self.missing_approvals),
                *(["Every site behind it has approved it; hand on this copy."] if self.approved else []),
            )
        )


def collect_approvals(
    release: Path, files: Sequence[Path], trusted: Iterable[Ed25519PublicKey], run: Path
) -> ApprovalsCollected:
    """``release collect``: take sites' approvals into this copy of the release; all of them, or none where one fails.

    A file that lies here already changes nothing, so that what was cut off is done by calling it again.

    Args:
        release: The packer's copy.
        files: Approvals as 'release approve' wrote them, under any name.
        trusted: Public keys of packer and approvers, from their holders.
        run: What it was packed from: its study says which sites there are, its journal notes every approval.

    Raises:
        DataError: no file there, or two by one key.
        SignatureInvalid: a signature that does not hold, by an unknown key, or after the key's last day.
        VerificationFailed: a release that changed or is of another run, or an approval of another release, by a key
            that it does not name, or with an impossible date; here already, or given.
        PolicyRefused: another approval by a key whose approval is here, or a release without all sites of the study.
    """
    keys = tuple(trusted)
    forget_unfinished(release)
    verified = verify_content(release, keys)
    digest = verified.statement_sha256
    with refusals_noted(run, release=digest):
        _refuse_other_run(verified.predicate, run)
        before = check_approvals(verified.approvals, digest, verified.predicate, keys)
        found = _checked(files, verified, keys)
    taken = {file: one for file, one in found.items() if file not in verified.approvals}
    for file, (content, approval) in taken.items():
        sha256 = hashlib.sha256(content).hexdigest()
        note(run, COLLECTED, release=digest, key=approval.key, role=approval.role, signed=approval.time, file=sha256)
        write_atomic(release / file, content)
    collected = tuple(approval for _, approval in taken.values())
    missing = missing_approvals(verified.predicate, (one.key for one in (*before, *collected)))
    approved = bool(verified.predicate.approving_sites) and not missing
    return ApprovalsCollected(digest, collected, before, missing, approved)


def _checked(
    files: Sequence[Path], verified: VerifiedRelease, keys: Sequence[Ed25519PublicKey]
) -> Mapping[str, tuple[bytes, Approval]]:
    """Path inside the release to content and what it says, of files that each hold for it."""
    found: dict[str, tuple[bytes, Approval]] = {}
    for path in files:
        with about(path.name):
            content = _content(path)
            file = approval_file(unverified(content)[0])
            (approval,) = check_approvals({file: content}, verified.statement_sha256, verified.predicate, keys)
            if file in found:
                raise DataError(
                    f"a second approval by the key {approval.key[:12]}…",
                    expected="one file of every signer",
                    remedy="Give each approval once.",
                )
            if verified.approvals.get(file, content) != content:
                raise PolicyRefused(
                    f"another approval by the key {approval.key[:12]}…, whose first one is here",
                    expected="one approval of every signer",
                    remedy="The first one counts. Ask its signer whether there are two; the site's journal lists them.",
                )
            found[file] = (content, approval)
    return found


def _content(path: Path) -> bytes:
    content = content_within(path, LARGEST)
    if content is None:
        raise DataError(
            "no readable approval at the path given",
            expected=f"a plain file of at most {LARGEST >> 10} KiB, as 'fedphantom release approve' writes it",
            remedy="Check the path, or ask the site for the file again: it lies in its copy's folder 'approvals'.",
        )
    return content


def _refuse_other_run(predicate: ReleasePredicate, run: Path) -> None:
    """Find that the release is of this run's generator, and leaves out no site that the run's study names."""
    path = run / GENERATOR
    same = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == predicate.generator_sha256
    if not same:
        raise VerificationFailed(
            "a release of another generator than the run's",
            expected=f"the folder that it was packed from, with its {GENERATOR}",
            remedy="Give that folder with --run: its study says whose approval is needed, its journal notes it.",
        )
    study = study_of(load_weights(path)[1])
    if predicate.approving_sites and not study.federation.alone:
        refuse_other_sites(study, predicate.approving_sites, None)


def _said(approval: Approval) -> str:
    return f"the {approval.role}'s, key {approval.key[:12]}…, signed {approval.time}"
