"""Rounds of secure aggregation, whatever carries the messages: keys, shares, masked inputs, and the sum they open.

Where nobody drops out a round takes two exchanges: the inputs, which bring the next round's keys along, and the shares
that open the sum, which bring the next round's sealed shares. For keys and shares alone sites are asked before the
first round, and wherever the sites of the next are not those that answered.

A round whose sum cannot be had any more is given up, for sites open one sum a round: its number is spent, and the next
round begins from the same generator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..common.counted import counted
from ..common.errors import FedPhantomError, PeerError, PolicyRefused
from ..common.exchange import RoundReply, RoundRequest
from ..common.gan.parameters import ParameterSpec, parameters_digest
from ..common.journal import Journal
from ..common.masking.fixed_point import FixedPoint
from ..common.masking.keys import KeySet, read_key_set, read_keys
from ..common.masking.messages import (
    Given,
    InputGiven,
    InputWanted,
    KeysGiven,
    KeysWanted,
    SharesGiven,
    SharesWanted,
    SumGiven,
    SumWanted,
    Wanted,
)
from ..common.masking.peers import Peers
from ..common.masking.terms import SecureAggregationTable
from ..common.run_result import ROUND_FAILED
from ..common.sayable import ROUND_OVER
from .aggregation import SiteFailure, reply_problem
from .checkpoints import Checkpoint
from .rounds import Progress, Rounds, below_quorum
from .secure_round import close_round, give_up_round
from .secure_sum import MaskedSum, kept_sum

Answer = Given | SiteFailure

_NOT_AGREED = "its reply is not laid out as agreed"


class SecureExchange(Protocol):
    """How the coordinator reaches the sites."""

    def everyone(self, wanted: KeysWanted | SumWanted, known: Callable[[Answer], bool]) -> Iterable[Answer]:
        """Ask every site that is there; ``known`` says whether an answer is truly the site's that it names."""
        ...

    def each(self, wanted: Mapping[str, Wanted]) -> Iterable[Answer]:
        """Ask these sites, each its own question; what comes back before the deadline, in any order."""
        ...

    def others(self, sites: tuple[str, ...]) -> bool:
        """Whether a site is there beside these."""
        ...


@dataclass(frozen=True)
class _Prepared:
    """Keys of the next round's sites, and what each sealed for the others."""

    keys: KeySet
    boxes: Mapping[str, Mapping[str, bytes]]

    def for_site(self, receiver: str) -> dict[str, bytes]:
        return {sender: boxes[receiver] for sender, boxes in self.boxes.items() if sender != receiver}


def run_secure_rounds(rounds: Rounds, exchange: SecureExchange, peers: Peers, progress: Progress) -> Checkpoint:
    """Do every remaining round.

    Raises:
        PeerError: fewer sites than the threshold, or a sum that could not be opened; the run stays at its last
            checkpoint. Also where all rounds but the last were given up, and so would the last be.
        PolicyRefused: likewise, where each site that failed refused by its policy, or for a spent budget.
        StorageError: the disk is full, read-only or forbidden.
    """
    aggregator = _Aggregator(rounds, exchange, peers)
    while not rounds.finished:
        aggregator.round(progress)
    return rounds.checkpoint


class _LostRoundError(PeerError):
    """A round without a sum for good, while enough sites are there for another round."""


