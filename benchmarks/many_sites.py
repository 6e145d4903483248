"""``many_sites.py SITES MEGABYTES``: two rounds of many sites, in a process of their own; prints seconds and peak MB.

The ServerApp's own code over a grid whose replies are made when they are asked for, as they come from a SuperLink.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity  # private: Message() reads its run and node from it
from numpy.lib import format as npy
from resident_peak import resident_peak_gib
from still_study import still_generator, still_study

from fedphantom.common.exchange import RoundReply
from fedphantom.common.gan.parameters import ParameterSpec
from fedphantom.common.wire import FLAT, GENERATOR, HEADER, METRICS, reply_header, reply_metrics
from fedphantom.server.app import run_study
from fedphantom.server.rounds import Rounds
from fedphantom.server.run_folder import RunFolder

ROUNDS = 2
FIRST_NODE = 2


class LazyGrid(Grid):
    """Nodes that answer at once, and are nowhere: each reply is made when it is fetched."""

    def __init__(self, sites: list[str], spec: ParameterSpec) -> None:
        self._sites, self._spec = sites, spec
        self._asked: dict[str, Message] = {}
        self._round = 0

    def set_run(self, run: Any) -> None:  # Flower's type is private
        """Nothing."""

    @property
    def run(self) -> Any:  # Flower's type is private
        """None."""
        return None

    def create_message(self, *args: Any, **kwargs: Any) -> Message:  # deprecated in Flower
        """Nobody asks for it."""
        raise AssertionError("asked for what no round asks for")

    def get_node_ids(self) -> Iterable[int]:
        """All of them."""
        return range(FIRST_NODE, FIRST_NODE + len(self._sites))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep whom they go to; the content would lie in the SuperLink's process."""
        identifiers = []
        for message in messages:
            identifier = f"{len(self._asked)}-{message.metadata.dst_node_id}"
            message.metadata.__dict__["_message_id"] = identifier
            message.content = RecordDict()
            self._asked[identifier] = message
            identifiers.append(identifier)
        self._round += bool(identifiers)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Their replies, made now."""
        return [self._reply(self._asked.pop(identifier)) for identifier in message_ids]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Nobody asks for it."""
        raise AssertionError("asked for what no round asks for")

    def _reply(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        reply = RoundReply(self._sites[node - FIRST_NODE], self._round, {}, 1.0, {"fake_mean": 0.0})
        values = self._spec.values
        flat = np.random.default_rng(node).standard_normal(values, dtype=np.float32)
        start = BytesIO()
        npy.write_array_header_1_0(start, npy.header_data_from_array_1_0(flat))
        data = b"".join([start.getvalue(), flat.data])
        content = RecordDict(
            {
                GENERATOR: ArrayRecord({FLAT: Array("float32", flat.shape, "numpy.ndarray", data)}),
                METRICS: MetricRecord({**reply_metrics(reply)}),
                HEADER: ConfigRecord({**reply_header(reply), "layout": self._spec.digest()}),
            }
        )
        return Message(content, reply_to=message)


def main(sites: int, megabytes: float) -> None:
    """Run the rounds, then print."""
    TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = 1, 0, 0
    names = [f"site-{n:03d}" for n in range(sites)]
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place))
        study = folder.claim(still_study(ROUNDS, sites), names)
        spec = ParameterSpec.of(Rounds.open(study, folder, names, still_generator(megabytes)).checkpoint.aggregate)
        started = time.perf_counter()
        rounds = run_study(LazyGrid(names, spec), folder)
        seconds = time.perf_counter() - started
        if any(len(record.sites) != sites for record in rounds.checkpoint.history):
            raise SystemExit("a site was left out")
    print(json.dumps({"seconds_per_round": seconds / ROUNDS, "peak_mb": resident_peak_gib() * 2**30 / 1e6}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
