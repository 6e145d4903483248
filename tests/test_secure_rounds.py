"""Rounds of secure aggregation in one process: the plain mean, who drops out when, and what a restart goes on with."""

from __future__ import annotations

import json
import re
import stat
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from linear_run import linear_simulation
from linear_site import order, study_text
from promised import promised_text, write_start
from secure_run import STEP, BentSites, cohorts_in, prepared_run, run_bent, secure_text
from tiny_cohorts import tiny_text, write_tiny_cohort
from trained_run import trained_run

from fedphantom.client.local_training import LocalTrainer
from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.errors import ConfigError, PeerError
from fedphantom.common.exchange import Parameters
from fedphantom.common.gan.public_start import first_parameters
from fedphantom.common.gan.weights import load_weights
from fedphantom.common.journal import read_journal
from fedphantom.common.masking.messages import (
    InputGiven,
    InputWanted,
    KeysWanted,
    SharesGiven,
    SharesWanted,
    SumGiven,
    SumWanted,
    Wanted,
)
from fedphantom.common.masking.terms import SecureAggregationTable
from fedphantom.common.site_folder import MASKED_LEFT, REPLY_LEFT, SiteFolder
from fedphantom.common.study import parse_study
from fedphantom.privacy.study_summary import study_text as in_words
from fedphantom.server.secure_exchange import Answer
from fedphantom.server.simulation import simulate

TEMPLATES = Path(__file__).parent.parent / "server" / "study_templates"
FOUR = tuple(f"site-{letter}" for letter in "abcd")

pytestmark = pytest.mark.usefixtures("unflushed")


def far(one: Parameters, other: Parameters) -> float:
    """The largest difference of two generators' values."""
    return max(float(np.abs(one[name].astype(np.float64) - other[name].astype(np.float64)).max()) for name in one)


FLOAT32 = 2e-7  # two float32 roundings of values below 2


def dropping(site: str, kind: type, round_: int) -> type[BentSites]:
    """A site whose answers of one kind are lost in one round."""

    class Dropping(BentSites):
        def answered(self, name: str, wanted: Wanted, answer: Answer) -> Answer | None:
            of_round = getattr(answer, "round", None) == round_
            return None if name == site and isinstance(answer, kind) and of_round else answer

    return Dropping


DECLARED = 'weighting = "declared"\ndeclared_weights = { site-a = 1, site-b = 3, site-c = 4, site-d = 9 }'


@pytest.mark.parametrize("federation", ["", DECLARED, "server_momentum = 0.5"], ids=["alike", "declared", "momentum"])
def test_the_generator_is_that_of_plain_averaging_within_the_fixed_point_step(tmp_path: Path, federation: str) -> None:
    cohorts = cohorts_in(tmp_path)
    plain = linear_simulation(tmp_path / "plain", cohorts, text=study_text(federation=federation))
    secure = linear_simulation(tmp_path / "secure", cohorts, text=secure_text(federation=federation))
    assert [record.sites for record in secure.rounds] == [FOUR] * 3
    assert [record.weights for record in secure.rounds] == [record.weights for record in plain.rounds]
    # Each round errs by half a step at most, and the next one halves what came before; momentum carries it on.
    difference = far(load_weights(secure.generator)[0], load_weights(plain.generator)[0])
    assert difference <= 2 * (STEP + FLOAT32)


def test_the_summary_says_what_the_threshold_protects_from(tmp_path: Path) -> None:
    linear_simulation(tmp_path / "out", cohorts_in(tmp_path), text=secure_text(rounds=1))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["secure_aggregation"] == {"threshold": 3, "helpers_borne": 1, "smallest_group": 3}


def test_one_round_errs_by_half_a_step_and_no_more(tmp_path: Path) -> None:
    cohorts = cohorts_in(tmp_path)
    plain = linear_simulation(tmp_path / "plain", cohorts, text=study_text(rounds=1))
    secure = linear_simulation(tmp_path / "secure", cohorts, text=secure_text(rounds=1))
    assert far(load_weights(secure.generator)[0], load_weights(plain.generator)[0]) <= STEP / 2 + FLOAT32


def test_a_site_that_drops_after_the_key_exchange_is_left_out_of_the_mean(tmp_path: Path) -> None:
    cohorts = cohorts_in(tmp_path)
    order(cohorts["site-b"], fail=[2])
    plain = linear_simulation(tmp_path / "plain", cohorts, text=study_text())
    secure = linear_simulation(tmp_path / "secure", cohorts, text=secure_text())
    without = tuple(site for site in FOUR if site != "site-b")
    assert [record.sites for record in secure.rounds] == [FOUR, without, FOUR]
    assert secure.rounds[1].left_out == {"site-b": "the site's cohort needs mending"}
    assert far(load_weights(secure.generator)[0], load_weights(plain.generator)[0]) <= STEP + FLOAT32


