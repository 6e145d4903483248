"""How a round's request and reply lie in a message: plain headers and one packed array, without Flower.

Names and shapes do not travel; each side unpacks by its own network's specification, and the header's
``layout`` (that specification's hash) shows that both sides mean the same network.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .errors import PeerError
from .exchange import RoundReply, RoundRequest
from .gan.parameters import ParameterSpec

GENERATOR, FLAT = "generator", "flat"
"""Name of the record of arrays, and of its one array, shape (values,), float32."""
HEADER = "round"
METRICS = "metrics"
FAILURE = "failure"
"""A reply holds either generator, header and metrics, or this record alone: ``site`` and ``reason``."""

WEIGHT = "weight"
MASKED = "masked"
"""Name of a secure round's one array, in place of :data:`FLAT`: shape (values,), uint32."""
QUESTION = "secure"
"""Name of the record with what is asked or answered of a secure round (:mod:`.masking.records`)."""


def request_header(request: RoundRequest) -> dict[str, str | int]:
    """The header that goes with the packed ``request.generator``."""
    layout = ParameterSpec.of(request.generator).digest()
    return {"study-digest": request.study_digest, "round": request.round, "layout": layout}


def parse_request(header: Mapping[str, object], flat: NDArray[np.float32], spec: ParameterSpec) -> RoundRequest:
    """The request, structure checked; whether it is wanted is for the site to decide.

    Raises:
        PeerError: a key is missing or of another type, or the coordinator's network is another.
    """
    digest, number = header.get("study-digest"), header.get("round")
    if not isinstance(digest, str) or not isinstance(number, int) or not 1 <= number < 2**31:
        raise _malformed("the coordinator's request lacks a study digest or a round number")
    return RoundRequest(digest, number, _unpack(header, flat, spec, "the coordinator's request"))


def reply_header(reply: RoundReply) -> dict[str, str | int]:
    """The header that goes with the packed ``reply.generator``."""
    return {"site": reply.site, "round": reply.round, "layout": ParameterSpec.of(reply.generator).digest()}


def reply_metrics(reply: RoundReply) -> dict[str, float]:
    """Declared weight and metrics in one record."""
    return {WEIGHT: float(reply.weight)} | {f"metric-{name}": float(v) for name, v in reply.metrics.items()}


def parse_reply(
    header: Mapping[str, object], metrics: Mapping[str, object], flat: NDArray[np.float32], spec: ParameterSpec
) -> RoundReply:
    """The reply, structure checked; its values are checked where they are averaged.

    Raises:
        PeerError: a key is missing or of another type, or the site's network is another.
    """
    site, number, weight = header.get("site"), header.get("round"), metrics.get(WEIGHT)
    if not isinstance(site, str) or not isinstance(number, int) or not isinstance(weight, int | float):
        raise _malformed("a site's reply lacks its name, round or weight")
    values = {
        name.removeprefix("metric-"): float(value)
        for name, value in metrics.items()
        if name.startswith("metric-") and isinstance(value, int | float)
    }
    return RoundReply(site, number, _unpack(header, flat, spec, "a site's reply"), float(weight), values)


def _unpack(
    header: Mapping[str, object], flat: NDArray[np.float32], spec: ParameterSpec, what: str
) -> dict[str, NDArray[np.float32]]:
    if header.get("layout") != spec.digest() or flat.shape != (spec.values,) or flat.dtype != np.float32:
        raise _malformed(f"{what} holds another network's parameters")
    return spec.unpack(flat)


def _malformed(found: str) -> PeerError:
    return PeerError(
        found,
        expected="the exchange of this FedPhantom version, for the same study",
        remedy="Compare 'fedphantom --version' and 'fedphantom study show' on both sides.",
    )
