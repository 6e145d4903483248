"""How questions and answers of secure aggregation lie in a message, without Flower.

Records are flat: text, whole numbers, bytes, and lists of them. Each parser bounds what it takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import PeerError
from ..exchange import SITE_NAME, RoundRequest
from .fixed_point import Ring
from .keys import MOST_BYTES
from .messages import (
    Given,
    InputGiven,
    InputWanted,
    KeysGiven,
    KeysWanted,
    SharesGiven,
    SharesWanted,
    SumGiven,
    SumWanted,
)
from .sealing import SEALED_BYTES
from .shares import SIZE

Value = int | str | bytes | list[str] | list[bytes]
Record = Mapping[str, object]

MOST_SITES = 1000
"""In a message."""
_MOST_METRICS = 8


def question_record(wanted: KeysWanted | SharesWanted | SumWanted) -> dict[str, Value]:
    """A question as it lies in a message; :func:`input_record` goes beside a plain round's request."""
    match wanted:
        case KeysWanted():
            return {"study-digest": wanted.study, "round": wanted.round}
        case SharesWanted():
            return {"round": wanted.round, "keys": list(wanted.keys)}
        case SumWanted():
            return {
                "round": wanted.round,
                "session": wanted.session,
                "alive": list(wanted.alive),
                "keys": list(wanted.keys),
            }


def parse_keys_wanted(record: Record) -> KeysWanted:
    """Raises PeerError for anything else."""
    return KeysWanted(_text(record, "study-digest", 64), _round(record))


def parse_shares_wanted(record: Record) -> SharesWanted:
    """Raises PeerError for anything else."""
    return SharesWanted(_round(record), _all_bytes(record, "keys", MOST_BYTES))


def parse_sum_wanted(record: Record) -> SumWanted:
    """Raises PeerError for anything else."""
    keys = _all_bytes(record, "keys", MOST_BYTES)
    return SumWanted(_round(record), _text(record, "session", 64), _names(record, "alive"), keys)


def input_record(wanted: InputWanted) -> dict[str, Value]:
    """Session and boxes; the request itself lies beside it as in a plain round."""
    return {"session": wanted.session, **_boxes_record(wanted.boxes)}


def parse_input_wanted(record: Record, request: RoundRequest) -> InputWanted:
    """Raises PeerError for anything else."""
    return InputWanted(request, _text(record, "session", 64), _boxes(record, "boxes", SEALED_BYTES))


def answer_record(given: Given) -> dict[str, Value]:
    """An answer as it lies in a message, but for the masked values and the metrics of an :class:`InputGiven`."""
    common: dict[str, Value] = {"site": given.site, "round": given.round}
    match given:
        case KeysGiven():
            return common | {"keys": given.keys}
        case SharesGiven():
            return common | {"session": given.session, **_boxes_record(given.boxes)}
        case InputGiven():
            return common | {"session": given.session, "keys": given.keys}
        case SumGiven():
            record = common | {"session": given.session}
            record |= {"shares-of": list(given.shares), "shares": list(given.shares.values())}
            if given.next:
                record |= {"next-session": given.next.session, **_boxes_record(given.next.boxes)}
            return record


def parse_keys_given(record: Record) -> KeysGiven:
    """Raises PeerError for anything else."""
    return KeysGiven(_site(record), _round(record), _bytes(record, "keys", MOST_BYTES))


def parse_shares_given(record: Record) -> SharesGiven:
    """Raises PeerError for anything else."""
    session = _text(record, "session", 64)
    return SharesGiven(_site(record), _round(record), session, _boxes(record, "boxes", SEALED_BYTES))


def parse_input_given(record: Record, metrics: Mapping[str, object], masked: Ring) -> InputGiven:
    """Raises PeerError for anything else; the masked values are as they came."""
    values = {name: float(v) for name, v in metrics.items() if isinstance(v, int | float)}
    weight = values.pop("weight", 0.0)
    if len(values) > _MOST_METRICS:
        raise _malformed()
    session, keys = _text(record, "session", 64), _bytes(record, "keys", MOST_BYTES)
    return InputGiven(_site(record), _round(record), session, masked, weight, values, keys)


def parse_sum_given(record: Record) -> SumGiven:
    """Raises PeerError for anything else."""
    site, number = _site(record), _round(record)
    next_round = None
    if "next-session" in record:
        boxes = _boxes(record, "boxes", SEALED_BYTES)
        next_round = SharesGiven(site, number + 1, _text(record, "next-session", 64), boxes)
    shares = _boxes(record, "shares", SIZE)
    return SumGiven(site, number, _text(record, "session", 64), shares, next_round)


def _boxes_record(boxes: Mapping[str, bytes]) -> dict[str, Value]:
    return {"boxes-of": list(boxes), "boxes": list(boxes.values())}


def _boxes(record: Record, name: str, size: int) -> dict[str, bytes]:
    """Bytes of one size by site name, from two lists of the same length."""
    sites, boxes = _names(record, f"{name}-of"), _all_bytes(record, name, size)
    if len(sites) != len(boxes) or any(len(box) != size for box in boxes):
        raise _malformed()
    return dict(zip(sites, boxes, strict=True))


def _names(record: Record, name: str) -> tuple[str, ...]:
    value = record.get(name)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) > MOST_SITES:
        raise _malformed()
    names = tuple(value)
    if not all(isinstance(site, str) and re.fullmatch(SITE_NAME, site) for site in names) or len(set(names)) < len(
        names
    ):
        raise _malformed()
    return names


def _all_bytes(record: Record, name: str, most: int) -> tuple[bytes, ...]:
    value = record.get(name)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) > MOST_SITES:
        raise _malformed()
    if not all(isinstance(part, bytes) and len(part) <= most for part in value):
        raise _malformed()
    return tuple(value)


def _bytes(record: Record, name: str, most: int) -> bytes:
    value = record.get(name)
    if not isinstance(value, bytes) or len(value) > most:
        raise _malformed()
    return value


def _text(record: Record, name: str, most: int) -> str:
    value = record.get(name)
    if not isinstance(value, str) or len(value) > most:
        raise _malformed()
    return value


def _site(record: Record) -> str:
    site = _text(record, "site", 32)
    if not re.fullmatch(SITE_NAME, site):
        raise _malformed()
    return site


def _round(record: Record) -> int:
    value = record.get("round")
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
        raise _malformed()
    return value


def _malformed() -> PeerError:
    return PeerError(
        "a message of secure aggregation that is not laid out as agreed",
        expected="the exchange of this FedPhantom version, for the same study",
        remedy="Compare 'fedphantom --version' and 'fedphantom study show' on both sides.",
    )
