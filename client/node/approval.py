"""A site's approval of a study: what was seen when it was given, so that nothing else is ever run under it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from ... import __version__
from ...common.atomic import write_atomic
from ...common.counted import counted
from ...common.enrolment.fingerprint import fingerprint, parse_fingerprint
from ...common.errors import ConfigError, PolicyRefused, VerificationFailed, about
from ...common.installed_code import installed_code_digest
from ...common.journal import Journal, read_journal
from ...common.masking.terms import SUM_EXPECTED
from ...common.site_folder import SiteFolder
from ...common.study import Study, differing_keys, parse_study
from .limits import LIMITS_FILE, SiteLimits, read_limits
from .membership import Membership, read_membership

APPROVAL_FILE = "approval.json"
APPROVED = "study-approved"
"""Journal event, with the SHA-256 of the approval's file."""


@dataclass(frozen=True)
class Seen:
    """What an approval is about, by hash; two are equal where nothing that matters changed.

    Attributes:
        site: The site's own name.
        study: The study's TOML, as it lies in the site's folder.
        study_digest: Of what it says.
        sites: Fingerprint of each site's identity by its name, this one's among them.
        version: Of the installed package.
        code: SHA-256 of the installed package (:func:`installed_code_digest`).
        limits: SHA-256 of ``limits.toml``.
        egress: SHA-256 of ``egress.json``, which says what may leave.
    """

    site: str
    study: str
    study_digest: str
    sites: dict[str, str]
    version: str
    code: str
    limits: str
    egress: str

    @classmethod
    def now(cls, folder: SiteFolder) -> Seen:
        """What stands there at this moment.

        Raises:
            ConfigError: the site has not joined, or its study, limits or egress rule cannot be read.
            VerificationFailed: the roster's signature does not hold.
        """
        study, membership = folder.study(), read_membership(folder)
        return cls(
            site=folder.name,
            study=folder.study_file.read_text(encoding="utf-8"),
            study_digest=study.digest(),
            sites=dict(membership.fingerprints),
            version=__version__,
            code=installed_code_digest(),
            limits=_sha256(folder, LIMITS_FILE),
            egress=_sha256(folder, folder.egress.name),
        )

    def word(self) -> str:
        """The fingerprint to be repeated by whoever approves; it changes with everything that was shown."""
        return fingerprint("approval", json.dumps(asdict(self), sort_keys=True).encode())

    def changes_since(self, before: Seen) -> tuple[str, ...]:
        """What differs from an earlier approval, one phrase each."""
        found: list[str] = []
        if self.study_digest != before.study_digest:
            keys = differing_keys(parse_study(before.study), parse_study(self.study))
            found.append(f"the study differs in {', '.join(keys) or 'its text'}")
        found += [f"site '{name}' takes part now" for name in sorted(self.sites.keys() - before.sites.keys())]
        found += [f"site '{name}' no longer takes part" for name in sorted(before.sites.keys() - self.sites.keys())]
        found += [
            f"site '{name}' has other keys"
            for name in sorted(self.sites.keys() & before.sites.keys())
            if self.sites[name] != before.sites[name]
        ]
        if self.version != before.version:
            found.append(f"FedPhantom is {self.version}, and was {before.version}")
        elif self.code != before.code:
            found.append("the installed FedPhantom has other code under the same version")
        if self.limits != before.limits:
            found.append(f"{LIMITS_FILE} was changed")
        if self.egress != before.egress:
            found.append("what may leave (egress.json) was changed")
        return tuple(found)


@dataclass(frozen=True)
class Proposal:
    """A study as it is put before the person who approves.

    Attributes:
        seen: What would be approved.
        study: The study.
        membership: The sites and how their enrolment stands.
        limits: The site's own.
        changes: Since the last approval; None where there was none.
    """

    seen: Seen
    study: Study
    membership: Membership
    limits: SiteLimits
    changes: tuple[str, ...] | None


def propose(folder: SiteFolder, *, patients: int, reply_bytes: int) -> Proposal:
    """What an approval would be about, every limit of the site kept.

    Args:
        folder: The site's folder.
        patients: Training patients of the site.
        reply_bytes: Size of its largest reply.

    Raises:
        PolicyRefused: the study asks for more than the site's limits, is not the one that its roster names, or its
            secure aggregation would hide too little among the roster's sites.
        ConfigError, VerificationFailed: as :meth:`Seen.now`.
    """
    seen, study, membership, limits = (
        Seen.now(folder),
        folder.study(),
        read_membership(folder),
        read_limits(folder.root),
    )
    if membership.study_digest != seen.study_digest:
        raise PolicyRefused(
            "the study in this folder is not the one that its coordinator's roster names",
            expected="the study of the invitation, unchanged",
            remedy="If study.toml in this folder was edited, put the invitation's text back. A new study of the"
            " coordinator's needs an invitation of its own, and a folder of its own here.",
        )
    limits.refuse(study, sites=sorted(seen.sites), patients=patients, reply_bytes=reply_bytes)
    if problem := study.federation.sum_problem(seen.sites):
        raise PolicyRefused(
            f"secure aggregation over the sites of the roster: {problem}",
            expected=SUM_EXPECTED,
            remedy="Ask the coordinator for a study that fits its sites; in this one masks would hide too little.",
        )
    before = read_approval(folder)
    return Proposal(seen, study, membership, limits, None if before is None else seen.changes_since(before))


