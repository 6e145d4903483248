"""A round whose sum cannot be had any more: it is given up in so many words, and the study goes on with the next."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from linear_run import linear_simulation
from linear_site import order
from secure_run import BentSites, cohorts_in, run_bent, secure_text

from fedphantom.common.errors import PeerError
from fedphantom.common.exchange import EPSILON, NOISED_STEPS, Parameters
from fedphantom.common.gan.parameters import parameters_digest
from fedphantom.common.gan.weights import load_weights
from fedphantom.common.journal import read_journal
from fedphantom.common.masking.messages import InputGiven, InputWanted, KeysWanted, SumGiven, SumWanted, Wanted
from fedphantom.common.masking.peers import read_peers
from fedphantom.common.site_folder import MASKED_LEFT
from fedphantom.server.aggregation import SiteFailure
from fedphantom.server.checkpoints import latest_checkpoint
from fedphantom.server.commands import simulation_text
from fedphantom.server.secure_exchange import Answer
from fedphantom.server.secure_sum import kept_sum

FOUR = tuple(f"site-{letter}" for letter in "abcd")
ALONE = "the sum of round 2 can be opened by 2 sites alone"

pytestmark = pytest.mark.usefixtures("unflushed")


class Listening(BentSites):
    """Notes what each round began from, and what was asked of whom."""

    def __init__(self, rounds) -> None:  # type: ignore[no-untyped-def]  # as the base
        super().__init__(rounds)
        self.began: dict[int, Parameters] = {}
        self.questions: list[tuple[str, type, int]] = []

    def asked(self, site: str, wanted: Wanted) -> Wanted:
        if isinstance(wanted, InputWanted):
            self.began[wanted.request.round] = wanted.request.generator
        else:
            self.questions.append((site, type(wanted), wanted.round))
        return wanted


class Unwell(BentSites):
    """Site c falls silent after its input of round 2, before it hears what it is asked next."""

    def _ask(self, site: str, wanted: Wanted) -> Answer:
        silent = site == "site-c" and isinstance(wanted, SumWanted) and wanted.round == 2
        return SiteFailure(site, "no reply") if silent else super()._ask(site, wanted)


def lost_in_round_two(root: Path, rounds: int = 3) -> dict[str, Path]:
    """Site d drops out before its input, site c after it; site c comes back as a machine without ``masking/``."""
    cohorts = cohorts_in(root)
    order(cohorts["site-d"], fail=[2])
    with pytest.raises(PeerError, match=ALONE) as failed:
        run_bent(root / "out", cohorts, secure_text(rounds=rounds), Unwell)
    assert "Have 'site-c' come back" in failed.value.remedy
    assert "is given up" in failed.value.remedy
    order(cohorts["site-d"])
    shutil.rmtree(root / "out" / "sites" / "site-c" / "masking")
    return cohorts


def events(root: Path) -> list[tuple[str, object]]:
    entries = read_journal(root / "out" / "journal.jsonl")
    return [(e.event, e.facts.get("round")) for e in entries if e.event.startswith("round-")]


def assert_no_site_opened_two_sums_of_a_round(root: Path) -> None:
    for site in FOUR:
        entries = read_journal(root / "out" / "sites" / site / "journal.jsonl")
        sums = [e.facts for e in entries if e.event == MASKED_LEFT and e.facts.get("what") == "sum"]
        given = {(str(facts["round"]), str(facts["sha256"])) for facts in sums}
        assert len({number for number, _ in given}) == len(given)


def test_a_sum_that_too_few_can_open_for_good_costs_one_round_and_not_the_study(tmp_path: Path) -> None:
    cohorts = lost_in_round_two(tmp_path)
    checkpoint, exchange = run_bent(tmp_path / "out", cohorts, secure_text(), Listening)
    assert isinstance(exchange, Listening)
    assert [record.sites for record in checkpoint.history] == [FOUR, (), FOUR]
    assert [record.given_up for record in checkpoint.history] == ["", ALONE, ""]
    lost = checkpoint.history[1]
    assert lost.left_out == {"site-d": "the site's cohort needs mending"}  # the others answered, and are not to blame
    assert lost.missed == {"site-d": 1}
    # Asked for once more, and after that never: neither this sum nor another one of the round.
    assert [question for question in exchange.questions if question[2] == 2] == [(s, SumWanted, 2) for s in FOUR]
    assert events(tmp_path) == [
        ("round-done", 1),
        ("round-failed", 2),
        ("round-failed", 2),
        ("round-given-up", 2),
        ("round-done", 3),
    ]
    (told,) = [e.facts for e in read_journal(tmp_path / "out/journal.jsonl") if e.event == "round-given-up"]
    assert told["reason"] == ALONE
    assert_no_site_opened_two_sums_of_a_round(tmp_path)


def test_the_round_after_begins_from_the_generator_before(tmp_path: Path) -> None:
    cohorts = lost_in_round_two(tmp_path)
    before = latest_checkpoint(tmp_path / "out" / "checkpoints")
    assert before is not None
    _, exchange = run_bent(tmp_path / "out", cohorts, secure_text(), Listening)
    assert isinstance(exchange, Listening)
    assert set(exchange.began) == {3}
    assert parameters_digest(exchange.began[3]) == parameters_digest(before.aggregate)


def test_a_site_that_never_comes_back_does_not_hold_the_others_up(tmp_path: Path) -> None:
    cohorts = lost_in_round_two(tmp_path)

    class Gone(BentSites):
        def _ask(self, site: str, wanted: Wanted) -> Answer:
            return SiteFailure(site, "no reply") if site == "site-c" else super()._ask(site, wanted)

    checkpoint, _ = run_bent(tmp_path / "out", cohorts, secure_text(), Gone)
    assert [record.sites for record in checkpoint.history] == [FOUR, (), ("site-a", "site-b", "site-d")]
    assert checkpoint.history[2].missed == {"site-c": 1}  # in the round that was given up it had answered


def test_while_too_few_are_there_for_any_round_none_is_given_up(tmp_path: Path) -> None:
    cohorts = cohorts_in(tmp_path)

    class Half(BentSites):
        """Sites c and d are not heard of once the sum of round 2 is to be opened."""

        def _ask(self, site: str, wanted: Wanted) -> Answer:
            silent = site in ("site-c", "site-d") and isinstance(wanted, SumWanted) and wanted.round == 2
            return SiteFailure(site, "no reply") if silent else super()._ask(site, wanted)

        def everyone(self, wanted, known) -> Iterable[Answer]:  # type: ignore[no-untyped-def]  # as the base
            answers = super().everyone(wanted, known)
            return [a for a in answers if a.site in ("site-a", "site-b") or isinstance(wanted, KeysWanted)]

    for _ in range(3):
        with pytest.raises(PeerError, match=ALONE):
            run_bent(tmp_path / "out", cohorts, secure_text(), Half)
    checkpoint, _ = run_bent(tmp_path / "out", cohorts, secure_text())
    assert [record.sites for record in checkpoint.history] == [FOUR] * 3


def test_a_coordinator_that_was_killed_before_it_asked_gives_nothing_up_at_its_first_question(tmp_path: Path) -> None:
    cohorts = cohorts_in(tmp_path)

    class Killed(BentSites):
        def _ask(self, site: str, wanted: Wanted) -> Answer:
            if isinstance(wanted, SumWanted) and wanted.round == 2:
                raise KeyboardInterrupt
            return super()._ask(site, wanted)

    with pytest.raises(KeyboardInterrupt):
        run_bent(tmp_path / "out", cohorts, secure_text(), Killed)

    class Deaf(BentSites):
        def answered(self, name: str, wanted: Wanted, answer: Answer) -> Answer | None:
            lost = isinstance(answer, SumGiven) and answer.round == 2 and name in ("site-c", "site-d")
            return None if lost else answer

    with pytest.raises(PeerError, match=ALONE):
        run_bent(tmp_path / "out", cohorts, secure_text(), Deaf)
    checkpoint, _ = run_bent(tmp_path / "out", cohorts, secure_text())
    assert checkpoint.history[1].sites == FOUR


def test_shares_that_never_fit_together_cost_one_round_and_not_the_study(tmp_path: Path) -> None:
    cohorts = cohorts_in(tmp_path)

    class Lying(BentSites):
        """Two sites give wrong shares of site c's secret in round 2, the same whenever they are asked."""

        def answered(self, name: str, wanted: Wanted, answer: Answer) -> Answer | None:
            if isinstance(answer, SumGiven) and answer.round == 2 and name in ("site-a", "site-b"):
                return replace(answer, shares={**answer.shares, "site-c": bytes(32)})
            return answer

    with pytest.raises(PeerError, match="shares of 'site-c' that do not fit together in round 2"):
        run_bent(tmp_path / "out", cohorts, secure_text(), Lying)
    checkpoint, _ = run_bent(tmp_path / "out", cohorts, secure_text(), Lying)
    assert [len(record.sites) for record in checkpoint.history] == [4, 0, 4]
    assert "do not fit together" in checkpoint.history[1].given_up
    assert_no_site_opened_two_sums_of_a_round(tmp_path)


