"""A site that sends too much: scaled back, or trimmed away, and told; and studies that ask for what does not fit."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear_run import linear_simulation
from linear_site import cohorts_of, linear_generator, study_text
from tensorboard_reader import read_curves

from fedphantom.common.errors import ConfigError
from fedphantom.common.exchange import Parameters
from fedphantom.common.gan.parameters import ParameterSpec
from fedphantom.common.journal import read_journal
from fedphantom.common.study import FederationTable, parse_study
from fedphantom.common.study_template import to_toml
from fedphantom.privacy.study_summary import study_text as in_words
from fedphantom.server.aggregation import ReceivedReply, RoundMean, distance, mean_of_replies
from fedphantom.server.checkpoints import latest_checkpoint
from fedphantom.server.reply_spool import ReplySpool

SITES = ("site-a", "site-b", "site-c")
START = {"w": np.array([1.0, -2.0, 0.5, 0.0], np.float32), "b": np.zeros(1, np.float32)}

values = st.floats(-100, 100, width=32)
generators = st.lists(values, min_size=5, max_size=5).map(
    lambda v: {"w": np.array(v[:4], np.float32), "b": np.array(v[4:], np.float32)}
)


def mean_of(drawn: list[Parameters], norm_bound: float | None = None, trimmed: int = 0) -> RoundMean:
    with tempfile.TemporaryDirectory() as folder, ReplySpool(Path(folder), ParameterSpec.of(START)) as spool:
        replies = [
            ReceivedReply(f"site-{n}", 1.0, {}, spool.add(generator), distance(START, generator))
            for n, generator in enumerate(drawn)
        ]
        return mean_of_replies(replies, spool, START, norm_bound=norm_bound, trimmed=trimmed)


def moved(x: float, y: float) -> Parameters:
    """The start, its first two values moved."""
    return {"w": START["w"] + np.array([x, y, 0, 0], np.float32), "b": START["b"]}


# A bound on the length of an update


@given(st.lists(generators, min_size=1, max_size=5), st.floats(0.01, 50))
def test_no_average_is_further_from_the_start_than_the_bound(drawn: list[Parameters], bound: float) -> None:
    assert distance(START, mean_of(drawn, bound).generator) <= bound * (1 + 1e-5) + 1e-5


@given(st.lists(generators, min_size=1, max_size=5))
def test_a_bound_that_nobody_reaches_changes_no_bit(drawn: list[Parameters]) -> None:
    free, bounded = mean_of(drawn).generator, mean_of(drawn, 1e6).generator
    assert all(free[name].tobytes() == bounded[name].tobytes() for name in START)


def test_an_update_that_is_too_long_keeps_its_direction_and_its_share() -> None:
    # Site 1 moved by (30, 40), length 50; scaled to 5 it is (3, 4). With (1, 0) of the other, the mean is (2, 2).
    mean = mean_of([moved(1, 0), moved(30, 40)], norm_bound=5.0).generator
    np.testing.assert_allclose(mean["w"] - START["w"], [2, 2, 0, 0], atol=1e-6)


# A trimmed mean


@given(st.lists(generators, min_size=3, max_size=6), generators)
def test_one_site_alone_cannot_move_a_trimmed_mean_past_the_others(drawn: list[Parameters], wild: Parameters) -> None:
    mean = mean_of([*drawn, wild], trimmed=1).generator
    for name in START:
        others = np.stack([one[name] for one in drawn])
        assert (mean[name] >= others.min(axis=0) - 1e-5).all()
        assert (mean[name] <= others.max(axis=0) + 1e-5).all()


def test_a_trimmed_mean_is_taken_of_each_value_apart() -> None:
    mean = mean_of([moved(0, 9), moved(1, 1), moved(2, 3), moved(90, -70)], trimmed=1).generator
    np.testing.assert_allclose(mean["w"] - START["w"], [1.5, 2, 0, 0], atol=1e-6)


def test_what_is_trimmed_follows_the_number_of_replies() -> None:
    table = FederationTable(quorum=4, trimmed_mean=0.25)
    assert [table.trimmed_of(n) for n in (4, 7, 8, 12)] == [1, 1, 2, 3]
    assert FederationTable(quorum=100, trimmed_mean=0.29).trimmed_of(100) == 29
    assert FederationTable().trimmed_of(9) == 0


# How far a site goes from the others


def test_a_cosine_says_whether_a_site_goes_with_the_mean_or_against_it() -> None:
    found = mean_of([moved(1, 0), moved(3, 0), moved(-1, 0), moved(0, 0)])
    assert {site: round(cosine, 6) for site, cosine in found.cosines.items()} == {
        "site-0": 1,
        "site-1": 1,
        "site-2": -1,
    }


@given(st.lists(generators, min_size=1, max_size=5))
def test_a_cosine_agrees_with_its_definition(drawn: list[Parameters]) -> None:
    found = mean_of(drawn)
    updates = [np.concatenate([(one[n].astype(float) - START[n]).ravel() for n in sorted(START)]) for one in drawn]
    mean = np.mean(updates, axis=0)
    for n, update in enumerate(updates):
        if f"site-{n}" in found.cosines and np.linalg.norm(mean) > 1e-3:
            cosine = update @ mean / np.linalg.norm(update) / np.linalg.norm(mean)
            assert found.cosines[f"site-{n}"] == pytest.approx(cosine, abs=1e-6)


# The study


UNFIT = {
    "a bound of nothing": ("norm_bound = 0.0", "norm_bound"),
    "half trimmed": ("trimmed_mean = 0.5", "trimmed_mean"),
    "a quorum that loses nobody": ("trimmed_mean = 0.25", "of 2 replies, the quorum, it would leave out none"),
    "a trimmed mean by weight": (
        'trimmed_mean = 0.34\nweighting = "declared"\ndeclared_weights = { site-a = 2 }',
        "takes every site alike",
    ),
    "an ensemble with a bound": ('sharing = "ensemble"\nnorm_bound = 1.0', "for an average"),
    "an ensemble trimmed": ('sharing = "ensemble"\ntrimmed_mean = 0.3', "for an average"),
    "no link at all": ("slowest_link_mbit = 0", "slowest_link_mbit"),
}


@pytest.mark.parametrize(("lines", "says"), UNFIT.values(), ids=UNFIT.keys())
def test_a_study_whose_average_does_not_fit_together_is_refused(lines: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_study(study_text(federation=lines))


BOUNDED = study_text(quorum=3, federation="norm_bound = 0.5\ntrimmed_mean = 0.34\nslowest_link_mbit = 2.0")


def test_a_study_keeps_what_it_says_and_one_that_says_nothing_keeps_its_digest() -> None:
    assert parse_study(to_toml(parse_study(BOUNDED))) == parse_study(BOUNDED)
    silent = parse_study(study_text())
    assert silent.model_dump(mode="json")["federation"].keys() == {
        "sharing", "quorum", "deadline_s", "ema_decay", "weighting", "declared_weights", "approval_keys",
        "proximal_weight", "server_momentum",
    }  # fmt: skip
    said = study_text(federation='transport = "float32"\nslowest_link_mbit = 10.0')
    assert parse_study(said).digest() == silent.digest()


def test_a_study_in_words_says_how_replies_are_bounded() -> None:
    words = in_words(parse_study(BOUNDED))
    assert "an update longer than 0.5 is scaled back to that" in words
    assert "the lowest and the highest 34% of each value left out" in words


def test_a_deadline_grows_by_what_the_generator_takes_over_the_slowest_link_there_and_back() -> None:
    table = FederationTable(deadline_s=100, slowest_link_mbit=8)
    assert table.deadline_with(1_000_000) == pytest.approx(108.0)  # 4 MB at 1 MB/s, twice
    half = FederationTable(deadline_s=100, slowest_link_mbit=8, transport="float16")
    assert half.deadline_with(1_000_000) == pytest.approx(104.0)
    assert table.deadline_with(0) == 100


# A run


@pytest.fixture
def cohorts(tmp_path: Path) -> dict[str, Path]:
    return cohorts_of(tmp_path, SITES)


def test_a_run_tells_of_every_site_how_far_it_went_and_whom_it_scaled_back(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    free = linear_simulation(tmp_path / "free", cohorts, text=study_text(rounds=1))
    norms = free.rounds[0].update_norms
    assert norms.keys() == set(SITES)
    start = linear_generator(parse_study(study_text()))
    bound = sorted(norms.values())[1]  # of the middle one: the longest is scaled back
    text = study_text(rounds=1, federation=f"norm_bound = {bound}\nserver_momentum = 0.5")
    linear_simulation(tmp_path / "bounded", cohorts, text=text)
    checkpoint = latest_checkpoint(tmp_path / "bounded" / "checkpoints")
    assert checkpoint is not None
    (record,) = checkpoint.history
    assert record.update_norms == norms
    assert record.scaled_back == (max(norms, key=lambda site: norms[site]),)
    assert distance(start, checkpoint.aggregate) <= bound * (1 + 1e-6)
    (done,) = [e.facts for e in read_journal(tmp_path / "bounded" / "journal.jsonl") if e.event == "round-done"]
    assert done["update_norms"] == norms
    assert done["cosines"] == record.cosines
    assert done["scaled_back"] == list(record.scaled_back)
    (told,) = json.loads((tmp_path / "bounded" / "summary.json").read_text())["rounds"]
    assert (told["update_norms"], told["scaled_back"]) == (norms, list(record.scaled_back))
    curves = read_curves(tmp_path / "bounded" / "tensorboard")
    assert curves["update norm/site-a"] == {1: pytest.approx(norms["site-a"])}
    assert curves["cosine to mean/site-b"] == {1: pytest.approx(record.cosines["site-b"])}


def test_a_run_tells_how_many_rounds_a_site_has_missed(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    (cohorts["site-b"] / "behaviour.json").write_text(json.dumps({"crash": [2, 3]}))
    result = linear_simulation(tmp_path / "out", cohorts, text=study_text(rounds=4))
    assert [record.missed for record in result.rounds] == [{}, {"site-b": 1}, {"site-b": 2}, {}]


def test_the_middle_of_three_sites_is_what_a_trimmed_mean_of_a_third_takes(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    text = study_text(rounds=1, quorum=3, federation="trimmed_mean = 0.34")
    result = linear_simulation(tmp_path / "out", cohorts, text=text)
    state = 0.7 * 0.1 + sum(b"site-b") / 1000  # the linear sites' states rise with their names
    start = linear_generator(parse_study(text))
    checkpoint = latest_checkpoint(tmp_path / "out" / "checkpoints")
    assert checkpoint is not None
    np.testing.assert_allclose(checkpoint.aggregate["up.weight"], 0.5 * start["up.weight"] + state, rtol=1e-5)
    assert result.rounds[0].trimmed == 1
