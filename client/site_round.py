"""One round at a site: is the request wanted, train, does the reply pass, say what left.

The same for both engines, so that a simulation exercises the site's real checks.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ..common.errors import FedPhantomError, PolicyRefused
from ..common.exchange import RoundReply, RoundRequest, SiteTrainer
from ..common.folder_lock import hold_folder
from ..common.journal import Fact, Journal
from ..common.masking.messages import Given, Wanted, round_of
from ..common.rotated_log import RotatedLog
from ..common.round_record import keep_round
from ..common.site_folder import REPLY_LEFT, ROUND_FAILED, SiteFolder
from .conditions import Conditions
from .egress import EgressRule, as_sent, check_reply
from .secure_reply import SecureReply
from .site_setup import read_egress_rule

OpenTrainer = Callable[[Path], SiteTrainer]
"""Site folder to trainer, e.g. ``LocalTrainer.open``."""

Permit = Callable[[SiteFolder], Conditions]
"""Says on what conditions a site may answer; raises where it may not."""


class Site:
    """A hospital's side of a round; a :class:`SiteTrainer` around the one that trains.

    Args:
        folder: The site's folder.
        open_trainer: Called with the folder's path on the first round.
        permit: Asked at once, and again when training is done: it takes hours, in which a site may withdraw. A
            simulation's sites, folders on one machine, always may.

    Raises:
        FedPhantomError: as ``permit`` says.
    """

    def __init__(
        self, folder: SiteFolder, open_trainer: OpenTrainer, permit: Permit = Conditions.of_simulation
    ) -> None:
        self.folder = folder
        self._open_trainer = open_trainer
        self._trainer: SiteTrainer | None = None
        self._secure: SecureReply | None = None
        self._study_digest = folder.study().digest()
        self._rounds = folder.study().training.rounds
        self._federation = folder.study().federation
        self._permit = permit
        self._conditions = permit(folder)
        self.rule: EgressRule = read_egress_rule(folder)
        self._journal = Journal(folder.journal)

    def train_round(self, request: RoundRequest) -> RoundReply:
        """Train and return what may leave.

        Raises:
            PolicyRefused: the request is for another study or a round that the study does not have, its
                parameters do not fit, the egress filter stopped the reply, or the site may not answer any more.
            FedPhantomError: as the trainer says; noted in full in ``errors.log``, in one word in the journal.
        """
        try:
            if self._federation.secure_aggregation:
                raise _refused("it asks for this site's own generator, where the study has it leave in a sum alone")
            reply, leaving = self._trained(request)
            if not self._federation.alone:
                keep_round(self.folder, self._rounds, request.round, request.generator, reply.generator)
            self._permit(self.folder)
        except Exception as error:
            self._note(request.round, error)
            raise
        self._journal.append(REPLY_LEFT, **leaving)
        return reply

    def answer(self, wanted: Wanted) -> Given:
        """Answer a question of a secure round; what leaves of training is masked.

        Raises:
            ConfigError, VerificationFailed: as :class:`SecureReply`.
            PolicyRefused, FedPhantomError: likewise, and as :meth:`train_round`.
        """
        try:
            self._secure = self._secure or SecureReply(self.folder, self._trained_for_a_sum, self._conditions)
            return self._secure.answer(wanted)
        except Exception as error:
            self._note(round_of(wanted), error)
            raise

    def _trained_for_a_sum(self, request: RoundRequest) -> RoundReply:
        reply, _ = self._trained(request)
        self._permit(self.folder)
        return reply

    def _trained(self, request: RoundRequest) -> tuple[RoundReply, dict[str, Fact]]:
        """A round that may be answered, trained and found to hold what it may; nothing has left yet."""
        self._check_request(request)
        # Two rounds at once would go out from one state, and each leave another for the next.
        with hold_folder(self.folder.state):
            self._trainer = self._trainer or self._open_trainer(self.folder.root)
            reply = as_sent(self._trainer.train_round(request), self.rule)
        return reply, check_reply(reply, self.rule, site=self.folder.name, request=request)

    def _note(self, round_: int, error: Exception) -> None:
        note_failure(self.folder, error)
        self._journal.append(ROUND_FAILED, round=round_, kind=type(error).__name__)

    def _check_request(self, request: RoundRequest) -> None:
        problem = self.rule.generator.problem(request.generator)
        if request.study_digest != self._study_digest:
            problem = "it is for another study"
        elif not 1 <= request.round <= self._rounds:
            problem = f"its round is not one of the study's {self._rounds}"
        if problem:
            raise _refused(problem)


def _refused(problem: str) -> PolicyRefused:
    return PolicyRefused(
        f"the coordinator's request was refused: {problem}",
        expected="a round of the study this site holds",
        remedy="Compare 'fedphantom study show' with the coordinator's.",
    )


def note_failure(folder: SiteFolder, error: BaseException) -> None:
    """Append the full text of a failure to the site's ``errors.log``, which never leaves and is rotated."""
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = str(error) if isinstance(error, FedPhantomError) else "".join(traceback.format_exception(error))
    line = f"{stamp} {type(error).__name__}: {text.rstrip()}\n"
    with contextlib.suppress(OSError):  # a full disk is often what failed; the failure itself still goes its way
        RotatedLog(folder.errors).write(line.encode(errors="backslashreplace"))
