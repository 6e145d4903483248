"""Flower's part of a round: messages out, messages in. What is averaged, and when, stands in ``rounds``.

One request goes to every connected node, one reply comes back from each; parameters travel as one
packed array, because Flower spends two requests on every array it carries; where the study shares no weights, as none.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from ..common.errors import PeerError
from ..common.exchange import RoundRequest
from ..common.gan.parameters import ParameterSpec
from ..common.wire import FAILURE, FLAT, GENERATOR, HEADER, METRICS, packed, parse_reply, read_flat, request_header
from .aggregation import SiteFailure
from .gathering import GATHERING_S, gather
from .polling_grid import UNREADABLE
from .rounds import Outcome, Rounds

_REASON_LENGTH = 200
_NOT_AS_AGREED = "its reply is not laid out as agreed"


class GeneratorAveraging(Strategy):
    """Weighted mean of generators with quorum, deadline and a checkpoint each round.

    Flower counts its rounds from 1 in every run; the study's own round number is ``rounds``' and goes on
    after a resume.

    Args:
        rounds: The run; moved on by each aggregation.
        node_of: The node that a reply answers for.
        gathering_s: Seconds a round waits for every site before it goes on with a quorum.
        sites_of_nodes: Connected nodes and the site that each one's registered key belongs to. Without it, in a
            simulation, a node is whom it names itself first.
        let_in: How many of the run's sites are let in at this moment; without it all.
    """

    def __init__(
        self,
        rounds: Rounds,
        node_of: Callable[[Message], int],
        gathering_s: float = GATHERING_S,
        sites_of_nodes: Callable[[], Mapping[int, str]] | None = None,
        let_in: Callable[[], int] | None = None,
    ) -> None:
        self.rounds = rounds
        self._let_in = let_in
        self._sites_of_nodes = sites_of_nodes
        self._node_of = node_of
        self._gathering_s = gathering_s
        self._transport = rounds.study.federation.transport
        self._spec = ParameterSpec.of(rounds.checkpoint.aggregate)
        self._request: RoundRequest | None = None
        self._names: dict[int, str] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message for every connected node.

        Raises:
            PeerError: fewer nodes than the quorum until the deadline.
        """
        self._request = request = self.rounds.request()
        nodes = gather(lambda: self._connected(grid), self.rounds, self._gathering_s, self._let_in)
        # The aggregate comes from the checkpoint, not from `arrays`: what is on the disk is what goes on.
        arrays = ArrayRecord(
            {FLAT: Array(packed(self._spec, request.generator, self._transport))} if self._spec.shapes else {}
        )
        content = RecordDict({GENERATOR: arrays, HEADER: ConfigRecord({**request_header(request)})})
        # Outlives the deadline: Flower drops messages past their time to live, replies included.
        ttl = self.rounds.deadline_s + 600.0
        # Flower does not hold the sender that a reply names against the key of the node that sent it; only the
        # request's identifier says whose reply it is. A random word in each makes it one that no other node can guess.
        return [Message(content, node, MessageType.TRAIN, ttl=ttl, group_id=secrets.token_hex(16)) for node in nodes]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Complete the round; replies are taken one by one.

        Flower gets no arrays, which it would keep all run long: the checkpoint has them.

        Raises:
            PeerError: fewer usable replies than the quorum.
        """
        request, self._request = self._request, None
        if request is None:
            raise RuntimeError("aggregate_train before configure_train")
        record = self.rounds.complete(request, self._outcomes(replies))
        return None, MetricRecord({**record.metrics, "sites": len(record.sites)})

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

    def _connected(self, grid: Grid) -> list[int]:
        """Nodes to ask: all that are there, or those of the run's sites where it is known whose each one is."""
        if self._sites_of_nodes is None:
            return sorted(grid.get_node_ids())
        known = self._sites_of_nodes()
        self._names = {node: site for node, site in known.items() if site in self.rounds.sites}
        return sorted(self._names)

    def _outcomes(self, replies: Iterable[Message]) -> Iterator[Outcome]:
        for message in replies:
            outcome = self._named_outcome(message)
            del message  # each before the next reply is fetched, so that memory holds one
            yield outcome
            del outcome

    def _named_outcome(self, message: Message) -> Outcome:
        node = self._node_of(message)
        if self._sites_of_nodes is not None and node not in self._names:
            return SiteFailure("unknown", "it comes from a node of no enrolled site")
        outcome = self._outcome(message, self._names.get(node, "unknown"))
        # A node keeps its name, or the first that it gave: it cannot answer in another site's.
        bound = self._sites_of_nodes is not None or outcome.site in self.rounds.sites
        if bound and self._names.setdefault(node, outcome.site) != outcome.site:
            return SiteFailure(self._names[node], "it answered in another site's name")
        return outcome

    def _outcome(self, message: Message, known_as: str) -> Outcome:
        if message.has_error():
            if message.error.code == UNREADABLE:
                return SiteFailure(known_as, _NOT_AS_AGREED)
            # Flower's own text may be a site's exception; its code says enough.
            return SiteFailure(known_as, f"its node failed (Flower code {message.error.code})")
        # By their names: RecordDict's views by kind (array_records) hold themselves, and with them the whole reply,
        # until Python next looks for such cycles.
        content = message.content
        failure = content.get(FAILURE)
        if isinstance(failure, ConfigRecord):
            reason = "".join(c for c in str(failure.get("reason", "")) if c.isprintable())[:_REASON_LENGTH]
            return SiteFailure(str(failure.get("site", "")) or known_as, reason or "it failed")
        arrays, metrics, header = content.get(GENERATOR), content.get(METRICS), content.get(HEADER)
        expected = {FLAT} if self._spec.shapes else set()
        carried = list(arrays.values()) if isinstance(arrays, ArrayRecord) and set(arrays) == expected else None
        if carried is None or not isinstance(metrics, MetricRecord) or not isinstance(header, ConfigRecord):
            return SiteFailure(known_as, _NOT_AS_AGREED)
        try:
            empty = np.empty(0, self._transport)
            flat = read_flat(carried[0].data, self._spec, self._transport) if carried else empty
            return parse_reply(header, metrics, flat, self._spec, self._transport)
        except PeerError:
            return SiteFailure(known_as, _NOT_AS_AGREED)
