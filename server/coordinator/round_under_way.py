"""The round under way by files: its request, the replies that are here, and what becomes of them.

What lies on the disk decides. The newest checkpoint says which round it is; its request and replies lie in
``round-files`` until it is done. Each step may be cut off, and done again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ...common.atomic import for_owner_alone, write_atomic
from ...common.counted import counted
from ...common.errors import ConfigError, DataError, PolicyRefused, SignatureInvalid, VerificationFailed
from ...common.exchange import RoundRequest
from ...common.gan.parameters import ParameterSpec, parameters_digest
from ...common.journal import Journal, read_journal
from ...common.keys import key_id, load_private_key
from ...common.round_files.one_exchange import refuse_several_exchanges
from ...common.round_files.reply import ReplyFile, ReplyStatement, read_reply
from ...common.round_files.request import RequestFile, read_request, write_request
from ...common.storage import storage_errors
from ..aggregation import SiteFailure, reply_problem
from ..checkpoints import newest_round
from ..rounds import Outcome, Rounds
from ..run_folder import RunFolder
from ..simulation import MakeInitial
from .coordinator import Coordinator
from .folder import CoordinatorFolder
from .membership import Leaving, Membership
from .naming import name_generator
from .serving import superlink_of

ENGINE = "files"
"""In a run's summary."""

NO_REPLY = "no reply"
LEFT: Mapping[Leaving, str] = {"revoked": "its keys were revoked", "withdrew": "it withdrew"}
"""Why a site that left has no reply."""
LEFT_SINCE: Mapping[Leaving, str] = {
    "revoked": "its reply is signed with keys that were revoked since",
    "withdrew": "it withdrew after it had replied",
}
"""Why the reply of a site that left does not count."""
_NO_LONGER = {
    "revoked": "that were revoked",
    "renewed": "that were renewed",
    "withdrew": "that do not count since it withdrew",
    "expired": "that expired",
}
"""Why keys do not count."""

REQUEST_EXPORTED, REPLY_KEPT, REPLY_REFUSED = "request-exported", "reply-kept", "reply-refused"
"""Events of the run's journal."""


