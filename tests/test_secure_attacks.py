"""What a lying coordinator asks of a site in a secure round, and is refused."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from linear_site import LinearTrainer, linear_generator
from secure_run import cohorts_in, open_linear, prepared_run, secure_text

from fedphantom.client.conditions import Conditions
from fedphantom.client.secure_reply import MASKED_LEFT
from fedphantom.client.secure_state import SecureState
from fedphantom.client.site_round import Site
from fedphantom.common.errors import (
    ConfigError,
    DataError,
    FedPhantomError,
    PolicyRefused,
    RoundOver,
    SignatureInvalid,
    VerificationFailed,
)
from fedphantom.common.exchange import RoundReply, RoundRequest
from fedphantom.common.gan.parameters import parameters_digest
from fedphantom.common.journal import read_journal
from fedphantom.common.masking.keys import RoundSecrets, read_key_set
from fedphantom.common.masking.messages import InputGiven, InputWanted, KeysWanted, SharesWanted, SumGiven, SumWanted
from fedphantom.common.masking.peers import read_peers
from fedphantom.common.site_folder import SiteFolder

SITES = tuple(f"site-{letter}" for letter in "abcde")


@dataclass
class Federation:
    """Five sites, threshold four, and a coordinator that a test makes ask what it likes."""

    root: Path
    rounds: int = 3

    def __post_init__(self) -> None:
        self.folder = prepared_run(self.root / "out", cohorts_in(self.root, "abcde"), secure_text(4, self.rounds))
        self.study = self.folder.claimed()[0]
        self.start = linear_generator(self.study)
        self.peers = read_peers(self.folder.peers)

    def site(self, name: str) -> Site:
        """Opened anew, as after a restart."""
        return open_linear(self.folder.site(name))

    def keys(self, round_: int = 1, sites: tuple[str, ...] = SITES) -> dict[str, bytes]:
        wanted = KeysWanted(self.study.digest(), round_)
        return {site: self.site(site).answer(wanted).keys for site in sites}

    def shares(self, keys: dict[str, bytes], round_: int = 1) -> tuple[str, dict[str, dict[str, bytes]]]:
        """Session, and by receiver what each sender sealed."""
        given = [self.site(site).answer(SharesWanted(round_, tuple(keys.values()))) for site in keys]
        boxes = {to: {one.site: one.boxes[to] for one in given if one.site != to} for to in keys}
        assert len({one.session for one in given}) == 1
        return given[0].session, boxes

    def input(self, site: str, session: str, boxes: dict[str, bytes], round_: int = 1) -> InputGiven:
        request = RoundRequest(self.study.digest(), round_, self.start)
        given = self.site(site).answer(InputWanted(request, session, boxes))
        assert isinstance(given, InputGiven)
        return given

    def gathered(self) -> str:
        """A round whose inputs were all given; its session."""
        session, boxes = self.shares(self.keys())
        for site in SITES:
            self.input(site, session, boxes[site])
        return session

    def sum(self, site: str, session: str, alive: tuple[str, ...] = SITES, round_: int = 1) -> SumGiven:
        given = self.site(site).answer(SumWanted(round_, session, alive))
        assert isinstance(given, SumGiven)
        return given


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Federation:
    # What is flushed to the disk is not asked here: that takes longer than everything else.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return Federation(tmp_path)


def test_a_plain_round_is_refused_where_the_study_says_secure(federation: Federation) -> None:
    with pytest.raises(PolicyRefused, match="leave in a sum alone"):
        federation.site("site-a").train_round(RoundRequest(federation.study.digest(), 1, federation.start))


def test_swapped_masking_keys_are_refused(federation: Federation) -> None:
    """The coordinator puts keys of its own in a site's place, signed by a key of its own."""
    keys = federation.keys()
    own = federation.site("site-c")
    forger = SiteFolder.open(federation.folder.site("site-d"))
    from fedphantom.common.keys import load_private_key

    keys["site-b"] = RoundSecrets.fresh().signed(
        load_private_key(forger.identity / "key.pem"),
        study=federation.study.digest(),
        peers=federation.peers,
        round=1,
        site="site-b",
    )
    with pytest.raises(SignatureInvalid):
        own.answer(SharesWanted(1, tuple(keys.values())))


