"""What may leave a site: the reply's allow-list, the request's checks, and what a failure tells."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from linear_site import UNSAYABLE, LinearTrainer, linear_generator, order, study_text

from fedphantom.client.conditions import Conditions
from fedphantom.client.egress import EgressRule, check_reply
from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder, read_egress_rule
from fedphantom.common.errors import (
    BudgetSpent,
    ConfigError,
    DataError,
    FedPhantomError,
    PolicyRefused,
    RoundOver,
    TrainingError,
)
from fedphantom.common.exchange import RoundReply, RoundRequest
from fedphantom.common.gan.parameters import ParameterSpec, parameters_digest
from fedphantom.common.journal import read_journal
from fedphantom.common.sayable import sayable_reason
from fedphantom.common.site_folder import SiteFolder
from fedphantom.common.study import parse_study

STUDY = parse_study(study_text())
GENERATOR = linear_generator(STUDY)
RULE = EgressRule(ParameterSpec.of(GENERATOR))
REQUEST = RoundRequest(STUDY.digest(), 2, GENERATOR)
GOOD = RoundReply("site-a", 2, GENERATOR, 1.0, {"fake_mean": 0.25})


def test_an_allowed_reply_passes_and_what_leaves_is_named() -> None:
    leaving = check_reply(GOOD, RULE, site="site-a", request=REQUEST)
    assert leaving["sha256"] == parameters_digest(GENERATOR)
    assert leaving["bytes"] == 4 * (12 + 30 + 1) + 8 * 2
    assert leaving["metrics"] == {"fake_mean": 0.25}
    json.dumps(leaving, allow_nan=False)


FORBIDDEN = {
    "a parameter more": replace(GOOD, generator={**GENERATOR, "discriminator.weight": np.zeros(4, np.float32)}),
    "a parameter less": replace(GOOD, generator={k: v for k, v in GENERATOR.items() if k != "head.bias"}),
    "a renamed parameter": replace(
        GOOD, generator={("tail.bias" if k == "head.bias" else k): v for k, v in GENERATOR.items()}
    ),
    "a larger parameter": replace(GOOD, generator={**GENERATOR, "head.bias": np.zeros(2, np.float32)}),
    "a wider type": replace(GOOD, generator={**GENERATOR, "head.bias": np.zeros(1, np.float64)}),
    "an integer type": replace(GOOD, generator={**GENERATOR, "head.bias": np.zeros(1, np.int32)}),
    "no array": replace(GOOD, generator={**GENERATOR, "head.bias": [0.0]}),  # type: ignore[dict-item]  # on purpose
    "a NaN to hide bits in": replace(GOOD, generator={**GENERATOR, "head.bias": np.full(1, np.nan, np.float32)}),
    "a loss on real data": replace(GOOD, metrics={"l1_real": 0.1}),
    "a metric that is no number": replace(GOOD, metrics={"fake_mean": "sub-01"}),  # type: ignore[dict-item]  # on purpose
    "a metric that is NaN": replace(GOOD, metrics={"fake_mean": math.nan}),
    "the patient count as weight": replace(GOOD, weight=37.0),
    "another site's name": replace(GOOD, site="site-b"),
    "another round": replace(GOOD, round=3),
}


@pytest.mark.parametrize("reply", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_nothing_else_leaves(reply: RoundReply) -> None:
    with pytest.raises(PolicyRefused, match="egress filter"):
        check_reply(reply, RULE, site="site-a", request=REQUEST)


def test_the_refusal_repeats_no_foreign_name() -> None:
    reply = replace(GOOD, metrics={"sub-0042": 1.0}, generator={**GENERATOR, "sub-0043": np.zeros(1, np.float32)})
    with pytest.raises(PolicyRefused) as refused:
        check_reply(reply, RULE, site="site-a", request=REQUEST)
    assert "sub-00" not in str(refused.value)


def test_the_rule_reads_as_it_was_written() -> None:
    assert EgressRule.from_json(RULE.to_json()) == RULE
    assert json.loads(RULE.to_json())["generator"]["up.weight"] == [3, 4]


@pytest.mark.parametrize("text", ["", "{}", "[]", RULE.to_json().replace('"max_bytes": ', '"max_bytes": 9')])
def test_a_rule_that_does_not_fit_together_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"egress\.json"):
        EgressRule.from_json(text)


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    (tmp_path / "cohort").mkdir()
    return create_site_folder(
        tmp_path / "site-a", "site-a", tmp_path / "cohort", study_text(), ParameterSpec.of(GENERATOR)
    )


def test_a_site_folder_opens_as_it_was_made_and_making_it_again_changes_nothing(folder: SiteFolder) -> None:
    assert SiteFolder.open(folder.root) == folder
    assert folder.study() == STUDY
    assert read_egress_rule(folder) == RULE
    again = create_site_folder(folder.root, "site-a", folder.cohort, study_text(), ParameterSpec.of(GENERATOR))
    assert again == folder


@pytest.mark.parametrize("changed", ["name", "cohort", "study"])
def test_a_site_folder_is_not_taken_over(folder: SiteFolder, tmp_path: Path, changed: str) -> None:
    name = "site-b" if changed == "name" else "site-a"
    cohort = tmp_path / "other" if changed == "cohort" else folder.cohort
    text = study_text(seed=8) if changed == "study" else study_text()
    with pytest.raises(ConfigError, match="belongs to another"):
        create_site_folder(folder.root, name, cohort, text, ParameterSpec.of(GENERATOR))


@pytest.mark.parametrize("name", ["", "../up", "a b", "-a", "x" * 33, "a/b", "sité"])
def test_a_site_name_that_could_not_name_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="site name"):
        create_site_folder(tmp_path / "s", name, tmp_path, study_text(), ParameterSpec.of(GENERATOR))


def test_a_cohort_path_with_quotes_and_umlauts_survives(tmp_path: Path) -> None:
    cohort = tmp_path / 'Köln "A" \\ b'
    cohort.mkdir()
    root = tmp_path / "s"
    create_site_folder(root, "site-a", cohort, study_text(), ParameterSpec.of(GENERATOR))
    assert SiteFolder.open(root).cohort == cohort


def test_what_left_is_in_the_journal(folder: SiteFolder) -> None:
    reply = Site(folder, LinearTrainer.open).train_round(replace(REQUEST, round=1))
    (entry,) = read_journal(folder.journal)
    assert entry.event == "reply-left"
    assert entry.facts["sha256"] == parameters_digest(reply.generator)


def test_a_reply_that_is_stopped_does_not_leave(folder: SiteFolder) -> None:
    class Greedy(LinearTrainer):
        def train_round(self, request: RoundRequest) -> RoundReply:
            return replace(super().train_round(request), weight=37.0)

    with pytest.raises(PolicyRefused):
        Site(folder, lambda root: Greedy(SiteFolder.open(root))).train_round(replace(REQUEST, round=1))
    assert [entry.event for entry in read_journal(folder.journal)] == ["round-failed"]


def test_two_rounds_at_once_are_not_both_trained(folder: SiteFolder) -> None:
    class Asked(LinearTrainer):
        def train_round(self, request: RoundRequest) -> RoundReply:
            with pytest.raises(ConfigError, match="another process"):
                Site(folder, LinearTrainer.open).train_round(request)
            return super().train_round(request)

    Site(folder, lambda root: Asked(folder)).train_round(replace(REQUEST, round=1))
    assert [entry.event for entry in read_journal(folder.journal)] == ["round-failed", "reply-left"]


def test_a_site_that_withdrew_while_it_trained_sends_nothing(folder: SiteFolder) -> None:
    asked: list[str] = []

    def permit(own: SiteFolder) -> Conditions:
        asked.append(own.name)
        if len(asked) > 1:
            raise PolicyRefused("this site has withdrawn", expected="one that takes part", remedy="None.")
        return Conditions.of_simulation(own)

    with pytest.raises(PolicyRefused, match="has withdrawn"):
        Site(folder, LinearTrainer.open, permit).train_round(replace(REQUEST, round=1))
    assert [entry.event for entry in read_journal(folder.journal)] == ["round-failed"]


UNWANTED = {
    "another study": replace(REQUEST, study_digest="0" * 64),
    "a round beyond the study": replace(REQUEST, round=4),
    "round zero": replace(REQUEST, round=0),
    "other parameters": replace(REQUEST, generator={"w": np.zeros(2, np.float32)}),
    "NaN": replace(REQUEST, generator={**GENERATOR, "head.bias": np.full(1, np.nan, np.float32)}),
}


@pytest.mark.parametrize("request_", UNWANTED.values(), ids=UNWANTED.keys())
def test_an_unwanted_request_is_refused_before_training(folder: SiteFolder, request_: RoundRequest) -> None:
    with pytest.raises(PolicyRefused, match="refused"):
        Site(folder, LinearTrainer.open).train_round(request_)
    assert not folder.state.exists()


@pytest.mark.parametrize("kind", ["fail", "crash"])
def test_a_failure_stays_at_the_site_in_full_and_leaves_as_a_fixed_sentence(folder: SiteFolder, kind: str) -> None:
    order(folder.cohort, **{kind: [1]})
    with pytest.raises((DataError, RuntimeError)) as failed:
        Site(folder, LinearTrainer.open).train_round(replace(REQUEST, round=1))
    assert UNSAYABLE in folder.errors.read_text()
    assert UNSAYABLE not in folder.journal.read_text()
    assert UNSAYABLE not in sayable_reason(failed.value)


@pytest.mark.parametrize("kind", [TrainingError, DataError, ConfigError, PolicyRefused, BudgetSpent, RoundOver])
def test_the_sentence_for_a_failure_never_holds_its_text(kind: type[FedPhantomError]) -> None:
    reason = sayable_reason(kind(UNSAYABLE, expected=UNSAYABLE, remedy=UNSAYABLE))
    assert UNSAYABLE not in reason
    assert reason != sayable_reason(KeyError(UNSAYABLE))
