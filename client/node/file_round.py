"""A round at a site without a network: a request read from a file, and the reply to it signed and kept.

The reply lies in the site's folder before it is handed out: the same request again gets the very same reply, without
a step of training, and so without spending anything. What is handed out stands in the journal first.
"""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...common.atomic import write_atomic
from ...common.enrolment.invitation import Invitation
from ...common.enrolment.roster import Roster
from ...common.errors import ConfigError, DataError, PolicyRefused, SignatureInvalid, VerificationFailed, about
from ...common.folder_lock import hold_folder
from ...common.journal import Journal, read_journal
from ...common.keys import public_key_of
from ...common.output_place import refuse_other
from ...common.round_files.one_exchange import refuse_several_exchanges
from ...common.round_files.reply import ReplyFile, ReplyStatement, read_reply, write_reply
from ...common.round_files.request import REQUEST, RequestFile, RequestStatement, read_request
from ...common.round_files.signed_tensors import refuse_nothing
from ...common.site_folder import SiteFolder
from ..site_round import OpenTrainer, Site
from ..site_setup import read_egress_rule
from .folder import NodeFolder
from .joining import accepted_roster, open_enrolled
from .keys import present_keys
from .permission import check_permission

REPLY_FILE_LEFT = "reply-file-left"
"""Journal event, written before a reply is handed out as a file: round, SHA-256 of request and reply, bytes."""

REQUEST_REFUSED = "request-refused"
"""Journal event: why a request file was not believed."""


@dataclass(frozen=True)
class ReplyHandedOut:
    """A reply in a file.

    Attributes:
        site: The site's public name.
        round: 1-based.
        rounds: Of the study.
        file: Where it lies.
        sha256: Of the file.
        bytes: Its size.
        request: SHA-256 of the request that it answers.
        again: Whether it had been made before.
    """

    site: str
    round: int
    rounds: int
    file: str
    sha256: str
    bytes: int
    request: str
    again: bool

    def text(self) -> str:
        """For a terminal."""
        made = "the reply that was made before" if self.again else "the reply"
        return (
            f"round {self.round} of {self.rounds}: {made} of '{self.site}' lies in {shlex.quote(self.file)}"
            f" ({self.bytes / 1e6:.1f} MB, SHA-256 {self.sha256[:16]}…)\n"
            "send it to the coordinator, who runs: fedphantom server import DIR FILE"
        )


def answer_request(root: Path, request: Path, out: Path, open_trainer: OpenTrainer, now: datetime) -> ReplyHandedOut:
    """Train the round that a file asks for, and write the signed reply; the same request again gets the same reply.

    Args:
        root: The folder of a site that joined, its study approved.
        request: From the coordinator.
        out: A new file, or one that holds this very reply.
        open_trainer: Called with the site's folder, where it has to train.
        now: In UTC.

    Raises:
        PolicyRefused: the study does not stand approved, the site paused or withdrew, the round was answered to
            another request, or is none of the study's; the egress filter stopped the reply.
        SignatureInvalid: a request that the coordinator did not sign, or keys of this site that do not count.
        VerificationFailed: a request of another study, by a roster that this site has not seen, or changed.
        ConfigError: no site that joined, no request, a study with secure aggregation.
        OutputTaken: ``out`` is something else.
        FedPhantomError: as :meth:`Site.train_round`.
    """
    with about("REQUEST"):
        refuse_nothing(REQUEST, request)
    site = _Site.open(root, out, now)
    with hold_folder(site.folder.root / "node"):
        with about("REQUEST"):
            asked = site.asked(request)
        content, again = site.kept_for(asked), True
        if content is None:
            reply = Site(site.folder, open_trainer, check_permission).train_round(asked.request)
            content, again = write_reply(reply, asked, site.roster.serial, site.identity), False
            write_atomic(site.node.reply, content, mode=0o600)
        return site.hand_out(content, asked.request.round, asked.digest, out, again=again)


def export_reply(root: Path, out: Path, now: datetime) -> ReplyHandedOut:
    """Write the last reply once more.

    Args:
        root: The site's folder.
        out: A new file, or one that holds this very reply.
        now: In UTC.

    Raises:
        PolicyRefused: the study does not stand approved, or the site paused or withdrew.
        ConfigError: it answered no round by a file yet.
        SignatureInvalid: keys of this site that do not count, or other keys than the reply was signed with.
        VerificationFailed: the reply was changed.
        OutputTaken: ``out`` is something else.
    """
    site = _Site.open(root, out, now)
    with hold_folder(site.folder.root / "node"):
        kept = site.kept()
        return site.hand_out(kept.content, kept.reply.round, kept.statement.request, out, again=True)


