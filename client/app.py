"""The site's Flower ClientApp. It runs what this site installed; the bundle it is started by holds no code.

Nothing of the run configuration is read: what a site does follows from its own folder, which its own
``--node-config`` names as ``site-dir``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from ..common.errors import ConfigError, PeerError
from ..common.exchange import RoundReply, RoundRequest, SiteTrainer
from ..common.sayable import sayable_reason
from ..common.site_folder import SiteFolder
from ..common.wire import (
    FAILURE,
    FLAT,
    GENERATOR,
    HEADER,
    METRICS,
    packed,
    parse_request,
    read_flat,
    reply_header,
    reply_metrics,
)
from .conditions import Conditions
from .egress import EgressRule
from .secure_app import Parse, add_secure_rounds, content_of
from .site_round import OpenTrainer, Permit, Site, note_failure

Q = TypeVar("Q")
"""What is asked."""


def make_client_app(open_trainer: OpenTrainer, permit: Permit = Conditions.of_simulation) -> ClientApp:
    """A ClientApp around a trainer.

    Args:
        open_trainer: Called with the site's folder.
        permit: Asked before every answer for the conditions of it, and again before what was trained leaves.

    Each message opens the site's folder anew: Flower starts a process a round. Whatever fails, the reply
    is a failure record with the site's public name and a fixed sentence; no exception reaches Flower,
    which would send its text to the coordinator.
    """
    app = ClientApp()

    def answered(
        message: Message,
        context: Context,
        parse: Callable[[Message, Site], Q],
        answer: Callable[[Q, Site], RecordDict],
    ) -> Message:
        folder: SiteFolder | None = None
        try:
            folder = SiteFolder.open(_site_dir(context))
            site = Site(folder, open_trainer, permit)
            question = parse(message, site)
        except Exception as error:
            if folder is not None:
                note_failure(folder, error)
            return _failure(message, folder, error)
        try:
            content = answer(question, site)
        except Exception as error:  # noted by the site itself
            return _failure(message, folder, error)
        return Message(content, reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return answered(
            message,
            context,
            _request_of,
            lambda request, site: _content(site.train_round(request), site.rule),
        )

    def answer_masked(message: Message, context: Context, parse: Parse) -> Message:
        return answered(message, context, parse, lambda wanted, site: content_of(site.answer(wanted)))

    add_secure_rounds(app, answer_masked, _request_of)
    return app


def _site_dir(context: Context) -> Path:
    value = context.node_config.get("site-dir")
    if not isinstance(value, str) or not value:
        raise ConfigError(
            "no site-dir in the node configuration",
            expected="the site's folder",
            remedy="Start the SuperNode with 'fedphantom site start'.",
        )
    return Path(value)


def _request_of(message: Message, site: Site) -> RoundRequest:
    return _request(message, site.rule)


def _request(message: Message, rule: EgressRule) -> RoundRequest:
    spec = rule.generator
    arrays, header = message.content.array_records.get(GENERATOR), message.content.config_records.get(HEADER)
    expected = {FLAT} if spec.shapes else set()
    carried = list(arrays.values()) if arrays is not None and set(arrays) == expected else None
    if carried is None or header is None:
        raise PeerError(
            "the coordinator's message does not hold this study's generator",
            expected="one packed array and a header; no array where the study shares no weights",
            remedy="Compare 'fedphantom --version' on both sides.",
        )
    flat = read_flat(carried[0].data, spec, rule.dtype) if carried else np.empty(0, rule.dtype)
    return parse_request(header, flat, spec, rule.dtype)


def _content(reply: RoundReply, rule: EgressRule) -> RecordDict:
    spec = rule.generator
    flat = packed(spec, reply.generator, rule.dtype)
    return RecordDict(
        {
            GENERATOR: ArrayRecord({FLAT: Array(flat)} if spec.shapes else {}),
            METRICS: MetricRecord({**reply_metrics(reply)}),
            HEADER: ConfigRecord({**reply_header(reply)}),
        }
    )


def _failure(message: Message, folder: SiteFolder | None, error: Exception) -> Message:
    record: dict[str, str] = {"site": folder.name if folder else "", "reason": sayable_reason(error)}
    return Message(RecordDict({FAILURE: ConfigRecord({**record})}), reply_to=message)


def open_local_trainer(folder: Path) -> SiteTrainer:
    """The trainer of a site's folder."""
    # Here, so that a node which only reports a failure does not wait for torch.
    from .local_training import LocalTrainer

    return LocalTrainer.open(folder)


app = make_client_app(open_local_trainer)
