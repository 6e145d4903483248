"""The end of a secure round: from the mean of its sum to record and checkpoint, as of a plain one."""

from __future__ import annotations

from ..common.exchange import EPSILON, NOISED_STEPS, Parameters, RoundReply
from ..common.journal import Journal
from .aggregation import mean_metrics, moving_average, with_momentum
from .checkpoints import Checkpoint, RoundRecord, write_checkpoint
from .rounds import Rounds
from .run_pictures import draw_curves, draw_preview
from .secure_sum import MaskedSum


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
    before, federation, journal = rounds.checkpoint, rounds.study.federation, Journal(rounds.folder.journal)
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
        epsilon={site: one[EPSILON] for site, one in told.items() if EPSILON in one},
        noised_steps={site: int(one[NOISED_STEPS]) for site, one in told.items() if NOISED_STEPS in one},
        missed={site: masked.keys.round - rounds.last_round_of(site) for site in left_out},
    )
    aggregate, velocity = mean, None
    if federation.server_momentum:
        aggregate, velocity = with_momentum(before.aggregate, mean, before.velocity, federation.server_momentum)
    average = moving_average(before.average, aggregate, federation.ema_decay)
    history = (*before.history, record)
    checkpoint = Checkpoint(before.study_digest, record.round, aggregate, average, history, velocity)
    for site, reason in left_out.items():
        journal.append("site-left-out", round=record.round, site=site, reason=reason)
    write_checkpoint(rounds.folder.checkpoints, checkpoint)
    journal.append("round-done", round=record.round, sites=list(record.sites), seconds=record.seconds)
    rounds.checkpoint = checkpoint
    draw_curves(rounds.folder, record)
    draw_preview(rounds.folder, rounds.study, checkpoint)
    return record
