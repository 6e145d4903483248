"""What coordinator and sites say to each other in a round of secure aggregation.

A coordinator asks four things, in this order; where nobody drops out, the first two only once in a study, because the
answers to the others bring the next round's keys and shares along:

    KeysWanted    fresh keys of a round                        KeysGiven    signed
    SharesWanted  everybody's keys -> sealed shares            SharesGiven  one box for every other site
    InputWanted   the round and the boxes -> train             InputGiven   masked update, next round's keys
    SumWanted     who is in the sum, next round's keys         SumGiven     one share of each site, next round's boxes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from ..exchange import RoundRequest
from .fixed_point import Ring


@dataclass(frozen=True)
class KeysWanted:
    """The coordinator asks for a round's fresh keys.

    Attributes:
        study: Digest of the study.
        round: 1-based.
    """

    study: str
    round: int


@dataclass(frozen=True)
class KeysGiven:
    """A site's signed keys (:class:`~.keys.RoundKeys` in an envelope)."""

    site: str
    round: int
    keys: bytes


@dataclass(frozen=True)
class SharesWanted:
    """The coordinator hands on all sites' signed keys."""

    round: int
    keys: tuple[bytes, ...]


@dataclass(frozen=True)
class SharesGiven:
    """A site's sealed shares.

    Attributes:
        site: The site's name.
        round: As asked.
        session: Of the keys that they are for (:attr:`~.keys.KeySet.session`).
        boxes: Receiver to box.
    """

    site: str
    round: int
    session: str
    boxes: Mapping[str, bytes]


@dataclass(frozen=True)
class InputWanted:
    """The coordinator asks for a round's training.

    Attributes:
        request: As in a plain round.
        session: Of the round.
        boxes: Sender to box, for the site that is asked.
    """

    request: RoundRequest
    session: str
    boxes: Mapping[str, bytes]


@dataclass(frozen=True)
class InputGiven:
    """What of a site's training may leave.

    Attributes:
        site: The site's name.
        round: As asked.
        session: As asked.
        masked: Its weighted update under all its masks, shape (values,).
        weight: As declared.
        metrics: Functions of public constants alone.
        keys: Signed, of the next round; empty after the last.
    """

    site: str
    round: int
    session: str
    masked: Ring
    weight: float
    metrics: Mapping[str, float]
    keys: bytes


@dataclass(frozen=True)
class SumWanted:
    """The coordinator says whose inputs are in the sum.

    Attributes:
        round: 1-based.
        session: Of the round.
        alive: Their names, sorted.
        keys: The next round's of these sites; none after the last, or where they are to be asked for anew.
    """

    round: int
    session: str
    alive: tuple[str, ...]
    keys: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class SumGiven:
    """A site's part in opening the sum.

    Attributes:
        site: The site's name.
        round: As asked.
        session: As asked.
        shares: Site to one share of 32 bytes: of its seed where it is in the sum, else of its mask key.
        next: Sealed shares of the next round, where keys of it came.
    """

    site: str
    round: int
    session: str
    shares: Mapping[str, bytes]
    next: SharesGiven | None = field(default=None)


Wanted = KeysWanted | SharesWanted | InputWanted | SumWanted
Given = KeysGiven | SharesGiven | InputGiven | SumGiven


def round_of(wanted: Wanted) -> int:
    """The round that a question is of."""
    return wanted.request.round if isinstance(wanted, InputWanted) else wanted.round


@runtime_checkable
class MaskingSite(Protocol):
    """A site of a secure round, as the coordinator's side sees it."""

    def answer(self, wanted: Wanted) -> Given:
        """Answer, or raise; asked the same again, the answer is the same or a refusal."""
        ...