def test_keys_of_an_older_round_are_refused(federation: Federation) -> None:
    old = federation.keys(1)
    keys = federation.keys(2)
    with pytest.raises(SignatureInvalid, match="another round"):
        federation.site("site-a").answer(SharesWanted(2, (*(keys[site] for site in SITES[:-1]), old["site-e"])))


def test_an_older_attempts_keys_of_one_site_are_found_out_before_an_input_leaves(federation: Federation) -> None:
    """Validly signed for this very round: that they are stale shows in what the stale site sealed."""
    stale = federation.keys()
    _, sealed_before = federation.shares(stale)
    fresh = federation.keys()
    mixed = {**fresh, "site-b": stale["site-b"]}
    given = {
        site: federation.site(site).answer(SharesWanted(1, tuple(mixed.values()))) for site in SITES if site != "site-b"
    }
    with pytest.raises(PolicyRefused, match="own present keys"):
        federation.site("site-b").answer(SharesWanted(1, tuple(mixed.values())))
    boxes = {site: given[site].boxes["site-a"] for site in ("site-c", "site-d", "site-e")}
    boxes["site-b"] = sealed_before["site-a"]["site-b"]
    with pytest.raises(VerificationFailed, match="'site-b' did not make"):
        federation.input("site-a", given["site-a"].session, boxes)


def test_a_key_set_without_the_sites_own_keys_is_refused(federation: Federation) -> None:
    keys = federation.keys()
    others = tuple(key for site, key in keys.items() if site != "site-a")
    with pytest.raises(PolicyRefused, match="own present keys"):
        federation.site("site-a").answer(SharesWanted(1, others))


def test_fewer_sites_than_the_threshold_or_than_the_site_asks_for_are_refused(federation: Federation) -> None:
    keys = federation.keys()
    with pytest.raises(PolicyRefused, match="threshold of 4 among 3"):
        federation.site("site-a").answer(SharesWanted(1, tuple(keys[site] for site in SITES[:3])))
    folder = SiteFolder.open(federation.folder.site("site-a"))
    careful = Site(folder, LinearTrainer.open, lambda own: replace(Conditions.of_simulation(own), fewest_sites=5))
    with pytest.raises(PolicyRefused, match="a sum of 4 sites"):
        careful.answer(SharesWanted(1, tuple(keys[site] for site in SITES[:4])))


def test_shares_of_the_same_secrets_among_other_sites_are_refused(federation: Federation) -> None:
    keys = federation.keys()
    federation.shares(keys)
    with pytest.raises(PolicyRefused, match="same secrets again"):
        federation.site("site-a").answer(SharesWanted(1, tuple(keys[site] for site in SITES[:4])))


def test_an_input_masked_with_some_sites_only_is_refused(federation: Federation) -> None:
    session, boxes = federation.shares(federation.keys())
    some = {site: box for site, box in boxes["site-a"].items() if site != "site-e"}
    with pytest.raises(PolicyRefused, match="some of the round's sites are missing"):
        federation.input("site-a", session, some)


def test_a_site_that_withdraws_while_it_trains_gives_no_input(federation: Federation) -> None:
    session, boxes = federation.shares(federation.keys())
    folder = SiteFolder.open(federation.folder.site("site-a"))
    withdrawn: list[bool] = []

    class Interrupted(LinearTrainer):
        def train_round(self, request: RoundRequest) -> RoundReply:
            withdrawn.append(True)
            return super().train_round(request)

    def permit(own: SiteFolder) -> Conditions:
        if withdrawn:
            raise PolicyRefused("this site has withdrawn", expected="one that takes part", remedy="None.")
        return Conditions.of_simulation(own)

    request = RoundRequest(federation.study.digest(), 1, federation.start)
    with pytest.raises(PolicyRefused, match="has withdrawn"):
        Site(folder, lambda root: Interrupted(folder), permit).answer(InputWanted(request, session, boxes["site-a"]))
    left = [entry.facts["what"] for entry in read_journal(folder.journal) if entry.event == MASKED_LEFT]
    assert left == ["keys", "shares"]


def test_an_input_asked_for_again_is_the_very_same(federation: Federation) -> None:
    session, boxes = federation.shares(federation.keys())
    one, two = (federation.input("site-a", session, boxes["site-a"]) for _ in range(2))
    np.testing.assert_array_equal(one.masked, two.masked)