@dataclass(frozen=True)
class RoundUnderWay:
    """The run, opened and held by this process.

    Attributes:
        coordinator: Whose it is.
        rounds: The run.
        membership: Who is enrolled.
        now: In UTC.
    """

    coordinator: Coordinator
    rounds: Rounds
    membership: Membership
    now: datetime

    @property
    def number(self) -> int:
        """Which round, 1-based; one more than the study has once all are done."""
        return self.rounds.checkpoint.round + 1

    @property
    def awaited(self) -> tuple[str, ...]:
        """The run's sites that are still enrolled: no round waits for another."""
        left = self.membership.left()
        return tuple(site for site in self.rounds.sites if site not in left)

    @property
    def request_file(self) -> Path:
        """Where its request lies, or will."""
        return self.coordinator.folder.round_request(self.number)

    def make_request(self) -> RequestFile:
        """The request: the one that lies here already, or a new one.

        Raises:
            ConfigError: all rounds are done.
        """
        if self.rounds.finished:
            raise ConfigError(
                f"a study whose {counted(self.rounds.study.training.rounds, 'round')} came to an end",
                expected="a round to ask for",
                remedy="Nothing is left to do: 'fedphantom server import DIR' says where the result lies.",
            )
        wanted = self.rounds.request_again(0.0)
        here = self._request_here(wanted)
        if here:
            return here
        content = write_request(wanted, self.membership.serial, load_private_key(self.coordinator.folder.private_key))
        digest = hashlib.sha256(content).hexdigest()
        write_atomic(self.request_file, content)
        for_owner_alone(self.request_file.parent)  # replies will lie beside it
        self._journal.append(REQUEST_EXPORTED, round=self.number, sha256=digest, roster=self.membership.serial)
        return RequestFile(wanted, self.membership.serial, digest, content)

    def request(self) -> RequestFile | None:
        """The request that went out, timed from when it did; None where none did, or it is no longer here."""
        here = None if self.rounds.finished else self._request_here(self.rounds.request_again(0.0))
        if here is None:
            return None
        times = [
            datetime.fromisoformat(entry.time)
            for entry in read_journal(self.rounds.folder.journal)
            if entry.event == REQUEST_EXPORTED and entry.facts["sha256"] == here.digest
        ]
        self.rounds.request_again(max(0.0, (datetime.now(UTC) - times[0]).total_seconds()) if times else 0.0)
        return here

    def keep(self, asked: RequestFile, path: Path) -> None:
        """Take a reply to the request in; one that is here already changes nothing. Errors as `import_replies`."""
        try:
            found = self._read(path, asked, kept=False)
        except VerificationFailed as error:
            self._journal.append(REPLY_REFUSED, round=self.number, reason=error.found)
            raise
        site = found.reply.site
        place = self.coordinator.folder.round_reply(self.number, site)
        if self.why_missing(asked, site) is None:
            if place.read_bytes() == found.content:
                return
            raise PolicyRefused(
                f"another reply of site '{site}' to round {self.number}",
                expected="one reply of every site",
                remedy="The first one counts. Ask the site whether it sent two; its journal lists what left it.",
            )
        write_atomic(place, found.content, mode=0o600)
        self._journal.append(REPLY_KEPT, round=self.number, site=site, sha256=found.digest)

    def why_missing(self, asked: RequestFile, site: str) -> str | None:
        """Why a site has no reply here that could count, as one phrase; None where it has."""
        outcome = self._outcome(asked, site)
        return outcome.reason if isinstance(outcome, SiteFailure) else None

    def complete(self, asked: RequestFile) -> None:
        """Do the round with the replies that are here. Raises PeerError below the quorum."""
        self.rounds.complete(asked.request, self._outcomes(asked))
        self.forget_done()
        if self.rounds.finished:
            self.finish()

    def finish(self) -> None:
        """Write the results of a run whose rounds are done; written before, they are the same."""
        self.rounds.folder.write_results(self.rounds.study, self.rounds.sites, self.rounds.checkpoint, ENGINE)
        name_generator(self.coordinator.folder, self.rounds.study, self.rounds.checkpoint)

    def forget_done(self) -> None:
        """Remove files of rounds that are done: what one site sent is kept no longer than its round needs it."""
        with storage_errors():
            for path in self.coordinator.folder.round_files.glob("round-*.safetensors"):
                if path.name < f"round-{self.number:05d}":
                    path.unlink(missing_ok=True)

    @property
    def _journal(self) -> Journal:
        return Journal(self.rounds.folder.journal)

    @property
    def _spec(self) -> ParameterSpec:
        return ParameterSpec.of(self.rounds.checkpoint.aggregate)

    def _request_here(self, wanted: RoundRequest) -> RequestFile | None:
        """The request on the disk, if it asks for what is wanted."""
        key = load_private_key(self.coordinator.folder.private_key).public_key()
        try:
            here = read_request(self.request_file, self._spec, [key], lambda statement: None)
        except (ConfigError, DataError, VerificationFailed):
            return None
        asks = (here.request.study_digest, here.request.round, parameters_digest(here.request.generator))
        same = asks == (wanted.study_digest, wanted.round, parameters_digest(wanted.generator))
        return here if same else None

    def _outcomes(self, asked: RequestFile) -> Iterator[Outcome]:
        """One by one, so that no two replies are in memory for this."""
        for site in self.rounds.sites:
            yield self._outcome(asked, site)

    def _outcome(self, asked: RequestFile, site: str) -> Outcome:
        place = self.coordinator.folder.round_reply(self.number, site)
        if not place.exists():
            how = self.membership.left().get(site)
            return SiteFailure(site, LEFT[how] if how else NO_REPLY)
        try:
            return self._read(place, asked, kept=True).reply
        except SignatureInvalid:
            how = self.membership.left().get(site)
            return SiteFailure(site, LEFT_SINCE[how or "revoked"] + ", or was damaged here")
        except (ConfigError, DataError, VerificationFailed):
            return SiteFailure(site, "its reply was damaged here, or answers another request")

    def _read(self, path: Path, asked: RequestFile, *, kept: bool) -> ReplyFile:
        """A reply that can count. One that was ``kept`` does so although its keys expired or were renewed since."""
        keys = self._keys()
        found = read_reply(
            path,
            self._spec,
            [key for key, _, _ in keys.values()],
            lambda said, signer: self._judge(said, keys[signer][1], keys[signer][2], asked, kept=kept),
        )
        study = self.rounds.study
        weights = {site: study.federation.weight_of(site) for site in self.rounds.sites}
        promise = study.privacy.promise
        problem = reply_problem(found.reply, asked.request, weights, promise.epsilon if promise else None)
        if problem:
            raise DataError(
                f"a reply that cannot count: {problem}",
                expected="a reply as the study has it",
                remedy="Ask the site which release of FedPhantom wrote it, and what its journal says.",
            )
        return found

    def _keys(self) -> dict[str, tuple[Ed25519PublicKey, str, str]]:
        """Key id to identity key, whose it is, and how it stands, of everybody who was ever enrolled."""
        keys: dict[str, tuple[Ed25519PublicKey, str, str]] = {}
        for gone in self.membership.retired:
            keys[key_id(gone.identity())] = (gone.identity(), gone.name, gone.why)
        for site in self.membership.sites:
            keys[key_id(site.identity())] = (site.identity(), site.name, "" if site.active(self.now) else "expired")
        return keys

    def _judge(self, said: ReplyStatement, whose: str, standing: str, asked: RequestFile, *, kept: bool) -> None:
        """Refuse a reply by what it says, before its arrays are read."""
        if standing in ("revoked", "withdrew") or (standing and not kept):
            raise SignatureInvalid(
                f"a reply signed with keys of site '{whose}' {_NO_LONGER[standing]}",
                expected="keys that are enrolled and count now",
                remedy="If the site renewed its keys, have it run 'fedphantom site train' again with the same request.",
            )
        if said.site != whose:
            raise SignatureInvalid(
                "a reply signed with another site's keys than it names",
                expected="every site's reply signed by itself",
                remedy=f"Ask '{whose}', whose keys they are, how this came about. Nothing of it was taken in.",
            )
        if said.study_digest != asked.request.study_digest:
            raise VerificationFailed(
                "a reply of another study",
                expected="one of the study that this folder was made for",
                remedy="Import it into the folder of its own study.",
            )
        if said.round != asked.request.round:
            raise VerificationFailed(
                f"a reply to round {said.round} where round {asked.request.round} is under way",
                expected=f"a reply to round {asked.request.round}",
                remedy="If its round is done, it was counted then or came too late: nothing is to be done with it.",
            )
        if said.request != asked.digest:
            raise VerificationFailed(
                f"a reply to another request for round {said.round} than the one written here",
                expected="a reply that names this request",
                remedy=f"Hand out {self.request_file.name} again, and ask the site which file it answered.",
            )
        if not asked.roster <= said.roster <= self.membership.serial:
            raise VerificationFailed(
                f"a reply by roster number {said.roster}, where {asked.roster} to {self.membership.serial} were signed",
                expected="a site that goes by this coordinator's rosters",
                remedy="If an older registry lies here than before, restore the newest; else ask the site.",
            )


