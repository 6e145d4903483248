"""Verifying a release: signature, files, contents; offline.

Verification starts at the signature and believes nothing that it does not cover. Every file is read
once: what was hashed is what is judged. What may lie in the folder is told in :mod:`.release_content`.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ...common.counted import counted
from ...common.errors import DataError, SignatureInvalid, VerificationFailed
from ...common.federation import Sharing
from ...common.in_toto import read_small
from ...common.signing import unverified, verify
from ...common.storage import TEMPORARY_PREFIX
from ..dp.statement import said
from ..evidence import ReleaseKind
from ..finding import WORDING
from ..policy import Tier
from ..statement import ReleasePredicate, parse_statement
from ..synthetic_digest import VOLUME_ENDING
from ..verdict import Outcome
from .approval import LARGEST, Approval, check_approvals, missing_approvals, refuse_unnamed
from .approval import NAME as APPROVAL_NAME
from .content import AUDIT, COHORT, GENERATOR, MANIFEST, PUBLIC_LABELS, ContentCheck, public_sources_of
from .grounds import said_of
from .readme import NOT_FOR_SHARING
from .withdrawal import NamedRelease, refuse_withdrawn

LARGEST_MANIFEST = 1 << 25
"""Bytes of the largest manifest: of some hundred thousand files."""
LARGEST_FILE = 1 << 31
"""Bytes of the largest file of a release: more than voxels of the largest grid, packed or not, and than any weights."""
_BLOCK = 1 << 20
_NAMED = 3
"""Files named of those that are missing or too many."""
_TRACES = {MANIFEST, AUDIT, PUBLIC_LABELS, GENERATOR, COHORT}
_TRACE_ENDINGS = (".dsse.json", ".safetensors", ".nii", ".nii.gz")


@dataclass(frozen=True)
class ReleaseReport:
    """What a verified release says of itself.

    Attributes:
        release_sha256: Of the packed statement: its name in approvals, notices and journals.
        kind: ``volumes`` or ``weights``.
        tier: Whom it is meant for.
        verdict: Of its audit.
        audit_permits_sharing: Whether verdict and tier let it leave the study, once it is approved.
        note: The same in words.
        dp: The formal promise in words, or ``none``.
        study_digest: Of the study.
        generator_sha256: Of the generator behind it.
        sharing: What the study's sites share.
        one_site: Whether one site alone trained the generator and stands behind the release.
        label_sources: Names of the public sources of its label maps.
        recipes: Names of the recipes that had a part in them.
        files: Files named in the statement.
        volumes: NIfTI files among them.
        created: UTC, ISO 8601.
        signed_by: Key id of the packer.
        approving_sites: How many sites have to approve it; 0 for one inside the study that was packed without a policy.
        approvals: Those that hold.
        missing_approvals: Those that it lacks, in words.
        approved: Whether it needs approvals and lacks none.
        notices_read: Whether it was looked for among withdrawal notices.
    """

    release_sha256: str
    kind: ReleaseKind
    tier: Tier
    verdict: Outcome
    audit_permits_sharing: bool
    note: str
    dp: str
    study_digest: str
    generator_sha256: str
    sharing: Sharing
    one_site: bool
    label_sources: tuple[str, ...]
    recipes: tuple[str, ...]
    files: int
    volumes: int
    created: str
    signed_by: str
    approving_sites: int
    approvals: tuple[Approval, ...]
    missing_approvals: tuple[str, ...]
    approved: bool
    notices_read: bool

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self), sort_keys=True)

    def to_text(self) -> str:
        """A few lines for a person."""
        return "\n".join(
            (
                f"Verified: {counted(self.files, 'file')}, {self.volumes} of them volumes;"
                f" packed by {self.signed_by[:12]}…",
                *self._approval_lines(),
                f"{self.note[0].upper()}{self.note[1:]}.",
                f"Tier {self.tier}, audit verdict {self.verdict}, dp: {self.dp}.",
                f"Sharing {self.sharing}: "
                + ("one site trained the generator and stands behind it." if self.one_site else "an average of sites."),
                f"Label maps from: {', '.join(self.label_sources)}"
                + (f"; edited by: {', '.join(self.recipes)}." if self.recipes else "."),
                f"Study {self.study_digest[:12]}…, generator {self.generator_sha256[:12]}…, packed {self.created}.",
                f"Release {self.release_sha256}.",
                "Not among the notices of withdrawal."
                if self.notices_read
                else "Nobody looked whether it was withdrawn: name a folder of notices with --notices.",
            )
        )

    def _approval_lines(self) -> tuple[str, ...]:
        given = tuple(
            f"Approved by the {one.role}'s key {one.key[:12]}…, {one.time}, {said_of(one.grounds)}, {one.signed()};"
            f" {one.seen()}."
            for one in self.approvals
        )
        if not self.approving_sites:
            return ("Not approved by any site's officer: it was packed without a policy, for use inside the study.",)
        if self.approved:
            sites = "the one site behind it" if self.approving_sites == 1 else f"all {self.approving_sites} sites"
            return (*given, f"Approved by {sites}.")
        return (*given, *(f"NOT APPROVED: {one}." for one in self.missing_approvals))


def verify_release(folder: Path, trusted: Iterable[Ed25519PublicKey], notices: Path | None = None) -> ReleaseReport:
    """Verify a release, without a network.

    Every file is judged by the bytes that were hashed. A release that lacks approvals verifies: the report says which.

    Args:
        folder: The release.
        trusted: Public keys of packer and approvers, from their holders.
        notices: A folder of withdrawal notices; None for none at hand.

    Raises:
        DataError: nothing at this path, or nothing that could be or have been a release: a mistyped path.
        SignatureInvalid: no manifest, or a signature that does not hold, or is by another key, or by one that expired.
        VerificationFailed: a changed, missing or additional file, a link, a content that does not belong in a release
            (see :mod:`.content`), an approval of something else, or a notice that withdraws it.
    """
    trusted = tuple(trusted)
    verified = verify_content(folder, trusted)
    if notices is not None:
        refuse_withdrawn(notices, NamedRelease.of(verified.payload), trusted)
    return _report(verified, trusted, notices_read=notices is not None)


def verify_folder(folder: Path, trusted: Iterable[Ed25519PublicKey]) -> ReleaseReport:
    """As :func:`verify_release`, whatever the folder is called."""
    trusted = tuple(trusted)
    return _report(_verify_content(folder, trusted), trusted, notices_read=False)


@dataclass(frozen=True)
class VerifiedRelease:
    """A release whose signature, files and contents hold; its approvals are not judged yet.

    Attributes:
        statement_sha256: Of the packed statement: the release's name in approvals, notices and journals.
        predicate: From the statement.
        payload: The packed statement's bytes.
        texts: Path inside the release to content, of every signed file but the volumes.
        approvals: Path inside the release to content.
        files: Files named in the statement.
        volumes: NIfTI files among them.
        signed_by: Key id of the packer.
    """

    statement_sha256: str
    predicate: ReleasePredicate
    payload: bytes
    texts: Mapping[str, bytes]
    approvals: Mapping[str, bytes]
    files: int
    volumes: int
    signed_by: str

    @property
    def audit_json(self) -> bytes:
        """Content of the release's ``audit.json``."""
        return self.texts[AUDIT]


