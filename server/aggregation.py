"""The arithmetic of a round: which replies count, their weighted mean, its momentum, and its moving average.

Sums run in float64 and in site-name order, whatever order replies arrive in, so that every engine and
every rerun gives the same bits. Replies wait for that on the disk (:mod:`.reply_spool`), not in memory.
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
from ..common.transport import LARGEST, too_large
from .reply_spool import BLOCK_VALUES, ReplySpool


@dataclass(frozen=True)
class SiteFailure:
    """A site without a usable reply.

    Attributes:
        site: Its public name.
        reason: One phrase, fit for the coordinator's eyes.
    """

    site: str
    reason: str


@dataclass(frozen=True)
class ReceivedReply:
    """A reply that counts, without its generator.

    Attributes:
        site: Its public name.
        weight: Declared.
        metrics: As the reply's.
        slot: Of its generator in the spool.
        distance: Of its generator from what the round began with: the length of the site's update.
    """

    site: str
    weight: float
    metrics: Mapping[str, float]
    slot: int
    distance: float


@dataclass(frozen=True)
class RoundMean:
    """What the replies of a round come to.

    Attributes:
        generator: The mean.
        cosines: Site to the cosine between its update and the mean's; without those of which one has no length.
    """

    generator: Parameters
    cosines: Mapping[str, float]


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
    misfit = ParameterSpec.of(request.generator).problem(reply.generator)
    if misfit is None and any(too_large(array) for array in reply.generator.values()):
        return f"a parameter lies beyond ±{LARGEST:g}: its training went astray"
    return misfit


def _spent_is_told(metrics: Mapping[str, float], most_epsilon: float) -> bool:
    epsilon, steps = metrics.get(EPSILON, 0.0), metrics.get(NOISED_STEPS, 0.0)
    return 0 < epsilon <= most_epsilon and steps >= 1 and float(steps).is_integer()


def receive_replies(
    outcomes: Iterable[RoundReply | SiteFailure],
    request: RoundRequest,
    weights: Mapping[str, float],
    spool: ReplySpool,
    most_epsilon: float | None = None,
) -> tuple[tuple[ReceivedReply, ...], tuple[SiteFailure, ...]]:
    """Part a round's outcomes into replies that count and sites left out, both in site-name order.

    Outcomes are taken one by one and let go; the generators of those that count lie in the spool. A site that answers
    twice is left out altogether: which answer came first would depend on chance. A site that is not heard of is left
    out too. Other arguments as :func:`reply_problem`.

    Raises:
        StorageError: the spool could not be written.
    """
    replies: dict[str, ReceivedReply] = {}
    answers: Counter[str] = Counter()
    failures: list[SiteFailure] = []
    for outcome in outcomes:
        known = outcome.site if outcome.site in weights else "unknown"
        if isinstance(outcome, SiteFailure):
            failures.append(SiteFailure(known, outcome.reason))
        elif problem := reply_problem(outcome, request, weights, most_epsilon):
            failures.append(SiteFailure(known, problem))
        else:
            answers[known] += 1
            if answers[known] == 1:
                slot, length = spool.add(outcome.generator), distance(request.generator, outcome.generator)
                replies[known] = ReceivedReply(known, outcome.weight, outcome.metrics, slot, length)
        del outcome  # before the next is fetched, so that memory holds one
    for site, count in answers.items():
        if count > 1:
            del replies[site]
            failures.append(SiteFailure(site, f"it answered {count} times"))
    heard = replies.keys() | {failure.site for failure in failures}
    failures += [SiteFailure(site, "no reply") for site in weights if site not in heard]
    failures.sort(key=lambda failure: (failure.site, failure.reason))
    return tuple(replies[site] for site in sorted(replies)), tuple(failures)


def distance(one: Parameters, other: Parameters) -> float:
    """L2 distance over all parameters, summed in float64."""
    total = 0.0
    for name in sorted(one):
        left, right = one[name].ravel(), other[name].ravel()
        for begin in range(0, left.size, BLOCK_VALUES):
            block = slice(begin, begin + BLOCK_VALUES)
            difference = right[block].astype(np.float64) - left[block]
            total += _dot(difference, difference)
    return math.sqrt(total)


def mean_of_replies(
    replies: Sequence[ReceivedReply],
    spool: ReplySpool,
    start: Parameters,
    *,
    norm_bound: float | None = None,
    trimmed: int = 0,
) -> RoundMean:
    """Mean of the replies' generators by declared weight, per parameter; memory holds a block of them at a time.

    Args:
        replies: One or more, checked, each site once; in any order.
        spool: Holds their generators.
        start: What the round began with.
        norm_bound: Replies further than this from ``start`` are taken from where the straight way to them has this
            length.
        trimmed: Replies left out at each end, of each value apart; the others then count alike, whatever their weight.
            Source: coordinate-wise trimmed mean, Yin et al. 2018 (arXiv 1803.01498).

    Raises:
        StorageError: the spool could not be read.
    """
    ordered = sorted(replies, key=lambda reply: reply.site)
    total = math.fsum(reply.weight for reply in ordered)
    shares = [reply.weight / total for reply in ordered]
    lengths = [1.0 if norm_bound is None else min(1.0, norm_bound / (r.distance or 1.0)) for r in ordered]
    mean: dict[str, NDArray[np.float32]] = {}
    along, moved = [0.0] * len(ordered), 0.0
    for name in sorted(start):
        origins, flat = start[name].ravel(), np.empty(start[name].size, np.float32)
        for block, rows in spool.blocks(name, [reply.slot for reply in ordered]):
            origin = origins[block].astype(np.float64)
            values = [_bounded(row, origin, length) for row, length in zip(rows, lengths, strict=True)]
            accumulated = _trimmed_mean(values, trimmed) if trimmed else _weighted_sum(values, shares)
            flat[block] = accumulated
            accumulated -= origin
            moved += _dot(accumulated, accumulated)
            for i, row in enumerate(rows):
                along[i] += _dot(row - origin, accumulated)
        mean[name] = flat.reshape(start[name].shape)
    cosines = {
        reply.site: dot / (reply.distance * math.sqrt(moved))
        for reply, dot in zip(ordered, along, strict=True)
        if reply.distance * moved > 0
    }
    return RoundMean(mean, cosines)


def _bounded(row: NDArray[np.float32], origin: NDArray[np.float64], length: float) -> NDArray[np.float64]:
    values = row.astype(np.float64)
    return values if length == 1.0 else origin + length * (values - origin)


def _weighted_sum(rows: Sequence[NDArray[np.float64]], shares: Sequence[float]) -> NDArray[np.float64]:
    accumulated = np.zeros(rows[0].shape)
    for row, share in zip(rows, shares, strict=True):
        accumulated += row * share
    return accumulated


def _trimmed_mean(rows: Sequence[NDArray[np.float64]], trimmed: int) -> NDArray[np.float64]:
    kept = np.sort(np.stack(rows), axis=0)[trimmed : len(rows) - trimmed]
    return np.asarray(kept.sum(axis=0) / len(kept), dtype=np.float64)


def _dot(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    # Not np.dot: a linear algebra library's sums depend on its threads, and these decide how far a reply is scaled.
    return float((one * other).sum())


def mean_metrics(replies: Sequence[ReceivedReply | RoundReply]) -> dict[str, float]:
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