@contextmanager
def round_under_way(root: Path, initial: MakeInitial | None, now: datetime) -> Iterator[RoundUnderWay]:
    """Open a coordinator's run and hold it.

    Args:
        root: The coordinator's folder.
        initial: Makes the generator that the first round starts from; None where a round was asked before.
        now: In UTC.

    Raises:
        ConfigError: as :func:`export_request`.
        VerificationFailed: likewise.
    """
    coordinator = Coordinator.open(root)
    study, membership = coordinator.study(), coordinator.registry.read()
    refuse_several_exchanges(study)
    _refuse_served(coordinator.folder)
    run = RunFolder(coordinator.folder.run)
    if initial is None and not run.begun:
        raise ConfigError(
            "no round was asked by a file",
            expected="a request that was written before",
            remedy="Write it with 'fedphantom server export'.",
        )
    begun = newest_round(run.checkpoints) >= 0
    first = None if begun or initial is None else initial(study)
    with run.lock():
        sites = run.claimed()[1] if run.begun else [site.name for site in membership.active(now)]
        run.claim(coordinator.study_text, sites)
        rounds = Rounds.open(study, run, sites, first)
        under_way = RoundUnderWay(coordinator, rounds, membership, now)
        under_way.forget_done()
        yield under_way


def _refuse_served(folder: CoordinatorFolder) -> None:
    if superlink_of(folder).answers():
        raise ConfigError(
            "a coordinator that serves over the network at this moment",
            expected="rounds by files, or over the network, and not both at once",
            remedy="End 'fedphantom server start' first; the round under way begins again from the last checkpoint.",
        )