def verify_content(folder: Path, trusted: Iterable[Ed25519PublicKey]) -> VerifiedRelease:
    """Verify all but the approvals. Raises as :func:`verify_release`."""
    _refuse_other_places(folder)
    if folder.name.startswith(TEMPORARY_PREFIX):
        raise _broken("a folder whose packing was never finished")
    return _verify_content(folder, trusted)


def read_manifest(folder: Path) -> bytes:
    """The signed envelope of a release, not verified. Raises as :func:`verify_release` where there is none."""
    _refuse_other_places(folder)
    return _read(folder, MANIFEST, LARGEST_MANIFEST)


def _verify_content(folder: Path, trusted: Iterable[Ed25519PublicKey]) -> VerifiedRelease:
    present = set(_walk(folder))
    if MANIFEST not in present:
        raise SignatureInvalid(
            f"a folder without {MANIFEST}",
            expected="a signed release",
            remedy="Give the folder that holds that file, or ask the signer for it.",
        )
    envelope = _read(folder, MANIFEST, LARGEST_MANIFEST)
    payload = verify(envelope, trusted)
    statement = parse_statement(payload)
    if statement.predicate.wording != WORDING:
        raise VerificationFailed(
            f"a release with the sentences of another program: number {statement.predicate.wording}, and this one knows"
            f" {WORDING}",
            expected=f"the version that packed it ({statement.predicate.software}), or one with the same sentences",
            remedy="Verify it with that version: its signature is good, but nothing here knows its sentences.",
        )
    hashes = statement.files()
    approvals = {name for name in present if APPROVAL_NAME.fullmatch(name)}
    signed = present - {MANIFEST} - approvals
    if signed != hashes.keys():
        missing, more = hashes.keys() - signed, signed - hashes.keys()
        told = [
            f"{counted(len(missing), 'file')} missing{_some(missing)}",
            f"{len(more)} that nobody signed{_some(more)}",
        ]
        raise _broken(f"a release with {' and '.join(told)}")

    refuse_unnamed(approvals, statement.predicate)

    public = public_sources_of(_checked(folder, PUBLIC_LABELS, hashes))
    if public.sources != statement.predicate.label_sources:
        raise _broken("public label sources other than the signed statement says")
    check = ContentCheck(statement.predicate, public)
    texts = {}
    for name in hashes:
        content = _checked(folder, name, hashes)
        check.file(name, content)
        if not name.endswith(VOLUME_ENDING):
            texts[name] = content
    check.finish()
    return VerifiedRelease(
        statement_sha256=hashlib.sha256(payload).hexdigest(),
        predicate=statement.predicate,
        payload=payload,
        texts=texts,
        approvals={
            name: read_small(folder / name, f"approval by {Path(name).name[:12]}…", LARGEST) for name in approvals
        },
        files=len(hashes),
        volumes=check.volumes,
        signed_by=unverified(envelope)[0],
    )