def test_a_site_that_drops_after_its_masked_input_stays_in_the_mean(tmp_path: Path) -> None:
    cohorts = cohorts_in(tmp_path)
    plain = linear_simulation(tmp_path / "plain", cohorts, text=study_text())
    secure, _ = run_bent(tmp_path / "secure", cohorts, secure_text(), dropping("site-b", SumGiven, 2))
    assert [record.sites for record in secure.history] == [FOUR] * 3
    assert far(secure.average, load_weights(plain.generator)[0]) <= STEP + FLOAT32


def test_one_drops_before_and_one_after_its_input_in_the_same_round(tmp_path: Path) -> None:
    cohorts = cohorts_in(tmp_path, "abcde")
    order(cohorts["site-b"], crash=[2])
    plain = linear_simulation(tmp_path / "plain", cohorts, text=study_text())
    secure, _ = run_bent(tmp_path / "secure", cohorts, secure_text(), dropping("site-d", SumGiven, 2))
    assert [len(record.sites) for record in secure.history] == [5, 4, 5]
    assert far(secure.average, load_weights(plain.generator)[0]) <= STEP + FLOAT32


def test_a_site_that_gives_keys_and_no_shares_is_left_out_and_comes_back(tmp_path: Path) -> None:
    secure, _ = run_bent(tmp_path / "secure", cohorts_in(tmp_path), secure_text(), dropping("site-c", SharesGiven, 1))
    assert [len(record.sites) for record in secure.history] == [3, 4, 4]
    assert secure.history[0].left_out == {"site-c": "no reply"}


def test_where_nobody_drops_out_a_round_takes_two_exchanges_and_keys_are_asked_for_once(tmp_path: Path) -> None:
    asked: list[type[Wanted]] = []

    class Counting(BentSites):
        def each(self, wanted):  # type: ignore[no-untyped-def]  # as the base
            asked.append(type(next(iter(wanted.values()))))
            return super().each(wanted)

    run_bent(tmp_path / "out", cohorts_in(tmp_path), secure_text(), Counting)
    assert asked == [KeysWanted, SharesWanted, *[InputWanted, SumWanted] * 3]


def test_below_the_threshold_the_round_fails_and_the_next_call_goes_on(tmp_path: Path) -> None:
    cohorts = cohorts_in(tmp_path)
    plain = linear_simulation(tmp_path / "plain", cohorts, text=study_text())
    for site in ("site-b", "site-c"):
        order(cohorts[site], fail=[2])
    with pytest.raises(PeerError, match=r"round 2 has 2 of 4 sites.*site-b: the site's cohort") as failed:
        linear_simulation(tmp_path / "secure", cohorts, text=secure_text())
    assert failed.value.expected == "at least 3, the study's threshold and quorum"
    for site in ("site-b", "site-c"):
        order(cohorts[site])
    secure = linear_simulation(tmp_path / "secure", cohorts, text=secure_text())
    assert [record.sites for record in secure.rounds] == [FOUR] * 3
    assert far(load_weights(secure.generator)[0], load_weights(plain.generator)[0]) <= STEP + FLOAT32


def test_a_sum_that_too_few_could_open_is_opened_by_the_next_call(tmp_path: Path) -> None:
    """The coordinator is cut off after the inputs came; sites open no other sum of that round, so it keeps this one."""
    cohorts = cohorts_in(tmp_path)

    class Deaf(BentSites):
        def answered(self, name: str, wanted: Wanted, answer: Answer) -> Answer | None:
            lost = isinstance(answer, SumGiven) and answer.round == 2 and name != "site-a"
            return None if lost else answer

    class Trained(BentSites):
        def answered(self, name: str, wanted: Wanted, answer: Answer) -> Answer | None:
            inputs.extend([answer.round] if isinstance(answer, InputGiven) else [])
            return answer

    inputs: list[int] = []
    with pytest.raises(PeerError, match="round 2 can be opened by 1 site alone"):
        run_bent(tmp_path / "out", cohorts, secure_text(), Deaf)
    checkpoint, _ = run_bent(tmp_path / "out", cohorts, secure_text(), Trained)
    assert inputs == [3] * 4
    plain = linear_simulation(tmp_path / "plain", cohorts, text=study_text())
    assert far(checkpoint.average, load_weights(plain.generator)[0]) <= STEP + FLOAT32


