"""Secure rounds under Flower: the coordinator's questions as the site's ClientApp gets them, and what goes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from ..common.errors import PeerError
from ..common.exchange import RoundRequest
from ..common.masking.messages import Given, InputGiven, Wanted
from ..common.masking.records import (
    Record,
    answer_record,
    parse_input_wanted,
    parse_keys_wanted,
    parse_shares_wanted,
    parse_sum_wanted,
)
from ..common.wire import GENERATOR, MASKED, METRICS, QUESTION, WEIGHT
from .site_round import Site

Parse = Callable[[Message, Site], Wanted]
Handle = Callable[[Message, Context, Parse], Message]
"""Opens the site's folder, reads the question, answers it; whatever fails becomes a failure record."""


def add_secure_rounds(app: ClientApp, handle: Handle, request_of: Callable[[Message, Site], RoundRequest]) -> None:
    """Have a ClientApp answer the questions of secure rounds.

    Args:
        app: The site's.
        handle: Answers one message.
        request_of: Reads a plain round's request, which a masked one holds too.
    """

    def masked(message: Message, site: Site) -> Wanted:
        return parse_input_wanted(_question(message), request_of(message, site))

    @app.query("keys")
    def keys(message: Message, context: Context) -> Message:
        return handle(message, context, lambda message, _: parse_keys_wanted(_question(message)))

    @app.query("shares")
    def shares(message: Message, context: Context) -> Message:
        return handle(message, context, lambda message, _: parse_shares_wanted(_question(message)))

    @app.train("masked")
    def train_masked(message: Message, context: Context) -> Message:
        return handle(message, context, masked)

    @app.query("sum")
    def open_sum(message: Message, context: Context) -> Message:
        return handle(message, context, lambda message, _: parse_sum_wanted(_question(message)))


def content_of(given: Given) -> RecordDict:
    """An answer as it leaves."""
    content = RecordDict({QUESTION: ConfigRecord({**answer_record(given)})})
    if isinstance(given, InputGiven):
        content[GENERATOR] = ArrayRecord({MASKED: Array(np.ascontiguousarray(given.masked, np.uint32))})
        metrics: Mapping[str, float] = {WEIGHT: float(given.weight), **given.metrics}
        content[METRICS] = MetricRecord({**metrics})
    return content


def _question(message: Message) -> Record:
    record = message.content.config_records.get(QUESTION)
    if record is None:
        raise PeerError(
            "a message of a secure round without its question",
            expected="the exchange of this FedPhantom version, for the same study",
            remedy="Compare 'fedphantom --version' on both sides.",
        )
    return record