def test_a_sum_that_is_lost_after_sites_opened_it_is_not_asked_for_a_second_time(tmp_path: Path) -> None:
    """The coordinator's disk, or a person, removed what it had gathered: two of four sites refuse another sum."""
    cohorts = lost_in_round_two(tmp_path)
    shutil.rmtree(tmp_path / "out" / "secure")
    checkpoint, exchange = run_bent(tmp_path / "out", cohorts, secure_text(), Listening)
    assert isinstance(exchange, Listening)
    assert [record.sites for record in checkpoint.history] == [FOUR, (), FOUR]
    reason = checkpoint.history[1].given_up
    assert "site-a: the site gave its part in that round's sum before" in reason
    assert ("site-a", SumWanted, 2) not in exchange.questions
    assert_no_site_opened_two_sums_of_a_round(tmp_path)


def test_a_run_that_is_older_than_its_sites_gives_one_round_up_and_not_all_of_them(tmp_path: Path) -> None:
    """Its checkpoints were restored from an old copy: what was lost is not to be thrown after what sites did since."""
    cohorts = cohorts_in(tmp_path)
    run_bent(tmp_path / "out", cohorts, secure_text())
    shutil.rmtree(tmp_path / "out" / "checkpoints")
    for _ in range(2):
        with pytest.raises(PeerError, match="round 2 has 0 of 4 sites") as failed:
            run_bent(tmp_path / "out", cohorts, secure_text())
        assert failed.value.remedy.startswith("Restore the run's newest checkpoints")
    newest = latest_checkpoint(tmp_path / "out" / "checkpoints")
    assert newest is not None
    assert [record.sites for record in newest.history] == [()]


