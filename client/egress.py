"""The site's own filter on what leaves: allow-listed by name, shape, type, size and metric.

It refuses a whole reply rather than mend it: a reply that holds anything else is a fault to be seen.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import numpy as np

from ..common.counted import counted
from ..common.errors import ConfigError, PolicyRefused
from ..common.exchange import RoundReply, RoundRequest
from ..common.federation import EQUAL_WEIGHT
from ..common.gan.parameters import ParameterSpec, parameters_digest
from ..common.journal import Fact
from ..common.transport import LARGEST, Transport, as_received, too_large, value_bytes

FAKE_METRICS = ("fake_mean", "fake_std", "steps")
"""Figures that say nothing of real patients: intensities of fakes made from public labels, steps by schedule."""


@dataclass(frozen=True)
class EgressRule:
    """What may leave in a reply.

    Attributes:
        generator: Names and shapes, all finite; none where no weights may leave, nor come.
        metrics: Names; each value one finite float.
        weight: The one that the study declares, and no other: a patient count must not leave as a weight.
        dtype: Precision in which parameters leave.
    """

    generator: ParameterSpec
    metrics: tuple[str, ...] = FAKE_METRICS
    weight: float = EQUAL_WEIGHT
    dtype: Transport = "float32"

    @property
    def max_bytes(self) -> int:
        """Size of the largest reply: every parameter, every metric, and the weight."""
        return self.bytes_with(len(self.metrics))

    def bytes_with(self, metrics: int) -> int:
        """Size of a reply with so many metrics."""
        return self.generator.values * value_bytes(self.dtype) + 8 * (metrics + 1)

    def to_json(self) -> str:
        """A text that a person can read."""
        shapes = {name: list(shape) for name, shape in self.generator.shapes}
        table = {
            "generator": shapes,
            "dtype": self.dtype,
            "max_bytes": self.max_bytes,
            "metrics": list(self.metrics),
            "weight": self.weight,
        }
        return json.dumps(table, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> EgressRule:
        """Read what :meth:`to_json` wrote.

        Raises:
            ConfigError: anything else.
        """
        try:
            table = json.loads(text)
            shapes = tuple(sorted((str(name), tuple(map(int, s))) for name, s in table["generator"].items()))
            dtype: Transport = "float16" if table["dtype"] == "float16" else "float32"
            rule = cls(ParameterSpec(shapes), tuple(map(str, table["metrics"])), float(table["weight"]), dtype)
            unchanged = json.loads(rule.to_json()) == table
        except (ValueError, KeyError, TypeError, AttributeError):
            unchanged = False
        if not unchanged:
            raise ConfigError(
                "the site's egress.json is missing or not as FedPhantom writes it",
                expected="generator, dtype, max_bytes, metrics and weight that fit together",
                remedy="Make the site's folder again; its rule follows from the study.",
            )
        return rule


def as_sent(reply: RoundReply, rule: EgressRule) -> RoundReply:
    """The reply as it travels: rounded, where the study's transport is half precision.

    Raises:
        PolicyRefused: a value that the transport cannot hold.
    """
    if rule.dtype == "float32" or rule.generator.problem(reply.generator):
        return reply  # what is wrong with it the filter says
    if any(too_large(array) for array in reply.generator.values()):
        raise _refused(reply.round, f"a parameter lies beyond ±{LARGEST:g}, the largest number of {rule.dtype}")
    return replace(reply, generator=as_received(reply.generator, rule.dtype))


def check_reply(reply: RoundReply, rule: EgressRule, *, site: str, request: RoundRequest) -> dict[str, Fact]:
    """Let a reply pass, or refuse it.

    Args:
        reply: What the trainer wants to send.
        rule: What may leave.
        site: The site's public name; the reply may carry no other.
        request: What the coordinator asked for.

    Returns:
        What leaves, for the journal: round, hash, precision, bytes, parameters, weight, metrics; and the hash of
        the request's generator.

    Raises:
        PolicyRefused: anything outside the rule.
    """
    problem = rule.generator.problem(reply.generator) or _finer(reply, rule)
    foreign = sorted(set(reply.metrics) - set(rule.metrics))
    if reply.site != site or reply.round != request.round:
        problem = "it names another site or round"
    elif foreign:
        problem = f"it carries {counted(len(foreign), 'metric')} that the list does not hold"
    elif not all(_finite(value) for value in reply.metrics.values()):
        problem = "a metric is not one finite number"
    elif not _finite(reply.weight) or reply.weight != rule.weight:
        problem = "its weight is not the declared one"
    if problem:
        raise _refused(request.round, problem)
    metrics: dict[str, Fact] = {name: float(value) for name, value in sorted(reply.metrics.items())}
    return {
        "round": reply.round,
        "incoming": parameters_digest(request.generator),
        "sha256": parameters_digest(reply.generator),
        "dtype": rule.dtype,
        "bytes": rule.bytes_with(len(reply.metrics)),
        "parameters": len(reply.generator),
        "weight": float(reply.weight),
        "metrics": metrics,
    }


def _finer(reply: RoundReply, rule: EgressRule) -> str | None:
    held = as_received(reply.generator, rule.dtype)
    same = all(held[name] is array or np.array_equal(held[name], array) for name, array in reply.generator.items())
    return None if same else f"a parameter is finer than {rule.dtype}"


def _refused(number: int, problem: str) -> PolicyRefused:
    return PolicyRefused(
        f"the egress filter stopped the reply of round {number}: {problem}",
        expected="what the site's egress.json allows",
        remedy="Nothing left. Report this: training tried to send something that the study does not foresee.",
    )


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
