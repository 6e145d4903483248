"""``site start``: the site's SuperNode kept running, and what leaves told, until it is told to stop."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence

from ...common.errors import PeerError
from ...common.event_log import Level
from ...common.flower_programs import free_ports
from ...common.followed_log import FollowedLog
from ...common.journal import Journal, JournalEntry, read_journal
from ...common.service import Service
from ...common.site_folder import REPLY_LEFT, ROUND_FAILED, SiteFolder
from ...common.storage import storage_errors
from ...common.watched_file import WatchedFile
from ..secure_reply import MASKED_LEFT
from ..site_setup import read_egress_rule
from .answers import REPLY_ARRIVED, answered, round_over
from .connection import Connection
from .membership import Membership, read_membership
from .permission import check_permission
from .standing import refuse_absent, standing
from .supernode import SuperNode

RESTART_S = 15.0
"""From a SuperNode's end to its next start. A killed one is refused until its heartbeat lapses, for about a minute."""

SENT = b"Sent successfully"
"""What Flower 1.41 writes once a reply has reached the SuperLink."""

FETCHED_S = 60.0
"""From a reply's arrival at the SuperLink until its node may go: the coordinator's side fetches none of a node that has
signed off. It takes one reply after the other; of sixty-four sites with 50 MB each the last one waits 24 s."""

_ROUNDS_WAITED = 2
"""How many rounds' deadlines ``--once`` waits: within two, a round that goes on begins, and ends, for every site."""

_POLL_S = 0.5


def serve(folder: SiteFolder, say: Callable[[str], None], *, once: bool = False) -> None:
    """Answer the coordinator's rounds until interrupted; no process is left then.

    Args:
        folder: The site's folder, its study approved.
        say: Told of every round answered, and of every end of the SuperNode.
        once: Whether to end after one round that was answered and has reached the coordinator, for batch queues; of a
            sum, after the shares that open it.

    Raises:
        PeerError: ``once``, and the round failed here, or none was over within the time that two may take.
        PolicyRefused: the study does not stand approved, or the site paused or withdrew.
        ConfigError: another process serves this folder, the site has not joined, or Flower is not installed.
        StorageError: the disk is full, read-only or forbidden.
    """
    membership = read_membership(folder)  # first: before a site has joined there is nothing to approve
    check_permission(folder)
    place = folder.root / "node"
    with storage_errors():
        place.mkdir(parents=True, exist_ok=True)
    with Service.running(folder.root, place, say) as service:
        _Serving(folder, membership, service).run(once=once)