def approve(folder: SiteFolder, proposal: Proposal, word: str) -> None:
    """Write the approval and journal it.

    Args:
        folder: The site's folder.
        proposal: What was shown.
        word: What the person read at its end and repeats.

    Raises:
        PolicyRefused: other words: mistyped, or something changed since they were shown.
        ConfigError: they are no such words at all.
        StorageError: the disk is full, read-only or forbidden.
    """
    with about("--seen"):
        _refuse_other_words(folder, proposal, word)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = json.dumps({"approved": stamp, "seen": asdict(proposal.seen)}, indent=1, sort_keys=True) + "\n"
    write_atomic(folder.root / APPROVAL_FILE, text.encode())
    digest = hashlib.sha256(text.encode()).hexdigest()
    seen = proposal.seen
    Journal(folder.journal).append(
        APPROVED, approval=digest, study=seen.study_digest, code=seen.code, sites=sorted(seen.sites)
    )


def _refuse_other_words(folder: SiteFolder, proposal: Proposal, typed: str) -> None:
    expected = "the words at the end of what 'fedphantom site approve DIR' prints now"
    remedy = "Run 'fedphantom site approve DIR' without --seen, read what it says, and copy its last line whole."
    try:
        words = parse_fingerprint(typed)
    except ConfigError:
        letters = sum(map(str.isalnum, typed))
        raise ConfigError(
            f"no words of an approval ({counted(letters, 'letter or digit', 'letters and digits')})",
            expected=f"{expected}: XXXXX-XXXXX-XXXXX-XXXXX-XXXXX, no U among them",
            remedy=remedy,
        ) from None
    if words == proposal.seen.word():
        return
    before = read_approval(folder)
    if before is not None and words == before.word():
        found = f"the words of the approval before this one; since then: {'; '.join(proposal.changes or ())}"
    else:
        found = "not the words of what stands here now: they were mistyped, or something changed since they were shown"
    raise PolicyRefused(found, expected=expected, remedy=remedy)


def read_approval(folder: SiteFolder) -> Seen | None:
    """What was approved last; None where nothing was.

    Raises:
        VerificationFailed: the approval is not the one that the site's journal names.
    """
    digests = [
        entry.facts.get("approval")
        for entry in (read_journal(folder.journal) if folder.journal.exists() else ())
        if entry.event == APPROVED
    ]
    try:
        content = (folder.root / APPROVAL_FILE).read_bytes()
    except OSError:
        content = b""
    if not content and not digests:
        return None
    # A crash between file and line leaves an approval that was never journalled: it does not count either.
    if not digests or hashlib.sha256(content).hexdigest() != digests[-1]:
        raise VerificationFailed(
            f"an {APPROVAL_FILE} other than the one that the site's journal names",
            expected="the approval as it was written",
            remedy=f"Remove {APPROVAL_FILE} if it was not written by you, look into the journal, and approve again.",
        )
    return Seen(**json.loads(content)["seen"])


def refuse_unapproved(folder: SiteFolder) -> None:
    """Find that what would run now is what was approved.

    Raises:
        PolicyRefused: nothing was approved, or something changed since; says what.
        ConfigError, VerificationFailed: as :meth:`Seen.now` and :func:`read_approval`.
    """
    before = read_approval(folder)
    changes: Sequence[str] = ("nobody has approved it",) if before is None else Seen.now(folder).changes_since(before)
    if changes:
        raise PolicyRefused(
            f"the study does not stand approved at this site: {'; '.join(changes)}",
            expected="an approval of exactly what would run",
            remedy="Run 'fedphantom site approve' and read what it says.",
        )


def _sha256(folder: SiteFolder, name: str) -> str:
    try:
        return hashlib.sha256((folder.root / name).read_bytes()).hexdigest()
    except OSError:
        raise ConfigError(
            f"no readable {name} in the site's folder",
            expected="the file as 'fedphantom site init' writes it",
            remedy="Restore it, or make the site's folder again.",
        ) from None
