"""Flower's part of a round: messages out, messages in. What is averaged, and when, stands in ``rounds``.

One request goes to every connected node, one reply comes back from each; parameters travel as one
packed array, because Flower spends two requests on every array it carries; where the study shares no weights, as none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from ..common.errors import PeerError
from ..common.exchange import Parameters, RoundRequest
from ..common.gan.parameters import ParameterSpec
from ..common.wire import FAILURE, FLAT, GENERATOR, HEADER, METRICS, parse_reply, request_header
from .aggregation import SiteFailure
from .gathering import GATHERING_S, gather
from .rounds import Outcome, Rounds

_REASON_LENGTH = 200


class GeneratorAveraging(Strategy):
    """Weighted mean of generators with quorum, deadline and a checkpoint each round.

    Flower counts its rounds from 1 in every run; the study's own round number is ``rounds``' and goes on
    after a resume.

    Args:
        rounds: The run; moved on by each aggregation.
        node_of: The node that a reply answers for.
        gathering_s: Seconds a round waits for every site before it goes on with a quorum.
    """

    def __init__(self, rounds: Rounds, node_of: Callable[[Message], int], gathering_s: float = GATHERING_S) -> None:
        self.rounds = rounds
        self._node_of = node_of
        self._gathering_s = gathering_s
        self._spec = ParameterSpec.of(rounds.checkpoint.aggregate)
        self._request: RoundRequest | None = None
        self._names: dict[int, str] = {}

    def initial_arrays(self) -> ArrayRecord:
        """The aggregate that the next round starts from."""
        return _packed(self._spec, self.rounds.checkpoint.aggregate)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message for every connected node.

        Raises:
            PeerError: fewer nodes than the quorum until the deadline.
        """
        self._request = self.rounds.request()
        nodes = gather(grid, self.rounds.study, len(self.rounds.sites), self._gathering_s)
        # The aggregate comes from the checkpoint, not from `arrays`: what is on the disk is what goes on.
        content = RecordDict(
            {GENERATOR: self.initial_arrays(), HEADER: ConfigRecord({**request_header(self._request)})}
        )
        # Outlives the deadline: Flower drops messages past their time to live, replies included.
        ttl = self.rounds.study.federation.deadline_s + 600.0
        return [Message(content, node, MessageType.TRAIN, ttl=ttl) for node in nodes]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Complete the round.

        Raises:
            PeerError: fewer usable replies than the quorum.
        """
        if self._request is None:
            raise RuntimeError("aggregate_train before configure_train")
        record = self.rounds.complete(self._request, self._outcomes(replies))
        return self.initial_arrays(), MetricRecord({**record.metrics, "sites": len(record.sites)})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: figures on real data leave a site only inside its signed report."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing; see :meth:`configure_evaluate`."""
        return None

    def summary(self) -> None:
        """Nothing: the journal holds what a run is."""

    def _outcomes(self, replies: Iterable[Message]) -> Iterator[Outcome]:
        for message in replies:
            node = self._node_of(message)
            outcome = self._outcome(message, self._names.get(node, "unknown"))
            # A node keeps the first name it gave: it cannot answer in another site's name later.
            if outcome.site in self.rounds.sites and self._names.setdefault(node, outcome.site) != outcome.site:
                outcome = SiteFailure(self._names[node], "it changed its name")
            yield outcome

    def _outcome(self, message: Message, known_as: str) -> Outcome:
        if message.has_error():
            # Flower's own text may be a site's exception; its code says enough.
            return SiteFailure(known_as, f"its node failed (Flower code {message.error.code})")
        content = message.content
        failure = content.config_records.get(FAILURE)
        if failure is not None:
            reason = "".join(c for c in str(failure.get("reason", "")) if c.isprintable())[:_REASON_LENGTH]
            return SiteFailure(str(failure.get("site", "")) or known_as, reason or "it failed")
        arrays, metrics, header = (
            content.array_records.get(GENERATOR),
            content.metric_records.get(METRICS),
            content.config_records.get(HEADER),
        )
        expected = {FLAT} if self._spec.shapes else set()
        packed = list(arrays.values()) if arrays is not None and set(arrays) == expected else None
        oversized = any(len(array.data) > self._spec.bytes + 4096 for array in packed or ())
        if packed is None or metrics is None or header is None or oversized:
            return SiteFailure(known_as, "its reply is not laid out as agreed")
        try:
            flat = packed[0].numpy() if packed else np.empty(0, np.float32)
            return parse_reply(header, metrics, flat, self._spec)
        except (PeerError, TypeError, ValueError):
            return SiteFailure(known_as, "its reply is not laid out as agreed")


def _packed(spec: ParameterSpec, parameters: Parameters) -> ArrayRecord:
    return ArrayRecord({FLAT: Array(spec.pack(parameters))} if spec.shapes else {})
