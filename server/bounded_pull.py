"""How much of a reply is pulled from the SuperLink, and for how long: Flower 1.41 itself knows no bound but two hours.

A reply lies at the SuperLink in pieces of 5 MB that its node names. One piece may be named any number of times, and a
few megabytes sent become as many gigabytes in the ServerApp; pieces may be announced and never sent. Two functions of
the module that pulls them are replaced (:mod:`..common.flower_names`): one counts before it pulls and waits no longer
than it is told, the other counts before it puts pieces together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..common.errors import ConfigError
from ..common.flower_names import replace_names

_MODULE = "flwr.superlink.grid.http_grid"
_USES = ("= pull_objects(", "inflate_object_from_contents(msg_id, all_object_contents)")

SLACK_BYTES = 4_000_000
"""Of a reply beside its parameters: headers, metrics, the shares of a sum."""

_OBJECTS, _SMALLEST_PIECE = 64, 4_000_000
"""Objects of a reply beside the pieces of its parameters, at most; its parameters are cut into no smaller ones."""


class Unreadable(Exception):
    """A reply that Flower cannot put together, or that would be larger than any that is wanted."""


@dataclass
class PullBounds:
    """The bounds of this process.

    Attributes:
        most_bytes: Of a reply's parameters.
        seconds: For the next reply's pieces; Flower's own bound where it is None.
        pulls, inflates: Flower's own functions.
    """

    most_bytes: int
    seconds: float | None = None
    pulls: Any = field(default=None, repr=False)
    inflates: Any = field(default=None, repr=False)

    def install(self) -> None:
        """Have Flower pull within them.

        Raises:
            ConfigError: a Flower that is not known here: replies without a bound are taken from nobody.
        """
        from flwr.supercore.inflatable import inflatable_utils

        self.pulls = inflatable_utils.pull_objects
        self.inflates = inflatable_utils.inflate_object_from_contents
        instead = {"pull_objects": self.pull, "inflate_object_from_contents": self.inflate}
        if not replace_names(_MODULE, _USES, instead):
            raise ConfigError(
                "the installed Flower pulls replies in another way than is known here",
                expected="flwr 1.41, as FedPhantom's own requirements ask for",
                remedy="Install FedPhantom again with its requirements.",
            )

    def pull(self, *, object_ids: list[str], pull_object_fn: Any) -> dict[str, bytes]:
        """As Flower's, no more objects and bytes than a reply has, and within :attr:`seconds`.

        Raises:
            ObjectPullError: more than that; Flower's grid makes an error of the node's out of it.
        """
        from flwr.supercore.inflatable.inflatable_utils import ObjectPullError

        if len(object_ids) > _OBJECTS + self.most_bytes // _SMALLEST_PIECE:
            raise ObjectPullError(object_ids[0], "more parts than a reply has")
        left = self.most_bytes + SLACK_BYTES

        def counted(object_id: str) -> bytes:
            nonlocal left
            content: bytes = pull_object_fn(object_id)
            left -= len(content)
            if left < 0:
                raise ObjectPullError(object_id, "more bytes than a reply has")
            return content

        limits = {} if self.seconds is None else {"max_time": self.seconds}
        pulled: dict[str, bytes] = self.pulls(object_ids=object_ids, pull_object_fn=counted, **limits)
        return pulled

    def inflate(self, object_id: str, object_contents: dict[str, bytes]) -> Any:
        """As Flower's. Raises Unreadable for what it cannot put together, and for more bytes than a reply has."""
        try:
            if inflated_bytes(object_contents) > self.most_bytes + SLACK_BYTES:
                raise Unreadable
            return self.inflates(object_id, object_contents)
        except Exception as error:  # a stranger's bytes: what Flower makes of them is not known
            raise Unreadable from error


def inflated_bytes(contents: Mapping[str, bytes]) -> int:
    """How many bytes the arrays come to once each has its pieces, every one as often as it is named.

    Args:
        contents: By identifier, as Flower's SuperLink keeps them.

    Raises:
        Exception: whatever Flower's parser, or JSON's, raises for what is none.
    """
    from flwr.supercore.inflatable.inflatable_object import (
        get_object_body,
        get_object_children_ids_from_object_content,
        get_object_type_from_object_content,
    )

    whole = 0
    for content in contents.values():
        if get_object_type_from_object_content(content) == "Array":
            from flwr.app import Array

            children = get_object_children_ids_from_object_content(content)
            named = json.loads(get_object_body(content, Array))["arraychunk_ids"]
            whole += sum(len(contents[children[index]]) for index in named)
    return whole