def test_a_kept_sum_of_another_generator_is_not_added_to_this_one(tmp_path: Path) -> None:
    """The newest checkpoint is lost with the sum of the round after it gathered: that sum began from what is lost."""
    cohorts = cohorts_in(tmp_path)

    class Killed(BentSites):
        def _ask(self, site: str, wanted: Wanted) -> Answer:
            if isinstance(wanted, SumWanted) and wanted.round == 3:
                raise KeyboardInterrupt
            return super()._ask(site, wanted)

    with pytest.raises(KeyboardInterrupt):
        run_bent(tmp_path / "out", cohorts, secure_text(), Killed)
    (tmp_path / "out" / "checkpoints" / "round-00002.safetensors").write_bytes(b"cut off")
    checkpoint, exchange = run_bent(tmp_path / "out", cohorts, secure_text(), Listening)
    assert isinstance(exchange, Listening)
    assert [record.sites for record in checkpoint.history] == [FOUR, (), FOUR]
    assert sorted(a.site for a in exchange.heard if isinstance(a, InputGiven) and a.round == 3) == list(FOUR)
    peers = read_peers(tmp_path / "out" / "peers.json")
    kept = {"study": checkpoint.study_digest, "round": 3, "peers": peers, "threshold": 3}
    began = parameters_digest(exchange.began[3])
    assert kept_sum(tmp_path / "out", start=began, **kept)  # type: ignore[arg-type]  # of several types
    assert kept_sum(tmp_path / "out", start="0" * 64, **kept) is None  # type: ignore[arg-type]


