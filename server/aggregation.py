"""The arithmetic of a round: which replies count, their weighted mean, its momentum, and its moving average.

Sums run in float64 and in site-name order, whatever order replies arrive in, so that every engine and
every rerun gives the same bits.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..common.exchange import EPSILON, NOISED_STEPS, Parameters, RoundReply, RoundRequest
from ..common.gan.parameters import ParameterSpec


@dataclass(frozen=True)
class SiteFailure:
    """A site without a usable reply.

    Attributes:
        site: Its public name.
        reason: One phrase, fit for the coordinator's eyes.
    """

    site: str
    reason: str


def reply_problem(
    reply: RoundReply, request: RoundRequest, weights: Mapping[str, float], most_epsilon: float | None = None
) -> str | None:
    """Why a reply cannot count, as one phrase that quotes nothing foreign; None if it can.

    Args:
        reply: A site's.
        request: What it was asked.
        weights: Of every site of the run, by name, as the study declares them.
        most_epsilon: Under a promise, what a site may have spent at most; every reply then says what it has.
    """
    if reply.site not in weights:
        return "it comes from a site that is not part of the run"
    if reply.round != request.round:
        return f"it is not for round {request.round}"
    if reply.weight != weights[reply.site]:  # True for NaN too
        return "its weight is not the one that the study declares"
    if most_epsilon is not None and not _spent_is_told(reply.metrics, most_epsilon):
        return "it does not say what it has spent, or more than the study allows"
    if not all(math.isfinite(value) for value in reply.metrics.values()):
        return "a metric is NaN or infinite"
    return ParameterSpec.of(request.generator).problem(reply.generator)


def _spent_is_told(metrics: Mapping[str, float], most_epsilon: float) -> bool:
    epsilon, steps = metrics.get(EPSILON, 0.0), metrics.get(NOISED_STEPS, 0.0)
    return 0 < epsilon <= most_epsilon and steps >= 1 and float(steps).is_integer()


def sort_replies(
    outcomes: Iterable[RoundReply | SiteFailure],
    request: RoundRequest,
    weights: Mapping[str, float],
    most_epsilon: float | None = None,
) -> tuple[tuple[RoundReply, ...], tuple[SiteFailure, ...]]:
    """Part a round's outcomes into replies that count and sites left out, both in site-name order.

    A site that answers twice is left out altogether: which answer came first would depend on chance.
    A site that is not heard of is left out too. Arguments as :func:`reply_problem`.
    """
    replies: list[RoundReply] = []
    failures: list[SiteFailure] = []
    for outcome in outcomes:
        if isinstance(outcome, RoundReply):
            problem = reply_problem(outcome, request, weights, most_epsilon)
            if problem is None:
                replies.append(outcome)
                continue
        else:
            problem = outcome.reason
        failures.append(SiteFailure(outcome.site if outcome.site in weights else "unknown", problem))
    for site, count in Counter(reply.site for reply in replies).items():
        if count > 1:
            replies = [reply for reply in replies if reply.site != site]
            failures.append(SiteFailure(site, f"it answered {count} times"))
    heard = {reply.site for reply in replies} | {failure.site for failure in failures}
    failures += [SiteFailure(site, "no reply") for site in weights if site not in heard]
    failures.sort(key=lambda failure: (failure.site, failure.reason))
    return tuple(sorted(replies, key=lambda reply: reply.site)), tuple(failures)


def weighted_mean(replies: Sequence[RoundReply]) -> dict[str, NDArray[np.float32]]:
    """Mean of the replies' generators by declared weight, per parameter.

    Args:
        replies: One or more, checked, each site once; in any order.
    """
    ordered = sorted(replies, key=lambda reply: reply.site)
    total = math.fsum(reply.weight for reply in ordered)
    mean = {}
    for name in sorted(ordered[0].generator):
        accumulated = np.zeros(ordered[0].generator[name].shape, dtype=np.float64)
        for reply in ordered:
            accumulated += reply.generator[name].astype(np.float64) * (reply.weight / total)
        mean[name] = accumulated.astype(np.float32)
    return mean


def mean_metrics(replies: Sequence[RoundReply]) -> dict[str, float]:
    """Weighted mean of each metric that every reply carries; not of what a site spent."""
    ordered = sorted(replies, key=lambda reply: reply.site)
    common = set.intersection(*(set(reply.metrics) for reply in ordered)) - {EPSILON, NOISED_STEPS}
    total = math.fsum(reply.weight for reply in ordered)
    return {name: math.fsum(reply.metrics[name] * reply.weight for reply in ordered) / total for name in sorted(common)}


def moving_average(previous: Parameters | None, aggregate: Parameters, decay: float) -> dict[str, NDArray[np.float32]]:
    """``decay * previous + (1 - decay) * aggregate``; the first aggregate stands for itself.

    Args:
        previous: The average up to the round before, or None in round 1: the initial parameters
            are noise and have no place in it.
        aggregate: This round's weighted mean.
        decay: Per round, in [0, 1).
    """
    if previous is None:
        return {name: aggregate[name].copy() for name in sorted(aggregate)}
    return {
        name: (decay * previous[name].astype(np.float64) + (1 - decay) * aggregate[name].astype(np.float64)).astype(
            np.float32
        )
        for name in sorted(aggregate)
    }


def with_momentum(
    start: Parameters, mean: Parameters, velocity: Parameters | None, momentum: float
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """The next round's generator, and the server's velocity behind it.

    ``velocity ← momentum · velocity + (start - mean)``, then ``start - velocity``. Source: FedAvgM, Hsu et al. 2019
    (arXiv 1909.06335), at a server learning rate of 1.

    Args:
        start: What the round began with.
        mean: The replies' weighted mean.
        velocity: After the round before; None in round 1.
        momentum: In [0, 1); where it is 0 the answer is ``mean`` but for rounding, so do not ask.
    """
    moved, speed = {}, {}
    for name in sorted(start):
        step = start[name].astype(np.float64) - mean[name].astype(np.float64)
        if velocity is not None:
            step += momentum * velocity[name].astype(np.float64)
        speed[name] = step.astype(np.float32)  # rounded here, so that a resumed run goes on from the same
        moved[name] = (start[name].astype(np.float64) - speed[name]).astype(np.float32)
    return moved, speed
