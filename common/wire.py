"""How a round's request and reply lie in a message: plain headers and one packed array, without Flower.

Names and shapes do not travel; each side unpacks by its own network's specification, and the header's
``layout`` (that specification's hash) shows that both sides mean the same network. The array's type is the study's
transport.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import TypeVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .errors import PeerError
from .exchange import Parameters, RoundReply, RoundRequest
from .gan.parameters import ParameterSpec
from .transport import Transport, value_bytes

GENERATOR, FLAT = "generator", "flat"
"""Name of the record of arrays, and of its one array, shape (values,), of the study's transport."""
HEADER = "round"
METRICS = "metrics"
FAILURE = "failure"
"""A reply holds either generator, header and metrics, or this record alone: ``site`` and ``reason``."""

WEIGHT = "weight"
MASKED = "masked"
"""Name of a secure round's one array, in place of :data:`FLAT`: shape (values,), uint32."""
QUESTION = "secure"
"""Name of the record with what is asked or answered of a secure round (:mod:`.masking.records`)."""
_NUMPY_HEADER_BYTES = 4096

S = TypeVar("S", np.float16, np.float32, np.uint32)
Flat = NDArray[np.float32] | NDArray[np.float16]


def packed(spec: ParameterSpec, parameters: Parameters, transport: Transport) -> Flat:
    """All values in one array as it travels; the parameters hold what the transport can carry already."""
    return spec.pack(parameters).astype(transport, copy=False)


def read_flat(data: bytes, spec: ParameterSpec, transport: Transport) -> Flat:
    """The array in an NPY file that another machine wrote, as a view on its bytes.

    Not ``np.load``: it also opens archives, and makes room for whatever size a header claims.

    Raises:
        PeerError: anything but one array of all values in the study's transport.
    """
    if len(data) > _most_bytes(spec, transport):
        raise _no_array(transport)
    return _array(data, spec, np.float16) if transport == "float16" else _array(data, spec, np.float32)


def read_masked(data: bytes, spec: ParameterSpec) -> NDArray[np.uint32]:
    """The same of a secure round's masked values. Raises PeerError."""
    if len(data) > spec.bytes + _NUMPY_HEADER_BYTES:
        raise _no_array("uint32")
    return _array(data, spec, np.uint32)


def _array(data: bytes, spec: ParameterSpec, kind: type[S]) -> NDArray[S]:
    stream = BytesIO(data)
    try:
        if npy.read_magic(stream) != (1, 0):
            raise ValueError
        shape, _, dtype = npy.read_array_header_1_0(stream)
        flat = np.frombuffer(data, kind, offset=stream.tell())
        if shape != (spec.values,) or dtype != flat.dtype or flat.shape != shape:
            raise ValueError
    except (ValueError, EOFError):
        raise _no_array(np.dtype(kind).name) from None
    return flat


def _no_array(kind: str) -> PeerError:
    return _malformed(f"a message holds no array of this network's parameters in {kind}")


def request_header(request: RoundRequest) -> dict[str, str | int]:
    """The header that goes with the packed ``request.generator``."""
    layout = ParameterSpec.of(request.generator).digest()
    return {"study-digest": request.study_digest, "round": request.round, "layout": layout}


def parse_request(
    header: Mapping[str, object], flat: Flat, spec: ParameterSpec, transport: Transport = "float32"
) -> RoundRequest:
    """The request, structure checked; whether it is wanted is for the site to decide.

    Raises:
        PeerError: a key is missing or of another type, or the coordinator's network is another.
    """
    digest, number = header.get("study-digest"), header.get("round")
    if not isinstance(digest, str) or not isinstance(number, int) or not 1 <= number < 2**31:
        raise _malformed("the coordinator's request lacks a study digest or a round number")
    return RoundRequest(digest, number, _unpack(header, flat, spec, transport, "the coordinator's request"))


def reply_header(reply: RoundReply) -> dict[str, str | int]:
    """The header that goes with the packed ``reply.generator``."""
    return {"site": reply.site, "round": reply.round, "layout": ParameterSpec.of(reply.generator).digest()}


def reply_metrics(reply: RoundReply) -> dict[str, float]:
    """Declared weight and metrics in one record."""
    return {WEIGHT: float(reply.weight)} | {f"metric-{name}": float(v) for name, v in reply.metrics.items()}


def parse_reply(
    header: Mapping[str, object],
    metrics: Mapping[str, object],
    flat: Flat,
    spec: ParameterSpec,
    transport: Transport = "float32",
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
    return RoundReply(site, number, _unpack(header, flat, spec, transport, "a site's reply"), float(weight), values)


def _unpack(
    header: Mapping[str, object], flat: Flat, spec: ParameterSpec, transport: Transport, what: str
) -> dict[str, NDArray[np.float32]]:
    if header.get("layout") != spec.digest() or flat.shape != (spec.values,):
        raise _malformed(f"{what} holds another network's parameters")
    if flat.dtype != np.dtype(transport):
        raise _malformed(f"{what} does not come in the study's {transport}")
    return spec.unpack(flat.astype(np.float32, copy=False))


def _most_bytes(spec: ParameterSpec, transport: Transport) -> int:
    """Largest size of that array's message: what is larger is not unpacked."""
    return spec.values * value_bytes(transport) + _NUMPY_HEADER_BYTES


def _malformed(found: str) -> PeerError:
    return PeerError(
        found,
        expected="the exchange of this FedPhantom version, for the same study",
        remedy="Compare 'fedphantom --version' and 'fedphantom study show' on both sides.",
    )
