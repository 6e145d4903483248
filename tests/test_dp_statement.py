"""The statement of a promise: whole or refused, and never other than the study's."""

from __future__ import annotations

import json

import pytest
from promised import DELTA, EPSILON, promised_text
from tiny_cohorts import tiny_study

from fedphantom.common.errors import DataError
from fedphantom.common.gan.weights import generator_metadata
from fedphantom.common.study import Study, parse_study
from fedphantom.privacy.dp.statement import NONE, DpStatement, Spent, asked_for, dp_statement, read_dp, said

START = "a" * 64
STUDY: Study = parse_study(promised_text(START))
SPENT = {"a": Spent(5.0, 1), "b": Spent(8.0, 2)}


def statement(**changes: object) -> str:
    made = dp_statement(STUDY, {"site-a": Spent(5.0, 1), "site-b": Spent(8.0, 2)})
    assert made is not None
    return json.dumps({**made.model_dump(), **changes})


def test_a_study_without_a_promise_says_none_as_plainly() -> None:
    assert dp_statement(tiny_study(), {}) is None
    assert read_dp(NONE, tiny_study()) is None
    assert said(NONE) == "none"
    assert generator_metadata(tiny_study(), 1)["dp"] == "none"


def test_disjoint_sites_cost_what_the_dearest_costs_and_overlapping_ones_their_sum() -> None:
    overlapping = parse_study(promised_text(START, promise="sites_overlap = true"))
    one, both = dp_statement(STUDY, SPENT), dp_statement(overlapping, SPENT)
    assert one is not None and both is not None  # noqa: PT018  # for the type checker
    assert (one.epsilon, one.across_sites) == (8.0, "largest")
    assert (both.epsilon, both.across_sites) == (13.0, "sum")


def test_what_is_read_again_is_what_was_written() -> None:
    read = read_dp(statement(), STUDY)
    assert read == dp_statement(STUDY, {"site-a": Spent(5.0, 1), "site-b": Spent(8.0, 2)})
    assert DpStatement.model_validate_json(read.encode()) == read  # type: ignore[union-attr]  # it is one


def test_its_sentence_holds_every_field_that_an_epsilon_means_nothing_without() -> None:
    promised = asked_for(STUDY)
    assert promised is not None
    text = promised.sentence()
    for part in (
        f"ε = {EPSILON:g} at",
        f"δ = {DELTA:g}",
        "unit: patient",
        "add/remove",
        "Poisson, q = 1",
        "σ = ",
        "pld",
    ):
        assert part in text
    assert "2 noised steps of the mean intensities" in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ε = 3",
        "{}",
        statement(epsilon=-1.0),
        statement(unit="scan"),
        statement(accountant="gdp"),
        statement(sampling="shuffled"),
        statement(more=1),
        json.dumps({k: v for k, v in json.loads(statement()).items() if k != "delta"}),
    ],
)
def test_anything_but_a_whole_statement_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="neither 'none' nor a whole statement"):
        read_dp(text, STUDY)


@pytest.mark.parametrize(
    "changes",
    [
        {"delta": 0.001},
        {"epsilon": 0.01},
        {"epsilon": 4.9, "steps": 1},
        {"noise_multiplier": 1e9},
        {"noised": "all"},
        {"steps": 3},
        {"epsilon": 8.5},
        {"clip_norm": 2.0},
        {"sampling_rate": 0.5},
        {"across_sites": "sum"},
    ],
)
def test_a_statement_that_is_not_the_studys_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(DataError, match="not the one of the study"):
        read_dp(statement(**changes), STUDY)


def test_a_promise_where_the_study_makes_none_is_refused_and_the_other_way_round() -> None:
    for text, study in ((statement(), tiny_study()), (NONE, STUDY)):
        with pytest.raises(DataError, match="contradicts the study"):
            read_dp(text, study)
    with pytest.raises(ValueError, match="promises nothing else"):
        generator_metadata(STUDY, 1)
    with pytest.raises(ValueError, match="promises nothing else"):
        generator_metadata(tiny_study(), 1, statement())


def test_a_sigma_that_another_machine_found_to_other_last_digits_is_the_studys() -> None:
    sigma = json.loads(statement())["noise_multiplier"]
    assert read_dp(statement(noise_multiplier=sigma * 1.001), STUDY) is not None
    with pytest.raises(DataError, match="not the one of the study"):
        read_dp(statement(noise_multiplier=sigma * 1.01), STUDY)