def test_a_damaged_sum_is_gathered_again_if_nobody_opened_it(tmp_path: Path) -> None:
    cohorts = cohorts_in(tmp_path)

    class Unopened(BentSites):
        def _ask(self, site: str, wanted: Wanted) -> Answer:
            if isinstance(wanted, SumWanted) and wanted.round == 2:
                raise KeyboardInterrupt
            return super()._ask(site, wanted)

    with pytest.raises(KeyboardInterrupt):
        run_bent(tmp_path / "out", cohorts, secure_text(), Unopened)
    (tmp_path / "out" / "secure" / "sum.u32").write_bytes(b"cut off")
    checkpoint, _ = run_bent(tmp_path / "out", cohorts, secure_text())
    assert [len(record.sites) for record in checkpoint.history] == [4] * 3


def test_two_runs_of_the_same_differ_in_every_masked_byte_string_and_agree_in_the_sum(tmp_path: Path) -> None:
    cohorts = cohorts_in(tmp_path)
    (one, heard), (two, again) = (run_bent(tmp_path / name, cohorts, secure_text(rounds=1)) for name in ("one", "two"))
    masked = [{a.site: a.masked for a in exchange.heard if isinstance(a, InputGiven)} for exchange in (heard, again)]
    for site in FOUR:
        assert (masked[0][site] != masked[1][site]).mean() > 0.9
    assert far(one.aggregate, two.aggregate) == 0


def test_no_figure_of_one_sites_fakes_leaves_it(tmp_path: Path) -> None:
    checkpoint, exchange = run_bent(tmp_path / "out", cohorts_in(tmp_path), secure_text())
    assert all(not a.metrics for a in exchange.heard if isinstance(a, InputGiven))
    assert all(record.metrics == {} for record in checkpoint.history)


def test_the_site_keeps_no_round_that_nobody_saw_and_journals_what_left(tmp_path: Path) -> None:
    run_bent(tmp_path / "out", cohorts_in(tmp_path), secure_text())
    site = tmp_path / "out" / "sites" / "site-a"
    assert not (site / "rounds").exists()
    entries = read_journal(site / "journal.jsonl")
    assert REPLY_LEFT not in {entry.event for entry in entries}
    left = [(entry.facts["what"], entry.facts["round"]) for entry in entries if entry.event == MASKED_LEFT]
    in_a_round = [("input", 1), ("shares", 2), ("sum", 1), ("input", 2), ("shares", 3), ("sum", 2)]
    assert left == [("keys", 1), ("shares", 1), *in_a_round, ("input", 3), ("sum", 3)]


