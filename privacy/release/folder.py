"""Verifying a release: signature, files, contents; offline.

Verification starts at the signature and believes nothing that it does not cover. Every file is read
once: what was hashed is what is judged. What may lie in the folder is told in :mod:`.release_content`.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ...common.counted import counted
from ...common.errors import DataError, SignatureInvalid, VerificationFailed
from ...common.federation import Sharing
from ...common.signing import verify
from ...common.storage import TEMPORARY_PREFIX
from ..evidence import ReleaseKind
from ..finding import WORDING
from ..policy import Tier
from ..statement import ReleasePredicate, parse_statement
from ..verdict import Outcome
from .content import AUDIT, COHORT, GENERATOR, MANIFEST, PUBLIC_LABELS, ContentCheck, public_sources_of
from .readme import NOT_APPROVED

_LARGEST_MANIFEST = 1 << 28
_NAMED = 3
"""Files named of those that are missing or too many."""
_TRACES = {MANIFEST, AUDIT, PUBLIC_LABELS, GENERATOR, COHORT}
_TRACE_ENDINGS = (".dsse.json", ".safetensors", ".nii", ".nii.gz")


@dataclass(frozen=True)
class ReleaseReport:
    """What a verified release says of itself.

    Attributes:
        kind: ``volumes`` or ``weights``.
        tier: Whom it is meant for.
        verdict: Of its audit.
        approved_for_sharing: Whether verdict and tier let it leave the study.
        note: The same in words.
        dp: The formal promise.
        study_digest: Of the study.
        generator_sha256: Of the generator behind it.
        sharing: What the study's sites share.
        one_site: Whether one site alone trained the generator and stands behind the release.
        label_sources: Names of the public sources of its label maps.
        recipes: Names of the recipes that had a part in them.
        files: Files named in the statement.
        volumes: NIfTI files among them.
        created: UTC, ISO 8601.
        signed_by: Key id of the signer.
    """

    kind: ReleaseKind
    tier: Tier
    verdict: Outcome
    approved_for_sharing: bool
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

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self), sort_keys=True)

    def to_text(self) -> str:
        """A few lines for a person."""
        return "\n".join(
            (
                f"Verified: {counted(self.files, 'file')}, {self.volumes} of them volumes;"
                f" signed by {self.signed_by[:12]}…",
                f"{self.note[0].upper()}{self.note[1:]}.",
                f"Tier {self.tier}, audit verdict {self.verdict}, dp: {self.dp}.",
                f"Sharing {self.sharing}: "
                + ("one site trained the generator and stands behind it." if self.one_site else "an average of sites."),
                f"Label maps from: {', '.join(self.label_sources)}"
                + (f"; edited by: {', '.join(self.recipes)}." if self.recipes else "."),
                f"Study {self.study_digest[:12]}…, generator {self.generator_sha256[:12]}…, packed {self.created}.",
            )
        )


def verify_release(folder: Path, trusted: Iterable[Ed25519PublicKey]) -> ReleaseReport:
    """Verify a release, without a network.

    Every file is read once; what was hashed is what is judged.

    Args:
        folder: The release.
        trusted: The signers' public keys, from the signers.

    Raises:
        DataError: nothing at this path, or nothing that could be or have been a release: a mistyped path.
        SignatureInvalid: no manifest, or its signature does not hold or is by another key.
        VerificationFailed: a changed, missing or additional file, a link, or a content that does not belong
            in a release: see :mod:`.release_content`.
    """
    _refuse_other_places(folder)
    if folder.name.startswith(TEMPORARY_PREFIX):
        raise _broken("a folder whose packing was never finished")
    return verify_folder(folder, trusted)


def verify_folder(folder: Path, trusted: Iterable[Ed25519PublicKey]) -> ReleaseReport:
    """As :func:`verify_release`, whatever the folder is called."""
    present = set(_walk(folder))
    if MANIFEST not in present:
        raise SignatureInvalid(
            f"a folder without {MANIFEST}",
            expected="a signed release",
            remedy="Give the folder that holds that file, or ask the signer for it.",
        )
    envelope = _read(folder, MANIFEST, _LARGEST_MANIFEST)
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
    if present - {MANIFEST} != hashes.keys():
        missing, more = hashes.keys() - present, present - {MANIFEST} - hashes.keys()
        told = [
            f"{counted(len(missing), 'file')} missing{_some(missing)}",
            f"{len(more)} that nobody signed{_some(more)}",
        ]
        raise _broken(f"a release with {' and '.join(told)}")

    public = public_sources_of(_checked(folder, PUBLIC_LABELS, hashes))
    if public.sources != statement.predicate.label_sources:
        raise _broken("public label sources other than the signed statement says")
    check = ContentCheck(statement.predicate, public)
    for name in hashes:
        check.file(name, _checked(folder, name, hashes))
    check.finish()
    predicate = statement.predicate
    return ReleaseReport(
        kind=predicate.kind,
        tier=predicate.tier,
        verdict=predicate.audit.verdict,
        approved_for_sharing=predicate.approved_for_sharing,
        note=_note(predicate),
        dp=predicate.dp,
        study_digest=predicate.study_digest,
        generator_sha256=predicate.generator_sha256,
        label_sources=tuple(dict.fromkeys(source.name for source in predicate.label_sources)),
        sharing=predicate.sharing,
        one_site=predicate.one_site,
        recipes=tuple(dict.fromkeys(row.recipe for row in predicate.label_making.edited)),
        files=len(hashes),
        volumes=check.volumes,
        created=predicate.created,
        signed_by=json.loads(envelope)["signatures"][0]["keyid"],
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
    return tested if predicate.approved_for_sharing else f"{NOT_APPROVED}: {tested}, tier {predicate.tier}"


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
                raise _broken("an empty folder in the release")
            for entry in entries:
                if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                    raise _broken("a link or device in the release")
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
    if name not in hashes:
        raise _broken(f"a release without {name}")
    content = _read(folder, name)
    if hashlib.sha256(content).hexdigest() != hashes[name]:
        raise _broken(f"'{name}' changed since it was signed")
    return content


def _read(folder: Path, name: str, limit: int = -1) -> bytes:
    try:
        # O_NOFOLLOW: the file may have been exchanged for a link since the folder was listed.
        with os.fdopen(os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return file.read(limit)
    except OSError:
        raise _broken(f"'{name}' cannot be read") from None


def _broken(found: str) -> VerificationFailed:
    return VerificationFailed(
        found,
        expected="a folder exactly as it was signed, of files that carry nothing but the release",
        remedy="Do not use it; make it anew, or ask the signer for a fresh copy.",
    )