def test_where_the_last_round_is_given_up_the_run_ends_with_what_it_has_and_says_so(tmp_path: Path) -> None:
    cohorts = lost_in_round_two(tmp_path, rounds=2)
    result = linear_simulation(tmp_path / "out", cohorts, text=secure_text(rounds=2))
    assert [record.sites for record in result.rounds] == [FOUR, ()]
    assert result.generator is not None
    generator, metadata = load_weights(result.generator)
    assert metadata["rounds"] == "1"
    after_one = linear_simulation(tmp_path / "one", cohorts, text=secure_text(rounds=1)).generator
    assert after_one is not None
    for name, values in load_weights(after_one)[0].items():
        np.testing.assert_array_equal(values, generator[name])
    summary = json.loads(result.folder.summary.read_text())
    assert summary["rounds_given_up"] == [2]
    assert list((tmp_path / "out" / "secure").iterdir()) == []  # nobody is asked to open it any more
    told = simulation_text(summary | {"not_drawn": 0})
    assert f"round 2 was given up, and no site's training of it counts: {ALONE}" in told
    assert "left out of a round" not in told


def test_networks_that_no_round_trained_are_no_result(tmp_path: Path) -> None:
    cohorts = cohorts_in(tmp_path)

    class Lying(BentSites):
        def answered(self, name: str, wanted: Wanted, answer: Answer) -> Answer | None:
            wrong = isinstance(answer, SumGiven) and name in ("site-a", "site-b")
            return replace(answer, shares={**answer.shares, "site-c": bytes(32)}) if wrong else answer

    with pytest.raises(PeerError, match="fit together"):
        run_bent(tmp_path / "out", cohorts, secure_text(rounds=1), Lying)
    for _ in range(2):
        with pytest.raises(PeerError, match="and no other round of the study has a sum") as failed:
            run_bent(tmp_path / "out", cohorts, secure_text(rounds=1), Lying)
        assert failed.value.remedy == "Begin the study anew, with new folders at its sites."
    newest = latest_checkpoint(tmp_path / "out" / "checkpoints")
    assert newest is not None
    assert newest.round == 0


def test_what_sites_spent_in_a_round_that_was_given_up_stays_told(tmp_path: Path) -> None:
    """Under a promise each says it with its input; that the sum was lost gives nothing back."""
    cohorts = cohorts_in(tmp_path)
    spent = MappingProxyType({EPSILON: 0.5, NOISED_STEPS: 3.0})

    class Spending(Unwell):
        def answered(self, name: str, wanted: Wanted, answer: Answer) -> Answer | None:
            return replace(answer, metrics=spent) if isinstance(answer, InputGiven) and answer.round == 2 else answer

    order(cohorts["site-d"], fail=[2])
    with pytest.raises(PeerError, match=ALONE):
        run_bent(tmp_path / "out", cohorts, secure_text(), Spending)
    checkpoint, _ = run_bent(tmp_path / "out", cohorts, secure_text(), Spending)
    sites = ("site-a", "site-b", "site-c")
    assert checkpoint.history[1].epsilon == dict.fromkeys(sites, 0.5)
    assert checkpoint.history[1].noised_steps == dict.fromkeys(sites, 3)