def test_secrets_are_the_owners_alone_and_gone_once_the_sum_is_opened(tmp_path: Path) -> None:
    run_bent(tmp_path / "out", cohorts_in(tmp_path), secure_text())
    folder = tmp_path / "out" / "sites" / "site-a" / "masking"
    assert {path.name for path in folder.iterdir()} == {".lock", "opened.json"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "opened.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "out/sites/site-a/keys/identity/key.pem").stat().st_mode) == 0o600


# The study


UNFIT: dict[str, tuple[str, str]] = {
    "two sites are enough": ("secure_aggregation = { threshold = 2, clip = 1.0 }", "threshold"),
    "no clip": ("secure_aggregation = { threshold = 3 }", "clip"),
    "a clip of nothing": ("secure_aggregation = { threshold = 3, clip = 0 }", "clip"),
    "bits that no number has": ("secure_aggregation = { threshold = 3, clip = 1.0, bits = 40 }", "bits"),
    "an ensemble": ('secure_aggregation = { threshold = 3, clip = 1.0 }\nsharing = "ensemble"', "is for an average"),
    "a norm bound": ("secure_aggregation = { threshold = 3, clip = 1.0 }\nnorm_bound = 1.0", "judge them one by one"),
    "a trimmed mean": (
        "secure_aggregation = { threshold = 3, clip = 1.0 }\ntrimmed_mean = 0.4",
        "judge them one by one",
    ),
    "half precision": (
        'secure_aggregation = { threshold = 3, clip = 1.0 }\ntransport = "float16"',
        "whole numbers of 32 bits",
    ),
    "weights in parts": (
        "secure_aggregation = { threshold = 3, clip = 1.0 }\n"
        'weighting = "declared"\ndeclared_weights = { a = 1.5, b = 1, c = 1 }',
        "whole numbers",
    ),
}


@pytest.mark.parametrize(("federation", "named"), UNFIT.values(), ids=UNFIT.keys())
def test_a_study_whose_sums_would_hide_nothing_is_refused(federation: str, named: str) -> None:
    rounds = 1 if "ensemble" in federation else 3
    with pytest.raises(ConfigError, match=named):
        parse_study(study_text(rounds=rounds, quorum=3, federation=federation))


@pytest.mark.parametrize(
    ("sites", "threshold", "federation", "named"),
    [
        ("ab", 3, "", "2 sites: of two, each would learn"),
        ("abc", 4, "", "a threshold of 4 among 3"),
        ("abcdef", 3, "", "two groups of 3"),
        ("abcd", 3, DECLARED.replace("9", "900"), "24 bits leave room for less than 128"),
    ],
)
def test_a_run_over_sites_that_cannot_be_summed_is_refused_before_anything_is_made(
    tmp_path: Path, sites: str, threshold: int, federation: str, named: str
) -> None:
    text = secure_text(threshold, federation=federation)
    with pytest.raises(ConfigError, match=named):
        linear_simulation(tmp_path / "out", cohorts_in(tmp_path, sites), text=text)
    assert not (tmp_path / "out").exists()


def test_a_study_without_it_has_the_digest_it_always_had() -> None:
    assert "secure_aggregation" not in parse_study(study_text()).model_dump(mode="json")["federation"]
    assert parse_study(secure_text()).digest() != parse_study(study_text()).digest()


def test_another_study_in_the_same_folder_is_told_by_the_key_that_differs(tmp_path: Path) -> None:
    cohorts = cohorts_in(tmp_path)
    prepared_run(tmp_path / "out", cohorts, secure_text())
    with pytest.raises(ConfigError, match=r"differs in federation\.secure_aggregation"):
        prepared_run(tmp_path / "out", cohorts, study_text())


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_template_shows_the_table_that_asks_for_it(template: Path) -> None:
    text = template.read_text(encoding="utf-8")
    terms = parse_study(re.sub(r"^# (?=\[federation\.secure|threshold|clip|bits)", "", text, flags=re.M))
    assert terms.federation.secure_aggregation == SecureAggregationTable(threshold=3, clip=20.0, bits=20)
    assert parse_study(text).federation.secure_aggregation is None


def test_the_study_in_words_says_what_the_coordinator_sees() -> None:
    told = in_words(parse_study(secure_text(4)))
    assert "its update of the generator, scaled back to a norm of 20 and hidden under masks" in told
    assert "the sum over 4 or more sites" in told
    assert "figures on synthetic scans" not in told
    assert "secure aggregation" not in in_words(parse_study(study_text()))


# Real training


@pytest.mark.slow
def test_real_training_gives_the_plain_generator_within_half_a_step(tmp_path: Path) -> None:
    cohorts = {f"site-{name}": write_tiny_cohort(tmp_path / name, 6, seed) for seed, name in enumerate("abc")}
    terms = "[federation]\nsecure_aggregation = { threshold = 3, clip = 20.0, bits = 24 }\n"
    generators = []
    for name, text in (("plain", tiny_text(rounds=1)), ("secure", tiny_text(rounds=1) + terms)):
        result = trained_run(text, cohorts, tmp_path / name)
        generators.append(load_weights(result.generator)[0])
    assert result.rounds[0].metrics == {"steps": 4.0}
    clipped = [
        entry.facts["clipped"]
        for entry in read_journal(tmp_path / "secure/sites/site-a/journal.jsonl")
        if entry.facts.get("what") == "input"
    ]
    assert clipped == [False]
    assert far(*generators) <= STEP / 2 + FLOAT32


@pytest.mark.slow
def test_under_a_promise_each_site_says_what_it_spent_and_nothing_else(tmp_path: Path) -> None:
    cohorts = {f"site-{name}": write_tiny_cohort(tmp_path / name, 12, seed) for seed, name in enumerate("abc")}
    sha256 = write_start(tmp_path / "start.safetensors")
    text = promised_text(sha256, rounds=1) + "[federation]\nsecure_aggregation = { threshold = 3, clip = 20.0 }\n"
    result = simulate(
        text,
        cohorts,
        tmp_path / "out",
        engine="local",
        prepare_site=partial(create_site_folder, start=tmp_path / "start.safetensors"),
        open_site=lambda root: Site(SiteFolder.open(root), LocalTrainer.open),
        initial=lambda study: first_parameters(study, tmp_path / "start.safetensors"),
        progress=lambda record: None,
    )
    (record,) = result.rounds
    assert record.epsilon.keys() == record.noised_steps.keys() == {"site-a", "site-b", "site-c"}
    assert record.metrics.keys() == {"steps"}
