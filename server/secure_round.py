"""The end of a secure round: from the mean of its sum to record and checkpoint, as of a plain one; or without a sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..common.exchange import EPSILON, NOISED_STEPS, Parameters, RoundReply
from ..common.journal import Journal
from .aggregation import mean_metrics, moving_average, with_momentum
from .checkpoints import Checkpoint, RoundRecord, write_checkpoint
from .rounds import Rounds
from .run_pictures import draw_curves, draw_preview
from .secure_sum import MaskedSum, forget_sum


def close_round(rounds: Rounds, masked: MaskedSum, mean: Parameters, seconds: float) -> RoundRecord:
    """Write the checkpoint; the run stands at its next round.

    Args:
        rounds: The run, at this round.
        masked: The round's sum.
        mean: Of the generators of the sites in it.
        seconds: From the request until now.

    Raises:
        StorageError: the checkpoint could not be written.
    """
    before, federation = rounds.checkpoint, rounds.study.federation
    told = masked.metrics
    replies = [
        RoundReply(site, masked.keys.round, mean, federation.weight_of(site), told[site]) for site in masked.alive
    ]
    left_out = {site: masked.left_out.get(site, "no reply") for site in rounds.sites if site not in told}
    record = RoundRecord(
        round=masked.keys.round,
        sites=masked.alive,
        weights=tuple(reply.weight for reply in replies),
        left_out=left_out,
        metrics=mean_metrics(replies),
        seconds=round(seconds, 3),
        epsilon=_epsilon(masked),
        noised_steps=_noised_steps(masked),
        missed={site: masked.keys.round - rounds.last_round_of(site) for site in left_out},
    )
    aggregate, velocity = mean, None
    if federation.server_momentum:
        aggregate, velocity = with_momentum(before.aggregate, mean, before.velocity, federation.server_momentum)
    average = moving_average(before.average, aggregate, federation.ema_decay)
    history = (*before.history, record)
    checkpoint = Checkpoint(before.study_digest, record.round, aggregate, average, history, velocity)
    _write(rounds, checkpoint, left_out)
    Journal(rounds.folder.journal).append(
        "round-done", round=record.round, sites=list(record.sites), seconds=record.seconds
    )
    _draw(rounds)
    return record


def give_up_round(rounds: Rounds, masked: MaskedSum | None, reason: str, seconds: float) -> RoundRecord:
    """Spend the round's number without a sum; the run stands at the next round, which begins from the same generator.

    To the sites it is a round whose reply was lost: each goes on from its own state, trained or not, and its ledger
    holds what was spent. The round is not asked for again: who helped to open its sum would have to open a second one.

    Args:
        rounds: The run, at this round.
        masked: The round's sum that could not be opened; None where none is left, and sites refuse another.
        reason: Why, in words.
        seconds: From the request until now.

    Raises:
        StorageError: the checkpoint could not be written.
    """
    before, number = rounds.checkpoint, rounds.checkpoint.round + 1
    # A site that answered in it is not to blame.
    left_out = {site: why for site, why in masked.left_out.items() if site in rounds.sites} if masked else {}
    record = RoundRecord(
        round=number,
        sites=(),
        weights=(),
        left_out=left_out,
        metrics={},
        seconds=round(seconds, 3),
        epsilon=_epsilon(masked),
        noised_steps=_noised_steps(masked),
        missed={site: number - rounds.last_round_of(site) for site in left_out},
        given_up=reason,
    )
    checkpoint = replace(before, round=number, history=(*before.history, record))
    _write(rounds, checkpoint, masked.left_out if masked else {})
    Journal(rounds.folder.journal).append("round-given-up", round=number, reason=reason, seconds=record.seconds)
    forget_sum(rounds.folder.root)
    _draw(rounds)
    return record


def _epsilon(masked: MaskedSum | None) -> dict[str, float]:
    """What each site said that it has spent; of a round that was given up too, for it is spent."""
    told = masked.metrics if masked else {}
    return {site: one[EPSILON] for site, one in told.items() if EPSILON in one}


def _noised_steps(masked: MaskedSum | None) -> dict[str, int]:
    told = masked.metrics if masked else {}
    return {site: int(one[NOISED_STEPS]) for site, one in told.items() if NOISED_STEPS in one}


def _write(rounds: Rounds, checkpoint: Checkpoint, left_out: Mapping[str, str]) -> None:
    journal = Journal(rounds.folder.journal)
    for site, reason in left_out.items():
        journal.append("site-left-out", round=checkpoint.round, site=site, reason=reason)
    write_checkpoint(rounds.folder.checkpoints, checkpoint)
    rounds.checkpoint = checkpoint


def _draw(rounds: Rounds) -> None:
    draw_curves(rounds.folder, rounds.checkpoint.history[-1])
    draw_preview(rounds.folder, rounds.study, rounds.checkpoint)
