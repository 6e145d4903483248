"""The coordinator's questions of secure rounds as Flower messages, and the sites' answers.

Questions about keys and sums are Flower queries, which a site answers without loading a network; training is Flower's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from ..common.errors import PeerError
from ..common.gan.parameters import ParameterSpec
from ..common.masking.messages import (
    InputWanted,
    KeysWanted,
    SharesWanted,
    SumWanted,
    Wanted,
)
from ..common.masking.records import (
    input_record,
    parse_input_given,
    parse_keys_given,
    parse_shares_given,
    parse_sum_given,
    question_record,
)
from ..common.wire import FAILURE, FLAT, GENERATOR, HEADER, MASKED, METRICS, QUESTION, read_masked, request_header
from .aggregation import SiteFailure
from .gathering import gather
from .polling_grid import UNREADABLE, PollingGrid
from .rounds import Rounds
from .secure_exchange import Answer

QUERY_S = 120.0
"""Seconds that an answer may take which nothing is trained for."""

_ACTIONS: Mapping[type[Wanted], str] = {
    KeysWanted: f"{MessageType.QUERY}.keys",
    SharesWanted: f"{MessageType.QUERY}.shares",
    InputWanted: f"{MessageType.TRAIN}.masked",
    SumWanted: f"{MessageType.QUERY}.sum",
}
_REASON_LENGTH = 200
_UNKNOWN = "unknown"
_NOT_AS_AGREED = "its reply is not laid out as agreed"


class FlowerSites:
    """Sites behind a Flower Grid; a :class:`SecureExchange`.

    Args:
        grid: Of the run.
        rounds: The run.
        let_in: How many of the run's sites are let in at this moment; without it all.
    """

    def __init__(self, grid: PollingGrid, rounds: Rounds, let_in: Callable[[], int] | None = None) -> None:
        self._grid, self._rounds, self._let_in = grid, rounds, let_in
        self._spec = ParameterSpec.of(rounds.checkpoint.aggregate)
        self._nodes: dict[str, int] = {}

    def everyone(self, wanted: KeysWanted | SumWanted, known: Callable[[Answer], bool]) -> Iterator[Answer]:
        """Ask every node that is there; a node whose answer its site signed is that site's from here on."""
        nodes = gather(lambda: sorted(self._grid.get_node_ids()), self._rounds, let_in=self._let_in)
        for node, answer in self._answers(dict.fromkeys(nodes, wanted)):
            if known(answer):
                self._nodes[answer.site] = node
            yield answer

    def each(self, wanted: Mapping[str, Wanted]) -> Iterator[Answer]:
        """Ask the nodes of these sites; one that answers in another's name has not answered."""
        sites = {self._nodes[site]: site for site in wanted if site in self._nodes}
        for node, answer in self._answers({node: wanted[site] for node, site in sites.items()}):
            if answer.site == sites[node]:
                yield answer
            elif isinstance(answer, SiteFailure):
                yield SiteFailure(sites[node], answer.reason)
            else:
                yield SiteFailure(sites[node], "it changed its name")

    def others(self, sites: tuple[str, ...]) -> bool:
        """Whether a node is connected that is none of these sites'."""
        return not set(self._grid.get_node_ids()) <= {self._nodes.get(site) for site in sites}

    def _answers(self, wanted: Mapping[int, Wanted]) -> Iterator[tuple[int, Answer]]:
        """(Node, its answer) of each node asked that answers in time."""
        deadline = self._rounds.deadline_s
        trains = any(isinstance(question, InputWanted) for question in wanted.values())
        seconds = deadline if trains else min(deadline, QUERY_S)
        # Outlives the deadline: Flower drops messages past their time to live, replies included.
        messages = [
            Message(
                _content(question, self._spec),
                node,
                _ACTIONS[type(question)],
                ttl=seconds + 600.0,
                # Whose reply it is, only the request's identifier says: a random word makes it one nobody can guess.
                group_id=secrets.token_hex(16),
            )
            for node, question in wanted.items()
        ]
        replies: Iterable[Message] = self._grid.send_and_receive(messages, timeout=seconds) if messages else ()
        for reply in replies:
            node = self._grid.node_of(reply)
            if node in wanted:
                answer = _answer(reply, wanted[node], self._spec)
                known = answer.site in self._rounds.sites  # another name is whatever somebody wrote there
                yield node, answer if known else SiteFailure(_UNKNOWN, _reason_of(answer))


def _content(wanted: Wanted, spec: ParameterSpec) -> RecordDict:
    if not isinstance(wanted, InputWanted):
        return RecordDict({QUESTION: ConfigRecord({**question_record(wanted)})})
    request = wanted.request
    return RecordDict(
        {
            GENERATOR: ArrayRecord({FLAT: Array(spec.pack(request.generator))}),
            HEADER: ConfigRecord({**request_header(request)}),
            QUESTION: ConfigRecord({**input_record(wanted)}),
        }
    )


def _answer(message: Message, wanted: Wanted, spec: ParameterSpec) -> Answer:
    if message.has_error():
        if message.error.code == UNREADABLE:
            return SiteFailure(_UNKNOWN, _NOT_AS_AGREED)
        # Flower's own text may be a site's exception; its code says enough.
        return SiteFailure(_UNKNOWN, f"its node failed (Flower code {message.error.code})")
    content = message.content
    failure, record = content.config_records.get(FAILURE), content.config_records.get(QUESTION)
    if failure is not None:
        reason = "".join(c for c in str(failure.get("reason", "")) if c.isprintable())[:_REASON_LENGTH]
        return SiteFailure(str(failure.get("site", "")) or _UNKNOWN, reason or "it failed")
    try:
        if record is None:
            raise ValueError
        match wanted:
            case KeysWanted():
                return parse_keys_given(record)
            case SharesWanted():
                return parse_shares_given(record)
            case SumWanted():
                return parse_sum_given(record)
            case InputWanted():
                masked = read_masked(content.array_records[GENERATOR][MASKED].data, spec)
                return parse_input_given(record, content.metric_records[METRICS], masked)
    except (PeerError, KeyError, TypeError, ValueError):
        return SiteFailure(_UNKNOWN, _NOT_AS_AGREED)


def _reason_of(answer: Answer) -> str:
    return answer.reason if isinstance(answer, SiteFailure) else "it comes from a site that is not part of the run"
