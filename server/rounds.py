"""The rounds of a run, whatever carries the messages: request, quorum, average or none, checkpoint, next.

:class:`Rounds` is the state between rounds; both engines and the deployed coordinator drive the same one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from ..common.counted import counted
from ..common.errors import BudgetSpent, ConfigError, PeerError, PolicyRefused
from ..common.exchange import EPSILON, NOISED_STEPS, Parameters, RoundReply, RoundRequest
from ..common.gan.parameters import ParameterSpec
from ..common.journal import Journal
from ..common.run_result import ROUND_FAILED, RUN_STARTED
from ..common.sayable import BUDGET_SPENT, POLICY_REFUSED
from ..common.study import Study
from ..common.transport import as_received
from .aggregation import (
    ReceivedReply,
    RoundMean,
    SiteFailure,
    mean_metrics,
    mean_of_replies,
    moving_average,
    receive_replies,
    with_momentum,
)
from .checkpoints import Checkpoint, RoundRecord, latest_checkpoint, write_checkpoint
from .reply_spool import ReplySpool
from .run_folder import RunFolder
from .run_pictures import draw_curves, draw_preview

Outcome = RoundReply | SiteFailure
Exchange = Callable[[RoundRequest], Iterable[Outcome]]
"""Sends a request to every site and yields what comes back before the deadline, in any order."""

Progress = Callable[[RoundRecord], None]
"""Called after each round, once its checkpoint is on the disk."""

MEASURED_TIMES = 2.0
"""A round's deadline over the seconds of the quickest round that every site answered, at least."""