def test_another_input_under_the_same_masks_is_refused(federation: Federation) -> None:
    session, boxes = federation.shares(federation.keys())
    federation.input("site-a", session, boxes["site-a"])
    federation.start = {name: value + np.float32(1) for name, value in federation.start.items()}
    with pytest.raises(PolicyRefused, match="training now gives another"):
        federation.input("site-a", session, boxes["site-a"])


def test_of_each_site_one_secret_is_shown_and_the_other_never(federation: Federation) -> None:
    session = federation.gathered()
    alive = tuple(site for site in SITES if site != "site-e")
    shown = federation.sum("site-a", session, alive).shares
    assert set(shown) == set(SITES)
    with pytest.raises(PolicyRefused, match="again, with other sites"):
        federation.sum("site-a", session, SITES)
    assert federation.sum("site-a", session, alive).shares == shown  # the same again, also after a restart


def test_what_was_shown_stands_on_the_disk_before_it_leaves(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power goes between the disk and the answer: the site is bound by what it was about to show."""
    session = federation.gathered()
    site = federation.site("site-a")
    alive = SITES[:4]
    with monkeypatch.context() as context:
        context.setattr("fedphantom.client.secure_reply.SecureReply._left", _power_cut)
        with pytest.raises(_PowerCutError):
            site.answer(SumWanted(1, session, alive))
    with pytest.raises(PolicyRefused, match="again, with other sites"):
        federation.sum("site-a", session, SITES)
    assert set(federation.sum("site-a", session, alive).shares) == set(SITES)


class _PowerCutError(RuntimeError):
    pass


def _power_cut(*_: object, **__: object) -> None:
    raise _PowerCutError


@pytest.mark.parametrize(
    ("alive", "why"),
    [
        (SITES[:3], "a sum of 3 sites, where 4 are the fewest"),
        (SITES[1:], "a sum without this site"),
        ((*SITES, "site-z"), "sites that are not of the round"),
    ],
)
def test_sums_that_hide_too_little_are_not_opened(federation: Federation, alive: tuple[str, ...], why: str) -> None:
    session = federation.gathered()
    with pytest.raises(PolicyRefused, match=why):
        federation.sum("site-a", session, alive)


def test_a_sum_is_not_opened_by_a_site_that_gave_nothing_to_it(federation: Federation) -> None:
    session, _ = federation.shares(federation.keys())
    with pytest.raises(PolicyRefused, match="this site gave nothing"):
        federation.sum("site-a", session)


def test_a_second_attempt_at_a_round_whose_sum_was_opened_is_refused(federation: Federation) -> None:
    """The difference of two sums, one of them without a site, would be that site's update."""
    session = federation.gathered()
    federation.sum("site-a", session)
    with pytest.raises(RoundOver, match="opened before"):
        federation.keys(1, ("site-a",))
    with pytest.raises(RoundOver, match="opened before"):
        federation.site("site-a").answer(SharesWanted(1, (b"",)))


def test_secrets_of_an_attempt_that_was_given_up_open_nothing(federation: Federation) -> None:
    session = federation.gathered()
    federation.keys()
    with pytest.raises(PolicyRefused):
        federation.sum("site-a", session)


def test_a_question_for_another_study_or_round_is_refused(federation: Federation) -> None:
    with pytest.raises(PolicyRefused, match="another study"):
        federation.site("site-a").answer(KeysWanted("0" * 64, 1))
    with pytest.raises(PolicyRefused, match="not one of the study's 3"):
        federation.site("site-a").answer(KeysWanted(federation.study.digest(), 4))


@pytest.mark.parametrize("name", ["opened.json", "round-0000000002.json"])
def test_a_damaged_file_is_named_and_without_it_the_site_goes_on_and_shows_no_more(
    federation: Federation, name: str
) -> None:
    session = federation.gathered()
    federation.sum("site-a", session)
    damaged = federation.folder.site("site-a") / "masking" / name
    damaged.write_text("{")
    with pytest.raises(DataError, match=f"damaged file masking/{name} in") as found:
        federation.site("site-a").answer(SharesWanted(2, (b"",)))
    assert found.value.remedy.startswith("Remove it")
    damaged.unlink()
    with pytest.raises(RoundOver, match="opened before"):
        federation.keys(1, ("site-a",))
    with pytest.raises(PolicyRefused):
        federation.sum("site-a", session, SITES[:4])
    assert federation.keys(2, ("site-a",))


def test_a_site_that_lost_its_masking_folder_still_opens_no_second_sum(federation: Federation) -> None:
    session = federation.gathered()
    federation.sum("site-a", session)
    shutil.rmtree(federation.folder.site("site-a") / "masking")
    with pytest.raises(RoundOver, match="opened before"):
        federation.keys(1, ("site-a",))
    assert federation.keys(2, ("site-a",))


def test_an_older_copy_of_the_masking_folder_makes_a_site_forget_nothing(federation: Federation) -> None:
    """From before the input, and from before the sum: either could give what the other part of the round hides."""
    session, boxes = federation.shares(federation.keys())
    masking = federation.folder.site("site-a") / "masking"
    shutil.copytree(masking, federation.root / "before-input")
    for site in SITES:
        federation.input(site, session, boxes[site])
    shutil.copytree(masking, federation.root / "before-sum")
    federation.sum("site-a", session)

    def restore(copy: str) -> None:
        shutil.rmtree(masking)
        shutil.copytree(federation.root / copy, masking)

    restore("before-input")
    with pytest.raises(RoundOver, match="opened before"):
        federation.input("site-a", session, boxes["site-a"])
    restore("before-sum")
    with pytest.raises(RoundOver, match="opened before"):
        federation.sum("site-a", session, SITES[:4])


def test_a_sum_that_was_given_up_is_opened_no_more_once_the_next_input_left(federation: Federation) -> None:
    """Of two sums that began from one generator, the second without a site, the difference is nearly its update."""
    first = federation.gathered()
    second, boxes = federation.shares(federation.keys(2), 2)
    federation.input("site-a", second, boxes["site-a"], 2)
    with pytest.raises(PolicyRefused, match="does not have, or no more"):
        federation.sum("site-a", first)


def test_a_refusal_is_told_to_the_site_and_not_to_the_coordinator(federation: Federation) -> None:
    with pytest.raises(FedPhantomError):
        federation.site("site-a").answer(KeysWanted("0" * 64, 1))
    folder = SiteFolder.open(federation.folder.site("site-a"))
    assert "another study" in folder.errors.read_text()
    assert read_journal(folder.journal)[-1].facts["kind"] == "PolicyRefused"


def test_one_wrong_share_is_passed_over_and_too_many_give_no_sum(federation: Federation) -> None:
    from fedphantom.common.errors import PeerError
    from fedphantom.server.secure_sum import MaskedSum

    keys = federation.keys()
    session, boxes = federation.shares(keys)
    read = read_key_set(
        keys.values(), federation.peers, study=federation.study.digest(), round=1, threshold=4, fewest=4
    )
    values = sum(array.size for array in federation.start.values())
    begun = parameters_digest(federation.start)
    masked = MaskedSum.empty(federation.study.digest(), read, begun, values)
    for site in SITES:
        given = federation.input(site, session, boxes[site])
        masked.add(site, given.masked, given.metrics)
    shares = {site: dict(federation.sum(site, session).shares) for site in SITES}
    assert masked.opened(shares, 4).shape == (values,)
    changed = {**shares, "site-a": {**shares["site-a"], "site-c": bytes(32)}}
    np.testing.assert_array_equal(masked.opened(changed, 4), masked.opened(shares, 4))
    changed["site-b"] = {**shares["site-b"], "site-c": bytes(32)}
    with pytest.raises(PeerError, match="'site-c' that do not fit"):
        masked.opened(changed, 4)
    with pytest.raises(PeerError, match="by 3 sites alone"):
        masked.opened({site: shares[site] for site in SITES[:3]}, 4)


def test_two_questions_at_once_are_not_both_answered(federation: Federation) -> None:
    """Each could else be given the secret that the other must not have."""
    session = federation.gathered()
    folder = SiteFolder.open(federation.folder.site("site-a"))
    with SecureState(folder.masking, folder.journal).held(), pytest.raises(ConfigError):
        federation.sum("site-a", session, SITES[:4])
    assert federation.sum("site-a", session, SITES[:4]).shares