class _Serving:
    def __init__(self, folder: SiteFolder, membership: Membership, service: Service) -> None:
        self._folder, self._service = folder, service
        (port,) = free_ports(1)
        self._node = SuperNode(
            (folder.root / "node").resolve(),
            folder.root.resolve(),
            membership.address,
            authority=membership.authority.resolve(),
            key=membership.node_key.resolve(),
            port=port,
        )
        self._log = self._node.folder / "supernode.log"
        self._journal = WatchedFile(folder.journal)
        self._told = len(self._events())
        self._left: tuple[JournalEntry, float] | None = None  # what is on its way, and when it was seen to leave
        spec = read_egress_rule(folder).generator
        self._longest = _ROUNDS_WAITED * folder.study().federation.deadline_with(spec.values)

    def run(self, *, once: bool) -> None:
        self._node.prepare()
        added = FollowedLog(self._log)
        self._start()
        self._service.report(
            "info", "started", f"'{self._folder.name}' tries to reach the coordinator at {self._node.coordinator}"
        )
        begun, over, failed = time.monotonic(), False, False
        connection = Connection(begun)
        while True:
            time.sleep(_POLL_S)
            lines = added.lines()
            self._tell_whether_answered(connection, lines)
            new = self._tell()
            sent = any(SENT in line for line in lines)
            self._time(new, sent=sent)
            over = over or any(map(round_over, new))
            failed = failed or any(entry.event == ROUND_FAILED for entry in new)
            if once and over and sent:
                time.sleep(FETCHED_S)
                return
            waited = time.monotonic() - begun
            if once and failed and sent:
                time.sleep(FETCHED_S)  # the coordinator shall be told
                raise self._nothing("the round failed here", waited)
            if once and waited > self._longest:
                raise self._nothing("no round was over here", waited)
            if ended := self._service.processes.first_ended():
                self._service.report(
                    "warning",
                    "node-ended",
                    f"the SuperNode ended with code {ended[1]}; it is started again in {RESTART_S:.0f} s",
                    code=ended[1],
                )
                if standing(self._folder) == "withdrawn":
                    refuse_absent(self._folder)
                time.sleep(RESTART_S)
                self._left = None  # another node sends nothing of it
                self._start()
                connection.started_again(time.monotonic())

    def _tell_whether_answered(self, connection: Connection, lines: Sequence[bytes]) -> None:
        match connection.change(lines, time.monotonic()):
            case "answers":
                self._service.report(
                    "info",
                    "ready",
                    f"the coordinator at {self._node.coordinator} let this site in: ready for its rounds",
                )
            case "silent":
                self._service.report(
                    "warning",
                    "no-answer",
                    f"no answer from the coordinator at {self._node.coordinator} for a minute or longer; 'fedphantom"
                    f" site doctor {shlex.quote(str(self._folder.root))}' says what is in the way. It is tried again",
                )

    def _start(self) -> None:
        self._service.processes.start(
            "supernode", self._node.command(), log=self._log, environment=self._node.environment()
        )

    def _nothing(self, found: str, waited: float) -> PeerError:
        return PeerError(
            f"{found} after {waited / 60:.0f} min",
            expected=f"a round that is answered within {self._longest / 60:.0f} min, what two of the study may take",
            remedy="errors.log and node/supernode.log in the site's folder say what happened; ask the coordinator"
            " whether the study runs, then start it again.",
        )

    def _time(self, new: Sequence[JournalEntry], *, sent: bool) -> None:
        """Journal how long a round's reply took to the coordinator: all that is ever known of the link."""
        if left := [entry for entry in new if answered(entry)]:
            self._left = left[-1], time.monotonic()
        if sent and self._left:
            (entry, since), self._left = self._left, None
            # It left up to one look before it was seen to.
            seconds = round(time.monotonic() - since + _POLL_S, 1)
            facts = entry.facts
            Journal(self._folder.journal).append(
                REPLY_ARRIVED, round=facts["round"], bytes=facts["bytes"], seconds=seconds
            )

    def _tell(self) -> Sequence[JournalEntry]:
        """Say what the journal tells since; those lines."""
        if not self._journal.changed():  # reading it verifies all of it
            return ()
        new = self._events()[self._told :]
        self._told += len(new)
        for entry in new:
            if told := _TOLD.get(entry.event):
                level, facts = told
                self._service.report(
                    level, entry.event, _sentence(entry), **{name: entry.facts.get(name) for name in facts}
                )
        return new

    def _events(self) -> tuple[JournalEntry, ...]:
        return read_journal(self._folder.journal) if self._folder.journal.exists() else ()


_TOLD: Mapping[str, tuple[Level, tuple[str, ...]]] = {
    REPLY_LEFT: ("info", ("round", "bytes")),
    MASKED_LEFT: ("info", ("round", "bytes", "what")),
    ROUND_FAILED: ("error", ("round", "kind")),
    "bundle-refused": ("error", ("reason",)),
}
"""Journal events that are told at once: how, and which of their facts."""


def _sentence(entry: JournalEntry) -> str:
    facts = entry.facts
    match entry.event:
        case event if event in (REPLY_LEFT, MASKED_LEFT):
            size = facts.get("bytes")
            megabytes = f"{size / 1e6:.1f} MB" if isinstance(size, int) else "a reply"
            how = ", masked" if entry.event == MASKED_LEFT else ""
            return f"round {facts.get('round')}: {megabytes} left for the coordinator{how}"
        case event if event == ROUND_FAILED:
            return f"round {facts.get('round')} was not answered ({facts.get('kind')}); errors.log says why"
        case _:
            return str(facts.get("reason"))