@dataclass
class Rounds:
    """A run between two rounds.

    Attributes:
        study: What is trained.
        sites: Names of the sites that take part, sorted.
        folder: Where checkpoints and the journal lie.
        checkpoint: The state after the last finished round.
    """

    study: Study
    sites: tuple[str, ...]
    folder: RunFolder
    checkpoint: Checkpoint
    _resumed: bool = False
    _started: float = 0.0

    @classmethod
    def open(cls, study: Study, folder: RunFolder, sites: Sequence[str], initial: Parameters | None = None) -> Rounds:
        """Begin in a new folder, or go on from the newest checkpoint in it.

        Args:
            study: What is trained.
            folder: The run's folder.
            sites: Names of all sites that take part.
            initial: The generator to start from; needed where there is no checkpoint yet. It goes nowhere where the
                study shares no weights: sites start from the same by themselves.

        Raises:
            ConfigError: a checkpoint of another study, or nothing to start from.
            DataError: every checkpoint is damaged.
        """
        journal = Journal(folder.journal)
        checkpoint = latest_checkpoint(folder.checkpoints)
        if checkpoint is None:
            if initial is None:
                raise ConfigError(
                    "no checkpoint to start from",
                    expected="a run folder with an initial generator",
                    remedy="Start the run with 'fedphantom simulate' or 'fedphantom server run'.",
                )
            shared = initial if study.federation.weights_leave else {}
            checkpoint = Checkpoint(study.digest(), 0, shared, None, ())
            write_checkpoint(folder.checkpoints, checkpoint)
            journal.append(RUN_STARTED, study=study.digest(), sites=sorted(sites), rounds=study.training.rounds)
        elif checkpoint.study_digest != study.digest():
            raise ConfigError(
                "the folder holds checkpoints of another study",
                expected="the study it was begun with",
                remedy="Choose a new folder, or give the study unchanged.",
            )
        return cls(study, tuple(sorted(sites)), folder, checkpoint, _resumed=checkpoint.round > 0)

    @property
    def finished(self) -> bool:
        """Whether all rounds of the study are done."""
        return self.checkpoint.round >= self.study.training.rounds

    @property
    def remaining(self) -> int:
        """Rounds still to do."""
        return max(0, self.study.training.rounds - self.checkpoint.round)

    def request(self) -> RoundRequest:
        """What every site is asked next."""
        if self._resumed:
            # Not when opened: under Flower two processes open the run, and one of them asks.
            Journal(self.folder.journal).append("run-resumed", after_round=self.checkpoint.round)
            self._resumed = False
        self._started = time.monotonic()
        start = as_received(self.checkpoint.aggregate, self.study.federation.transport)
        return RoundRequest(self.checkpoint.study_digest, self.checkpoint.round + 1, start)

    @property
    def deadline_s(self) -> float:
        """Seconds that a round waits for replies, their way included.

        As the study declares it for a generator of this size and the slowest link; and at least so many times what the
        quickest round of all sites took, which is what training and links really are. The quickest: a site that dawdles
        puts no deadline off.
        """
        declared = self.study.federation.deadline_with(ParameterSpec.of(self.checkpoint.aggregate).values)
        whole = (one.seconds for one in self.checkpoint.history if set(one.sites) == set(self.sites))
        return max(declared, MEASURED_TIMES * min(whole, default=0.0))

    def request_again(self, asked_s: float) -> RoundRequest:
        """The same, by a process that did not ask first: sites were asked so many seconds ago, and nothing resumes."""
        self._resumed = False
        request = self.request()
        self._started -= asked_s
        return request

    def complete(self, request: RoundRequest, outcomes: Iterable[Outcome]) -> RoundRecord:
        """Average what comes back, or keep it apart where sites train alone; write the checkpoint; stand at the next.

        Outcomes are taken one by one: of an average, memory does not grow with the number of sites.

        Raises:
            PeerError: fewer usable replies than the quorum; the run stays at its last checkpoint. The
                message names each site left out and why.
            PolicyRefused: likewise, where each site that is left out refused by its policy; BudgetSpent where each has
                spent its budget.
            StorageError: replies or the checkpoint could not be written.
        """
        journal = Journal(self.folder.journal)
        weights = {site: self.study.federation.weight_of(site) for site in self.sites}
        promise = self.study.privacy.promise
        with ReplySpool(self.folder.root, ParameterSpec.of(request.generator)) as spool:
            replies, failures = receive_replies(outcomes, request, weights, spool, promise.epsilon if promise else None)
            for failure in failures:
                journal.append("site-left-out", round=request.round, site=failure.site, reason=failure.reason)
            if len(replies) < self.study.federation.quorum:
                journal.append(ROUND_FAILED, round=request.round, replies=len(replies))
                raise self._too_few(request, replies, failures)
            checkpoint = self._after(request, replies, failures, spool)
        write_checkpoint(self.folder.checkpoints, checkpoint)
        record = checkpoint.history[-1]
        journal.append(
            "round-done",
            round=request.round,
            sites=list(record.sites),
            seconds=record.seconds,
            update_norms=dict(record.update_norms),
            cosines=dict(record.cosines),
            scaled_back=list(record.scaled_back),
        )
        self.checkpoint = checkpoint
        draw_curves(self.folder, record)
        draw_preview(self.folder, self.study, checkpoint)
        return record

    def _too_few(
        self, request: RoundRequest, replies: Sequence[ReceivedReply], failures: Sequence[SiteFailure]
    ) -> PeerError | PolicyRefused:
        return below_quorum(
            f"round {request.round} has {counted(len(replies), 'usable reply', 'usable replies')}"
            f" of {counted(len(self.sites), 'site')} "
            f"({'; '.join(f'{failure.site}: {failure.reason}' for failure in failures)})",
            expected=f"at least {self.study.federation.quorum}, the study's quorum",
            reasons=[failure.reason for failure in failures],
        )

    def _after(
        self,
        request: RoundRequest,
        replies: Sequence[ReceivedReply],
        failures: Sequence[SiteFailure],
        spool: ReplySpool,
    ) -> Checkpoint:
        """The state after a round with these replies."""
        before, federation = self.checkpoint, self.study.federation
        if federation.alone:
            record = self._record(request, replies, failures, None)
            members = {reply.site: spool.generator(reply.slot) for reply in replies if request.generator}
            history = (*before.history, record)
            return Checkpoint(before.study_digest, record.round, before.aggregate, None, history, members=members)
        mean = mean_of_replies(
            replies,
            spool,
            request.generator,
            norm_bound=federation.norm_bound,
            trimmed=federation.trimmed_of(len(replies)),
        )
        record = self._record(request, replies, failures, mean)
        aggregate, velocity = mean.generator, None
        if federation.server_momentum:
            start, last = before.aggregate, before.velocity
            aggregate, velocity = with_momentum(start, aggregate, last, federation.server_momentum)
        average = moving_average(before.average, aggregate, federation.ema_decay)
        history = (*before.history, record)
        return Checkpoint(before.study_digest, record.round, aggregate, average, history, velocity)

    def _record(
        self,
        request: RoundRequest,
        replies: Sequence[ReceivedReply],
        failures: Sequence[SiteFailure],
        mean: RoundMean | None,
    ) -> RoundRecord:
        sites, bound = tuple(reply.site for reply in replies), self.study.federation.norm_bound
        return RoundRecord(
            round=request.round,
            sites=sites,
            weights=tuple(reply.weight for reply in replies),
            left_out={failure.site: failure.reason for failure in failures},
            metrics=mean_metrics(replies),
            seconds=round(time.monotonic() - self._started, 3),
            epsilon={reply.site: reply.metrics[EPSILON] for reply in replies if EPSILON in reply.metrics},
            noised_steps={r.site: int(r.metrics[NOISED_STEPS]) for r in replies if NOISED_STEPS in r.metrics},
            update_norms={reply.site: reply.distance for reply in replies} if mean else {},
            cosines=mean.cosines if mean else {},
            scaled_back=tuple(r.site for r in replies if bound is not None and r.distance > bound),
            trimmed=self.study.federation.trimmed_of(len(replies)),
            missed={site: request.round - self.last_round_of(site) for site in self.sites if site not in sites},
        )

    def last_round_of(self, site: str) -> int:
        """The last round before this one that the site did not miss, in it or not to blame for its end; 0 for none."""
        return max((record.round for record in self.checkpoint.history if not record.missed_by(site)), default=0)


def below_quorum(found: str, *, expected: str, reasons: Collection[str]) -> PeerError | PolicyRefused:
    """A round with too few sites: a refusal where that is why each one failed, of a budget where each one's is spent.

    Args:
        found: What the round came to.
        expected: How many sites.
        reasons: Why each site that failed did, as it may be told here.
    """
    if reasons and set(reasons) == {BUDGET_SPENT}:
        remedy = "Nothing mends a spent budget: 'fedphantom budget show' at each site says what is left."
        return BudgetSpent(found, expected=expected, remedy=remedy)
    kept = "errors.log in each one's folder, in a simulation RUN/sites/NAME/errors.log, says why"
    if reasons and set(reasons) <= {BUDGET_SPENT, POLICY_REFUSED}:
        remedy = f"Have the sites named look at what they refuse ({kept}), then run it again: it goes on from here."
        return PolicyRefused(found, expected=expected, remedy=remedy)
    remedy = f"Mend the sites named ({kept}), then run it again: it goes on from here."
    return PeerError(found, expected=expected, remedy=remedy)


def run_rounds(rounds: Rounds, exchange: Exchange, progress: Progress) -> Checkpoint:
    """Do every remaining round.

    Raises:
        PeerError, PolicyRefused: as :meth:`Rounds.complete`; an earlier round's checkpoint stands.
    """
    while not rounds.finished:
        request = rounds.request()
        progress(rounds.complete(request, exchange(request)))
    return rounds.checkpoint