def _report(verified: VerifiedRelease, trusted: Iterable[Ed25519PublicKey], *, notices_read: bool) -> ReleaseReport:
    predicate = verified.predicate
    approvals = check_approvals(verified.approvals, verified.statement_sha256, predicate, trusted)
    missing = missing_approvals(predicate, (approval.key for approval in approvals))
    return ReleaseReport(
        release_sha256=verified.statement_sha256,
        kind=predicate.kind,
        tier=predicate.tier,
        verdict=predicate.audit.verdict,
        audit_permits_sharing=predicate.audit_permits_sharing,
        note=_note(predicate),
        dp=said(predicate.dp),
        study_digest=predicate.study_digest,
        generator_sha256=predicate.generator_sha256,
        label_sources=tuple(dict.fromkeys(source.name for source in predicate.label_sources)),
        sharing=predicate.sharing,
        one_site=predicate.one_site,
        recipes=tuple(dict.fromkeys(row.recipe for row in predicate.label_making.edited)),
        files=verified.files,
        volumes=verified.volumes,
        created=predicate.created,
        signed_by=verified.signed_by,
        approving_sites=len(predicate.approving_sites),
        approvals=approvals,
        missing_approvals=missing,
        approved=bool(predicate.approving_sites) and not missing,
        notices_read=notices_read,
    )