@dataclass(frozen=True)
class _Site:
    """A site that may answer now."""

    folder: SiteFolder
    node: NodeFolder
    invitation: Invitation
    roster: Roster
    identity: Ed25519PrivateKey

    @classmethod
    def open(cls, root: Path, out: Path, now: datetime) -> _Site:
        with about("--out"):
            refuse_other(out, NodeFolder(root).reply)
        with about("DIR"):
            folder = SiteFolder.open(root)
            refuse_several_exchanges(folder.study())
        check_permission(folder)
        _, node, invitation = open_enrolled(root)
        roster = accepted_roster(node, invitation)
        return cls(folder, node, invitation, roster, _identity(folder, node, roster, now))

    def asked(self, path: Path) -> RequestFile:
        """The request in a file, found to be wanted."""
        key = public_key_of(self.invitation.coordinator_key.encode())
        try:
            asked = read_request(path, read_egress_rule(self.folder).generator, [key], self._judge)
        except VerificationFailed as error:
            Journal(self.folder.journal).append(REQUEST_REFUSED, reason=error.found)
            raise
        self._refuse_answered(asked)
        return asked

    def _judge(self, asked: RequestStatement) -> None:
        if asked.study_digest != self.invitation.study_digest:
            raise VerificationFailed(
                "a request of another study",
                expected="one of the study that this site was invited to",
                remedy="Ask the coordinator for the file that was meant.",
            )
        if asked.roster > self.roster.serial:
            raise VerificationFailed(
                f"a request made by roster number {asked.roster}, where this site goes by number {self.roster.serial}",
                expected="the roster that the coordinator goes by: it may name sites that were revoked since",
                remedy="Get the newest roster, run 'fedphantom site join' with it, approve the study again.",
            )

    def _refuse_answered(self, asked: RequestFile) -> None:
        entries = read_journal(self.folder.journal) if self.folder.journal.exists() else ()
        answered = [entry.facts for entry in entries if entry.event == REPLY_FILE_LEFT]
        last = max((int(str(a["round"])) for a in answered), default=0)
        if asked.request.round < last:
            raise PolicyRefused(
                f"a request for round {asked.request.round}, where this site has answered round {last}",
                expected="the last request again, or the next round's",
                remedy="Ask the coordinator for the newest request; a run that was set back has to begin anew.",
            )
        if any(a["round"] == asked.request.round and a["request"] != asked.digest for a in answered):
            raise PolicyRefused(
                f"another request for round {asked.request.round}, which this site has answered",
                expected="the same request, or the next round's",
                remedy="'fedphantom site export' writes the reply that was given once more. If the coordinator lost the"
                " request, it goes on without this site in this round.",
            )

    def kept(self) -> ReplyFile:
        """The last reply. Raises as :func:`export_reply`."""
        if not self.node.reply.exists():
            raise ConfigError(
                "no reply to hand out",
                expected="a site that has answered a round by a file",
                remedy="'fedphantom site train' answers a request.",
            )
        spec = read_egress_rule(self.folder).generator
        return read_reply(self.node.reply, spec, [self.identity.public_key()], _believe)

    def kept_for(self, asked: RequestFile) -> bytes | None:
        """The reply to this request that was made before, by the keys in use; None where it has to be made."""
        try:
            kept = self.kept()
        except (ConfigError, DataError, VerificationFailed):
            # Of keys that were renewed since, or damaged: the training state answers again without a step.
            return None
        return kept.content if kept.statement.request == asked.digest else None

    def hand_out(self, content: bytes, number: int, request: str, out: Path, *, again: bool) -> ReplyHandedOut:
        """Journal it, then write it."""
        digest = hashlib.sha256(content).hexdigest()
        Journal(self.folder.journal).append(
            REPLY_FILE_LEFT, round=number, request=request, sha256=digest, bytes=len(content)
        )
        write_atomic(out, content, mode=0o600)
        rounds = self.folder.study().training.rounds
        return ReplyHandedOut(self.folder.name, number, rounds, str(out), digest, len(content), request, again)


def _believe(statement: ReplyStatement, signer: str) -> None:
    """Nothing more is asked of what this site signed itself."""


def _identity(folder: SiteFolder, node: NodeFolder, roster: Roster, now: datetime) -> Ed25519PrivateKey:
    """The site's identity key, found to count: a reply by another would be trained for nothing."""
    own, present = roster.active(now).get(folder.name), present_keys(node)
    if own is None or present is None or own.keys() != present.public(folder.name):
        raise SignatureInvalid(
            "keys of this site that do not count on the roster here, or no longer",
            expected="a site whose enrolment holds",
            remedy="Join by the newest roster; renew keys before they expire ('fedphantom site renew').",
        )
    return present.identity
