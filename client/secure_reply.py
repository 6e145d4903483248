"""A site's side of a secure round: keys, shares, a masked input, and one share of each site to open the sum.

Whatever the coordinator says, a site (1) takes keys only from the sites that it approved, (2) makes one set of shares
and one masked input of each attempt's secrets, (3) helps to open one sum a round, of a number of sites that hides each,
and (4) shows of each site one secret or the other, never both.

Source: Bonawitz et al. 2017, doi 10.1145/3133956.3133982.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..common.counted import counted
from ..common.errors import ConfigError, PolicyRefused, RoundOver
from ..common.exchange import EPSILON, NOISED_STEPS, RoundReply, RoundRequest
from ..common.gan.parameters import ParameterSpec, parameters_digest
from ..common.journal import Fact, Journal
from ..common.keys import PRIVATE_KEY_NAME, load_private_key
from ..common.masking.fixed_point import FixedPoint
from ..common.masking.keys import KeySet, RoundSecrets, read_key_set
from ..common.masking.masks import add_own_mask, add_shared_mask
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
from ..common.masking.sealing import Shares, seal, unseal
from ..common.masking.shares import split
from ..common.masking.terms import FEWEST_SITES, SUM_EXPECTED, SecureAggregationTable
from ..common.site_folder import MASKED_LEFT as MASKED_LEFT
from ..common.site_folder import SiteFolder
from .conditions import Conditions
from .secure_state import Opened, SecureState, Session

PUBLIC_METRICS = ("steps", EPSILON, NOISED_STEPS)
"""Figures of a reply that still leave: functions of public constants. One site's figures on its fakes do not."""

Train = Callable[[RoundRequest], RoundReply]
"""The site's plain round, checked by its egress filter: what it gives stays here."""