def _refuse_other_places(folder: Path) -> None:
    """Tell a mistyped path from a release that lost its signature.

    Whatever holds a file that a release may hold, weights or a volume, stays a failed verification: to take the
    manifest away must never turn one into mere bad input.
    """
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
        if is_folder and _traces_of_a_release(folder):
            return
        found = "a folder with nothing in it that a release holds" if is_folder else "no folder, but a file"
    except OSError:
        found = "no folder that can be read at the path given"
    raise DataError(found, expected=f"a release's folder, which holds {MANIFEST}", remedy="Check the path.")


def _traces_of_a_release(folder: Path) -> bool:
    """Whether anything in the folder, at any depth, could be of a release; a part that cannot be read could."""
    if not _TRACES.isdisjoint(os.listdir(folder)):
        return True
    unread: list[OSError] = []
    names = (name for _, _, files in os.walk(folder, onerror=unread.append) for name in files)
    return any(name in _TRACES or name.lower().endswith(_TRACE_ENDINGS) for name in names) or bool(unread)


def _note(predicate: ReleasePredicate) -> str:
    found = predicate.audit.finding
    tested = (
        found[0].lower() + found[1:].rstrip(".") if predicate.audit.verdict == "PASS" else "the audit is inconclusive"
    )
    return tested if predicate.audit_permits_sharing else f"{NOT_FOR_SHARING}: {tested}, tier {predicate.tier}"


MOST_SAID = 120
"""Characters of a path that nobody signed, which an error shows; those that nobody sees, escaped."""


def _walk(folder: Path) -> Iterator[str]:
    """Paths of all files, ``/`` between parts. Links, devices and folders without a file are refused."""
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise _broken("a release that is not a folder")
        pending = [(folder, "")]
        while pending:
            here, prefix = pending.pop()
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
            if not entries and prefix:
                raise _broken(f"an empty folder in the release: {prefix[:MOST_SAID]!r}")
            for entry in entries:
                if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                    raise _broken(f"a link or device in the release: {(prefix + entry.name)[:MOST_SAID]!r}")
                if entry.is_dir():
                    pending.append((Path(entry.path), f"{prefix}{entry.name}/"))
                else:
                    yield f"{prefix}{entry.name}"
    except OSError:
        raise _broken("a release that cannot be read") from None


def _some(names: Iterable[str]) -> str:
    """The first few, in brackets; a name that was made to look like something else shows what it is."""
    first = sorted(names)[:_NAMED]
    return (
        f" ({', '.join(repr(name[:100]) for name in first)}{', …' if len(set(names)) > _NAMED else ''})"
        if first
        else ""
    )


def _checked(folder: Path, name: str, hashes: dict[str, str]) -> bytes:
    """A signed file's content. One that changed is never held in memory: it can be of any size."""
    if name not in hashes:
        raise _broken(f"a release without {name}")
    try:
        with _opened(folder, name) as file:
            size = os.fstat(file.fileno()).st_size
            unchanged = size <= LARGEST_FILE and _digest(file) == hashes[name]
            file.seek(0)
            # Read again, and hashed again: what was hashed is what is judged.
            content = file.read(size) if unchanged else b""
    except OSError:
        raise _broken(f"'{name}' cannot be read") from None
    if not unchanged or hashlib.sha256(content).hexdigest() != hashes[name]:
        raise _broken(f"'{name}' changed since it was signed")
    return content


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _read(folder: Path, name: str, limit: int) -> bytes:
    try:
        with _opened(folder, name) as file:
            size = os.fstat(file.fileno()).st_size
            small = size <= limit
            content = file.read(size) if small else b""
    except OSError:
        raise _broken(f"'{name}' cannot be read") from None
    if not small:
        raise _broken(f"'{name}' is larger than any")
    return content


def _opened(folder: Path, name: str) -> BinaryIO:
    # O_NOFOLLOW: the file may have been exchanged for a link since the folder was listed; for a pipe, O_NONBLOCK.
    return os.fdopen(os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def _broken(found: str) -> VerificationFailed:
    return VerificationFailed(
        found,
        expected="a folder exactly as it was signed, of files that carry nothing but the release",
        remedy="Do not use it; make it anew, or ask the signer for a fresh copy.",
    )