class _Aggregator:
    """The coordinator between two rounds: what is prepared of the next."""

    def __init__(self, rounds: Rounds, exchange: SecureExchange, peers: Peers) -> None:
        federation = rounds.study.federation
        if federation.secure_aggregation is None:
            raise ValueError("a study without secure aggregation")
        self._terms: SecureAggregationTable = federation.secure_aggregation
        self._rounds, self._exchange, self._peers = rounds, exchange, peers
        self._digest = rounds.checkpoint.study_digest
        self._fewest = federation.fewest_sites
        self._weights = {site: federation.weight_of(site) for site in rounds.sites}
        self._spec = ParameterSpec.of(rounds.checkpoint.aggregate)
        self._prepared: _Prepared | None = None

    def round(self, progress: Progress) -> None:
        """One round, from its request to its checkpoint."""
        started, request, rounds = time.monotonic(), self._rounds.request(), self._rounds
        run, following = rounds.folder.root, None
        prepared, self._prepared = self._prepared, None
        masked = kept_sum(
            run,
            study=self._digest,
            round=request.round,
            start=parameters_digest(request.generator),
            peers=self._peers,
            threshold=self._terms.threshold,
        )
        try:
            if masked is None:
                failures: dict[str, str] = {}
                if prepared is None or self._exchange.others(prepared.keys.sites):
                    prepared = self._prepare(request.round, failures)
                masked, following = self._gather(request, prepared, failures)
                masked.keep(run)  # before anybody is asked to open it
            mean = self._open(masked, following, request)
        except _LostRoundError as lost:
            self._refuse_nothing_learnt(lost)
            progress(give_up_round(rounds, masked, lost.found, time.monotonic() - started))
        else:
            progress(close_round(rounds, masked, mean, time.monotonic() - started))

    def _refuse_nothing_learnt(self, lost: _LostRoundError) -> None:
        """The last round is not given up where every other one was: what is left would be untrained networks."""
        if self._rounds.remaining == 1 and not self._rounds.checkpoint.averaged:
            raise PeerError(
                f"{lost.found}, and no other round of the study has a sum",
                expected="one round or more that sites opened the sum of",
                remedy="Begin the study anew, with new folders at its sites.",
            ) from None

    def _prepare(self, round_: int, failures: dict[str, str]) -> _Prepared:
        """Fresh keys and shares of every site that is there; again without those that gave keys and no shares."""
        excluded: set[str] = set()
        while True:
            found: dict[str, bytes] = {}
            for answer in self._exchange.everyone(KeysWanted(self._digest, round_), self._is_known):
                if isinstance(answer, KeysGiven) and self._signed(answer.keys, answer.site, round_):
                    if answer.site not in excluded:
                        found[answer.site] = answer.keys
                else:
                    self._fail(failures, answer)
            keys = self._key_set(found.values(), round_)
            if keys is None:
                raise self._without_keys(round_, set(found), failures)
            wanted: dict[str, Wanted] = {site: SharesWanted(round_, keys.envelopes) for site in keys.sites}
            boxes: dict[str, Mapping[str, bytes]] = {}
            for shares in self._exchange.each(wanted):
                if isinstance(shares, SharesGiven) and self._complete(shares, keys):
                    boxes[shares.site] = shares.boxes
                else:
                    self._fail(failures, shares)
            if set(boxes) == set(keys.sites):
                return _Prepared(keys, boxes)
            excluded |= set(keys.sites) - set(boxes)

    def _without_keys(self, round_: int, found: set[str], failures: Mapping[str, str]) -> PeerError | PolicyRefused:
        """Why the round cannot be begun: sites are missing, or have done it before and would do the next one."""
        failed = self._too_few(round_, len(found), failures)
        over = {site for site, reason in failures.items() if reason == ROUND_OVER} & set(self._rounds.sites)
        if not over or len(over | found) < self._fewest:
            return failed
        history = self._rounds.checkpoint.history
        if history and ROUND_OVER in history[-1].given_up:
            # One round may have lost its sum. Of two, this run is older than what its sites did.
            return PeerError(
                failed.found,
                expected="a run whose sites have done no round that its checkpoints do not have",
                remedy="Restore the run's newest checkpoints; or begin the study anew, with new folders at its sites.",
            )
        return _LostRoundError(failed.found, expected=failed.expected, remedy=failed.remedy)

    def _gather(
        self, request: RoundRequest, prepared: _Prepared, failures: dict[str, str]
    ) -> tuple[MaskedSum, list[bytes]]:
        """Every site's masked input, and the next round's keys that came along."""
        keys, following = prepared.keys, list[bytes]()
        masked = MaskedSum.empty(self._digest, keys, parameters_digest(request.generator), self._spec.values)
        wanted: dict[str, Wanted] = {
            site: InputWanted(request, keys.session, prepared.for_site(site)) for site in keys.sites
        }
        for answer in self._exchange.each(wanted):
            if not isinstance(answer, InputGiven):
                self._fail(failures, answer)
                continue
            problem = self._input_problem(answer, request, masked)
            if problem:
                self._fail(failures, SiteFailure(answer.site, problem))
                continue
            masked.add(answer.site, answer.masked, answer.metrics)
            if self._signed(answer.keys, answer.site, request.round + 1):
                following.append(answer.keys)
        if len(masked.alive) < self._fewest:
            raise self._too_few(request.round, len(masked.alive), failures)
        masked.left_out = {site: reason for site, reason in failures.items() if site not in masked.metrics}
        return masked, following

    def _input_problem(self, answer: InputGiven, request: RoundRequest, masked: MaskedSum) -> str | None:
        values = answer.masked
        if answer.session != masked.keys.session or values.shape != masked.total.shape or values.dtype != "uint32":
            return _NOT_AGREED
        if answer.site in masked.metrics or answer.site not in masked.keys.sites:
            return "it answered twice, or unasked"
        # What can be told of a masked reply is judged as a plain one's is.
        plain = RoundReply(answer.site, answer.round, request.generator, answer.weight, answer.metrics)
        promise = self._rounds.study.privacy.promise
        return reply_problem(plain, request, self._weights, promise.epsilon if promise else None)

    def _open(
        self, masked: MaskedSum, following: Sequence[bytes] | None, request: RoundRequest
    ) -> dict[str, NDArray[np.float32]]:
        """The mean over the sites in the sum; what they prepared of the next round is kept if none of them is missing.

        Args:
            masked: On the disk.
            following: The next round's keys that came along; None where the sum was found there, and nobody's name is
                known yet.
            request: The round's.

        Raises:
            PeerError: the sum was not opened. Where an earlier call failed at it too, and enough sites for a round
                answered now, as _LostRoundError: those that lack may never come back.
        """
        alive, number = masked.alive, request.round
        keys = self._key_set(following or (), number + 1) if len(following or ()) == len(alive) else None
        question = SumWanted(number, masked.keys.session, alive, keys.envelopes if keys else ())
        answers = (
            self._exchange.everyone(question, lambda _: False)
            if following is None
            else self._exchange.each(dict.fromkeys(alive, question))
        )
        shares: dict[str, Mapping[str, bytes]] = {}
        boxes: dict[str, Mapping[str, bytes]] = {}
        present: set[str] = set()
        for answer in answers:
            present |= {answer.site} & set(self._rounds.sites)
            if not isinstance(answer, SumGiven) or answer.session != masked.keys.session:
                continue
            shares[answer.site] = answer.shares
            if keys and answer.next and self._complete(answer.next, keys):
                boxes[answer.site] = answer.next.boxes
        if keys and set(boxes) == set(keys.sites):
            self._prepared = _Prepared(keys, boxes)
        try:
            total = masked.opened(shares, self._terms.threshold)
        except PeerError as error:
            Journal(self._rounds.folder.journal).append(ROUND_FAILED, round=number, replies=len(shares))
            if masked.failed and len(present) >= self._fewest:
                raise _LostRoundError(error.found, expected=error.expected, remedy=error.remedy) from None
            masked.failed = True
            masked.keep(self._rounds.folder.root)
            raise
        weights = sum(int(self._weights[site]) for site in alive)
        flat = FixedPoint(self._terms.clip, self._terms.bits).decode(total, self._spec.pack(request.generator), weights)
        return self._spec.unpack(flat)

    def _key_set(self, envelopes: Iterable[bytes], round_: int) -> KeySet | None:
        """The keys that sites would accept; None where they would not."""
        terms = {"threshold": self._terms.threshold, "fewest": self._fewest}
        try:
            return read_key_set(envelopes, self._peers, study=self._digest, round=round_, **terms)
        except FedPhantomError:
            return None

    def _is_known(self, answer: Answer) -> bool:
        return isinstance(answer, KeysGiven) and self._signed(answer.keys, answer.site, answer.round)

    def _signed(self, keys: bytes, site: str, round_: int) -> bool:
        """Whether the site that an answer names signed the keys in it, for this round."""
        try:
            return read_keys(keys, self._peers, study=self._digest, round=round_).site == site
        except FedPhantomError:
            return False

    @staticmethod
    def _complete(shares: SharesGiven, keys: KeySet) -> bool:
        """Whether a site sealed a box for every other one, for these very keys."""
        own = {shares.site} & set(keys.sites)
        return bool(own) and shares.session == keys.session and set(shares.boxes) == set(keys.sites) - own

    @staticmethod
    def _fail(failures: dict[str, str], answer: Answer) -> None:
        reason = answer.reason if isinstance(answer, SiteFailure) else _NOT_AGREED
        failures.setdefault(answer.site, reason)

    def _too_few(self, round_: int, found: int, failures: Mapping[str, str]) -> PeerError | PolicyRefused:
        journal = Journal(self._rounds.folder.journal)
        for site, reason in failures.items():
            journal.append("site-left-out", round=round_, site=site, reason=reason)
        journal.append(ROUND_FAILED, round=round_, replies=found)
        reasons = "; ".join(f"{site}: {reason}" for site, reason in failures.items()) or "the others did not answer"
        return below_quorum(
            f"round {round_} has {found} of {counted(len(self._rounds.sites), 'site')} to sum ({reasons})",
            expected=f"at least {self._fewest}, the study's threshold and quorum",
            reasons=failures.values(),
        )