class SecureReply:
    """Answers the coordinator's questions of secure rounds.

    Args:
        folder: The site's folder.
        train: The site's plain round.
        conditions: Under which it takes part.

    Raises:
        ConfigError: the study has no secure aggregation, or the site no identity key.
    """

    def __init__(self, folder: SiteFolder, train: Train, conditions: Conditions) -> None:
        study = folder.study()
        if study.federation.secure_aggregation is None:
            raise ConfigError(
                "a masked round asked of a study without secure aggregation",
                expected="plain rounds, as the study says",
                remedy="Compare 'fedphantom study show' with the coordinator's.",
            )
        self._terms: SecureAggregationTable = study.federation.secure_aggregation
        self._folder, self._train, self._study = folder, train, study
        self._conditions = conditions
        self._fewest = max(FEWEST_SITES, conditions.fewest_sites, self._terms.threshold)
        self._digest, self._rounds = study.digest(), study.training.rounds
        self._state, self._journal = SecureState(folder.masking, folder.journal), Journal(folder.journal)

    @cached_property
    def _peers(self) -> Peers:
        peers = self._conditions.peers()
        if problem := self._study.federation.sum_problem(peers.keys):
            raise PolicyRefused(
                f"secure aggregation over the sites that take part here: {problem}",
                expected=SUM_EXPECTED,
                remedy="Nothing was sent. Ask the coordinator for a study that fits its sites.",
            )
        return peers

    @cached_property
    def _identity(self) -> Ed25519PrivateKey:
        return load_private_key(self._folder.identity / PRIVATE_KEY_NAME)

    def answer(self, wanted: Wanted) -> Given:
        """What the site gives; it is journalled, and on the disk where it must not be given otherwise again.

        Raises:
            RoundOver: for a round whose sum this site helped to open.
            PolicyRefused: for another study, fewer sites than asked for, or what was asked and answered otherwise
                before.
            ConfigError: another question is being answered.
            SignatureInvalid: keys that the approved sites did not sign for this round.
            VerificationFailed: shares that were not sealed for this site, with these keys.
            FedPhantomError: as training says.
        """
        with self._state.held():  # two questions at once could each be given one of two secrets
            match wanted:
                case KeysWanted():
                    return self._keys(wanted)
                case SharesWanted():
                    return self._shares(wanted)
                case InputWanted():
                    return self._input(wanted)
                case SumWanted():
                    return self._sum(wanted)

    def _keys(self, wanted: KeysWanted) -> KeysGiven:
        if wanted.study != self._digest:
            raise _refused("its question is for another study")
        keys = self._fresh_keys(wanted.round)
        self._left(wanted.round, "keys", keys)
        return KeysGiven(self._folder.name, wanted.round, keys)

    def _fresh_keys(self, round_: int) -> bytes:
        """Begin an attempt at a round; the attempt before is forgotten, and with it what it could open."""
        self._refuse_over(round_)
        if not 1 <= round_ <= self._rounds:
            raise _refused(f"its round is not one of the study's {self._rounds}")
        secrets, name = RoundSecrets.fresh(), self._folder.name
        keys = secrets.signed(self._identity, study=self._digest, peers=self._peers, round=round_, site=name)
        self._state.keep(Session(round_, secrets, keys))
        return keys

    def _shares(self, wanted: SharesWanted) -> SharesGiven:
        self._refuse_over(wanted.round)
        session = self._session(wanted.round)
        if session.key_set and set(wanted.keys) != set(session.key_set):
            # Two sets of shares of the same secrets could be opened one way here and another way there.
            raise _refused("it asks for shares of the same secrets again, among other keys")
        keys = self._read(wanted.keys, wanted.round)
        if session.keys not in keys.envelopes:
            raise _refused("this site's own present keys are not among those it hands on")
        if problem := self._fixed_point.weight_problem(map(self._study.federation.weight_of, keys.sites)):
            raise _refused(problem)
        if not session.boxes:
            session = self._share(session, keys)
        self._left(wanted.round, "shares", b"".join(session.boxes.values()))
        return SharesGiven(self._folder.name, wanted.round, keys.session, session.boxes)

    def _share(self, session: Session, keys: KeySet) -> Session:
        """The session with its secrets shared out among the sites of these keys."""
        own, threshold, count = self._folder.name, self._terms.threshold, len(keys.sites)
        mask = split(session.secrets.mask.private_bytes_raw(), threshold, count)
        seed = split(session.secrets.seed, threshold, count)
        shares = {site: Shares(mask[place], seed[place]) for place, site in enumerate(keys.sites)}
        boxes = {site: seal(shares[site], session.secrets, keys, own, site) for site in keys.sites if site != own}
        shared = replace(session, key_set=keys.envelopes, boxes=boxes, held={own: shares[own]})
        self._state.keep(shared)
        return shared

    def _input(self, wanted: InputWanted) -> InputGiven:
        round_, own = wanted.request.round, self._folder.name
        self._refuse_over(round_)
        session = self._session(round_)
        keys = self._agreed(session, wanted.session)
        if set(wanted.boxes) != set(keys.sites) - {own}:
            # Masks shared with only some of them would let whoever asks twice take mask after mask away.
            raise _refused("sealed shares of some of the round's sites are missing, or of others there")
        received = {site: unseal(box, session.secrets, keys, site, own) for site, box in wanted.boxes.items()}
        reply = self._train(wanted.request)
        spec = ParameterSpec.of(wanted.request.generator)
        trained, start = spec.pack(reply.generator), spec.pack(wanted.request.generator)
        masked, norm = self._fixed_point.encode(trained, start, int(reply.weight))
        begun = parameters_digest(wanted.request.generator)
        add_own_mask(masked, session.secrets.seed, keys, own)
        for site in keys.sites:
            if site != own:
                add_shared_mask(masked, session.secrets.mask, keys, own, site, begun)
        content = np.ascontiguousarray(masked, "<u4").tobytes()
        digest = hashlib.sha256(content).hexdigest()
        if session.masked not in ("", digest):
            # The same masks over two inputs give away their difference.
            raise _refused("this round's input was given already, and training now gives another")
        self._state.keep(replace(session, held={**session.held, **received}, masked=digest))
        # Of a round whose sum was given up: two sums that began alike would tell more than each.
        self._state.forget_until(round_ - 1)
        metrics = {name: value for name, value in reply.metrics.items() if name in PUBLIC_METRICS}
        following = self._fresh_keys(round_ + 1) if round_ < self._rounds else b""
        facts: dict[str, Fact] = {"norm": norm, "clipped": norm > self._terms.clip, "metrics": dict(metrics)}
        self._left(round_, "input", content, incoming=begun, **facts)
        return InputGiven(own, round_, keys.session, masked, reply.weight, metrics, following)

    def _sum(self, wanted: SumWanted) -> SumGiven:
        opened, alive = self._state.opened(), tuple(sorted(wanted.alive))
        if opened is None or opened.round != wanted.round:
            self._refuse_over(wanted.round)
            opened = self._to_open(wanted, alive)
        elif (opened.session, opened.alive) != (wanted.session, alive):
            raise _refused("it asks to open this round's sum again, with other sites in it")
        following = self._shares(SharesWanted(wanted.round + 1, wanted.keys)) if wanted.keys else None
        self._state.open(opened)  # before it leaves
        self._left(wanted.round, "sum", b"".join(opened.shares.values()), alive=list(alive))
        return SumGiven(self._folder.name, wanted.round, opened.session, opened.shares, following)

    def _to_open(self, wanted: SumWanted, alive: tuple[str, ...]) -> Opened:
        """Of every site of the session the one share that its being in the sum asks for."""
        session = self._session(wanted.round)
        keys = self._agreed(session, wanted.session)
        if not session.masked:
            raise _refused("it asks to open a sum to which this site gave nothing")
        if self._folder.name not in alive or not set(alive) <= set(keys.sites):
            raise _refused("a sum without this site, or with sites that are not of the round")
        if len(alive) < self._fewest:
            raise _refused(f"a sum of {counted(len(alive), 'site')}, where {self._fewest} are the fewest")
        held = session.held
        shares = {site: held[site].seed if site in alive else held[site].mask for site in keys.sites}
        return Opened(wanted.round, keys.session, alive, shares)

    @property
    def _fixed_point(self) -> FixedPoint:
        return FixedPoint(self._terms.clip, self._terms.bits)

    def _read(self, envelopes: tuple[bytes, ...], round_: int) -> KeySet:
        threshold = self._terms.threshold
        return read_key_set(
            envelopes, self._peers, study=self._digest, round=round_, threshold=threshold, fewest=self._fewest
        )

    def _agreed(self, session: Session, asked: str) -> KeySet:
        """The keys that this site made its shares for, if the question is for the same."""
        if not session.key_set:
            raise _refused("it goes on with keys that this site never saw")
        keys = self._read(session.key_set, session.round)
        if keys.session != asked:
            raise _refused("it goes on with other keys than this site made its shares for")
        return keys

    def _session(self, round_: int) -> Session:
        session = self._state.session(round_)
        if session is None:
            raise _refused("it goes on with keys that this site does not have, or no more")
        return session

    def _refuse_over(self, round_: int) -> None:
        """A second sum of the same round, without one of its sites, would give that site's input away."""
        if round_ <= self._state.last_opened():
            raise RoundOver(
                "the coordinator's request was refused: that round's sum was opened before",
                expected="the next round of this site's study",
                remedy="Nothing was sent. The coordinator goes on with the next round.",
            )

    def _left(self, round_: int, what: str, content: bytes, **facts: Fact) -> None:
        digest = hashlib.sha256(content).hexdigest()
        self._journal.append(MASKED_LEFT, round=round_, what=what, sha256=digest, bytes=len(content), **facts)


def _refused(problem: str) -> PolicyRefused:
    return PolicyRefused(
        f"the coordinator's request was refused: {problem}",
        expected="one attempt after the other at the next round of this site's study, each asked once",
        remedy="Nothing was sent. The coordinator goes on with the next attempt; if it happens again, ask it why.",
    )
