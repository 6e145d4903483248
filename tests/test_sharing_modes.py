"""What sites share: one average by declared weights, with momentum and a proximal term; an ensemble; volumes alone."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from linear_run import contents, linear_simulation
from linear_site import LinearTrainer, cohorts_of, linear_generator, study_text

from fedphantom.client.egress import EgressRule
from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.errors import ConfigError, PeerError, PolicyRefused
from fedphantom.common.exchange import Parameters, RoundReply, RoundRequest
from fedphantom.common.gan.parameters import ParameterSpec, parameters_digest
from fedphantom.common.gan.weights import load_weights, study_of
from fedphantom.common.journal import read_journal
from fedphantom.common.site_folder import SiteFolder
from fedphantom.common.study import FederationTable, parse_study
from fedphantom.common.study_template import to_toml
from fedphantom.common.tensor_file import decode
from fedphantom.privacy.study_summary import study_text as in_words
from fedphantom.server.aggregation import receive_replies
from fedphantom.server.checkpoints import latest_checkpoint
from fedphantom.server.reply_spool import ReplySpool
from fedphantom.server.simulation import Engine

SITES = ("site-a", "site-b", "site-c")
ENSEMBLE = study_text(rounds=1, federation='sharing = "ensemble"')
VOLUMES = study_text(rounds=1, federation='sharing = "volumes"')
DECLARED = study_text(
    federation='weighting = "declared"\ndeclared_weights = { site-a = 1, site-b = 3, site-c = 4, site-d = 9 }'
)
WEIGHTED_MOMENTUM = study_text(
    rounds=2,
    federation='server_momentum = 0.5\nweighting = "declared"\n'
    "declared_weights = { site-a = 1, site-b = 3, site-c = 4 }",
)
"""Two rounds: the second goes on from the first's velocity."""
MOMENTUM = study_text(rounds=4, quorum=3, federation="server_momentum = 0.5")


@pytest.fixture
def cohorts(tmp_path: Path) -> dict[str, Path]:
    return cohorts_of(tmp_path, SITES)


def weights_of(path: Path) -> np.ndarray:
    return load_weights(path)[0]["up.weight"].astype(np.float64)


def linear_states(rounds: int) -> list[dict[str, float]]:
    """What the linear sites' private states are after each round; see the fake."""
    states, after = dict.fromkeys(SITES, 0.1), []
    for _ in range(rounds):
        states = {site: 0.7 * state + sum(site.encode()) / 1000 for site, state in states.items()}
        after.append(states)
    return after


# The study


UNFIT = {
    "weights without the word": ("declared_weights = { site-a = 2 }", "need each other"),
    "the word without weights": ('weighting = "declared"', "need each other"),
    "a weight of nothing": ('weighting = "declared"\ndeclared_weights = { site-a = 0 }', "declared_weights"),
    "a weight for no site's name": ('weighting = "declared"\ndeclared_weights = { "../a" = 1 }', "declared_weights"),
    "momentum of one": ("server_momentum = 1.0", "server_momentum"),
    "a negative pull": ("proximal_weight = -0.1", "proximal_weight"),
    "volumes over many rounds": ('sharing = "volumes"', "training.rounds"),
    "volumes by declared weights": (
        'sharing = "volumes"\nweighting = "declared"\ndeclared_weights = { a = 2 }',
        "for an average",
    ),
    "nothing shared": ('sharing = "nothing"', "federation.sharing"),
    "an ensemble of many rounds": ('sharing = "ensemble"', "training.rounds"),
    "an ensemble with momentum": ('sharing = "ensemble"\nserver_momentum = 0.5', "for an average"),
    "an ensemble held to a round": ('sharing = "ensemble"\nproximal_weight = 0.5', "for an average"),
}


@pytest.mark.parametrize(("lines", "says"), UNFIT.values(), ids=UNFIT.keys())
def test_a_study_whose_sharing_does_not_fit_together_is_refused(lines: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_study(study_text(federation=lines))


def test_a_network_that_paints_nothing_has_no_volumes_to_share() -> None:
    reader = VOLUMES + '[network]\nmaps = "images-to-labels"\n'
    with pytest.raises(ConfigError, match="paints none"):
        parse_study(reader)
    parse_study(reader.replace("volumes", "ensemble"))


@pytest.mark.parametrize(
    "text", [ENSEMBLE, VOLUMES, DECLARED, MOMENTUM, study_text(federation="proximal_weight = 0.01")]
)
def test_what_a_study_says_of_sharing_survives_the_way_through_toml(text: str) -> None:
    study = parse_study(text)
    assert parse_study(to_toml(study)) == study


def test_a_study_in_words_says_how_sites_are_averaged() -> None:
    assert "every site's generator alike" in in_words(parse_study(study_text()))
    assert "declared weights: site-a 1, site-b 3" in in_words(parse_study(DECLARED))
    assert "server momentum 0.5" in in_words(parse_study(MOMENTUM))
    assert "FedProx, 0.01" in in_words(parse_study(study_text(federation="proximal_weight = 0.01")))
    ensemble = in_words(parse_study(ENSEMBLE))
    assert "nothing: every site's generator stays its own" in ensemble
    assert "once: the weights of the generator it trained alone" in ensemble
    assert "Never: scans" in ensemble
    volumes = in_words(parse_study(VOLUMES))
    assert "nothing: every site trains alone, and its generator stays in its own folder" in volumes
    assert (
        "once: figures on synthetic scans, and no weights at all. Synthetic volumes leave only in a release" in volumes
    )
    assert "Never: weights of any network, scans" in volumes


# Declared weights


def test_sites_are_averaged_by_the_weights_that_the_study_declares(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    result = linear_simulation(tmp_path / "out", cohorts, text=DECLARED.replace("rounds = 3", "rounds = 1"))
    start = linear_generator(parse_study(DECLARED))["up.weight"].astype(np.float64)
    state = linear_states(1)[0]
    expected = 0.5 * start + (1 * state["site-a"] + 3 * state["site-b"] + 4 * state["site-c"]) / 8
    np.testing.assert_allclose(weights_of(result.generator), expected, rtol=1e-6)
    assert result.rounds[0].weights == (1.0, 3.0, 4.0)


def test_a_sites_own_filter_lets_the_declared_weight_pass_and_no_other(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    linear_simulation(tmp_path / "out", cohorts, text=DECLARED)
    rules = {s: EgressRule.from_json((tmp_path / "out" / "sites" / s / "egress.json").read_text()) for s in SITES}
    assert {site: rule.weight for site, rule in rules.items()} == {"site-a": 1.0, "site-b": 3.0, "site-c": 4.0}


def test_a_site_without_a_declared_weight_is_refused_before_anything_is_written(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    cohorts["site-e"] = cohorts.pop("site-c")
    with pytest.raises(ConfigError, match="no declared weight for site 'site-e'"):
        linear_simulation(tmp_path / "out", cohorts, text=DECLARED)
    assert not (tmp_path / "out").exists()


# Momentum at the server


def test_momentum_is_what_the_paper_says(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    result = linear_simulation(tmp_path / "out", cohorts, text=MOMENTUM)
    w = linear_generator(parse_study(MOMENTUM))["up.weight"].astype(np.float64)
    velocity, average = np.zeros_like(w), None
    for states in linear_states(4):
        velocity = 0.5 * velocity + (w - np.mean([0.5 * w + state for state in states.values()], axis=0))
        w = w - velocity
        average = w if average is None else 0.5 * average + 0.5 * w
    np.testing.assert_allclose(weights_of(result.generator), average, rtol=1e-5)


def test_a_run_with_momentum_that_was_broken_off_goes_on_to_the_same_bits(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    undisturbed = linear_simulation(tmp_path / "undisturbed", cohorts, text=MOMENTUM)
    (cohorts["site-b"] / "behaviour.json").write_text(json.dumps({"crash": [3]}))
    with pytest.raises(PeerError, match="round 3"):
        linear_simulation(tmp_path / "out", cohorts, text=MOMENTUM)
    stopped = latest_checkpoint(tmp_path / "out" / "checkpoints")
    assert stopped is not None
    assert stopped.velocity is not None
    (cohorts["site-b"] / "behaviour.json").write_text("{}")
    resumed = linear_simulation(tmp_path / "out", cohorts, text=MOMENTUM)
    assert resumed.generator.read_bytes() == undisturbed.generator.read_bytes()


def test_without_momentum_there_is_no_velocity(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    linear_simulation(tmp_path / "out", cohorts)
    checkpoint = latest_checkpoint(tmp_path / "out" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.velocity is None


# An ensemble


def test_an_ensemble_keeps_every_sites_own_generator_and_averages_nothing(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    result = linear_simulation(tmp_path / "out", cohorts, text=ENSEMBLE)
    assert result.generator == tmp_path / "out" / "generators"
    assert not (tmp_path / "out" / "generator.safetensors").exists()
    start = linear_generator(parse_study(ENSEMBLE))["up.weight"].astype(np.float64)
    for site, state in linear_states(1)[0].items():
        file = result.generator / f"{site}.safetensors"
        np.testing.assert_allclose(weights_of(file), 0.5 * start + state, rtol=1e-6)
        parameters, metadata = load_weights(file)
        assert "ema_decay" not in metadata
        left = [
            e.facts for e in read_journal(tmp_path / "out/sites" / site / "journal.jsonl") if e.event == "reply-left"
        ]
        assert [facts["sha256"] for facts in left] == [parameters_digest(parameters)]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["sharing"], summary["generator"]) == ("ensemble", "generators")


def test_an_ensemble_goes_on_without_a_site_that_fails(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    (cohorts["site-b"] / "behaviour.json").write_text(json.dumps({"crash": [1]}))
    result = linear_simulation(tmp_path / "out", cohorts, text=ENSEMBLE)
    assert sorted(path.stem for path in result.generator.iterdir()) == ["site-a", "site-c"]
    assert result.rounds[0].left_out.keys() == {"site-b"}


def test_a_finished_ensemble_called_again_leaves_the_same(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    before = files(linear_simulation(tmp_path / "out", cohorts, text=ENSEMBLE).generator)
    for path in (tmp_path / "out" / "generators").iterdir():
        path.unlink()
    assert files(linear_simulation(tmp_path / "out", cohorts, text=ENSEMBLE).generator) == before


# A site's own generator, in an ensemble and where volumes alone are shared


@pytest.mark.parametrize("text", [ENSEMBLE, VOLUMES], ids=["ensemble", "volumes"])
def test_a_site_that_trains_alone_keeps_its_generator_for_itself_and_its_journal_names_it(
    tmp_path: Path, cohorts: dict[str, Path], text: str
) -> None:
    linear_simulation(tmp_path / "out", cohorts, text=text)
    start = linear_generator(parse_study(text))["up.weight"].astype(np.float64)
    for site, state in linear_states(1)[0].items():
        folder = SiteFolder.open(tmp_path / "out" / "sites" / site)
        np.testing.assert_allclose(weights_of(folder.generator), 0.5 * start + state, rtol=1e-6)
        assert stat.S_IMODE(folder.generator.stat().st_mode) == 0o600
        parameters, metadata = load_weights(folder.generator)
        assert study_of(metadata) == parse_study(text)
        (kept,) = [entry for entry in read_journal(folder.journal) if entry.event == "generator-kept"]
        assert kept.facts == {"round": 1, "generator": parameters_digest(parameters)}


def test_a_site_of_an_average_keeps_none(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    linear_simulation(tmp_path / "out", cohorts)
    assert not list((tmp_path / "out" / "sites").rglob("generator.safetensors"))
    assert "generator-kept" not in (tmp_path / "out" / "sites" / "site-a" / "journal.jsonl").read_text()


def test_an_ensembles_coordinator_has_the_very_files_that_its_sites_keep(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    linear_simulation(tmp_path / "out", cohorts, text=ENSEMBLE)
    for site in SITES:
        copy = tmp_path / "out" / "generators" / f"{site}.safetensors"
        assert copy.read_bytes() == (tmp_path / "out" / "sites" / site / "generator.safetensors").read_bytes()


def test_where_volumes_alone_are_shared_no_array_reaches_the_coordinator(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    out = tmp_path / "out"
    result = linear_simulation(out, cohorts, text=VOLUMES)
    assert result.generator is None
    assert json.loads((out / "summary.json").read_text())["generator"] is None
    assert result.rounds[0].sites == SITES
    assert result.rounds[0].metrics.keys() == {"fake_mean"}
    arrays = {
        path.relative_to(out).as_posix(): list(decode(path.read_bytes(), "file")[0])
        for path in out.rglob("*.safetensors")
        if "sites" not in path.parts
    }
    assert arrays == {"checkpoints/round-00000.safetensors": [], "checkpoints/round-00001.safetensors": []}
    finished = [entry.facts for entry in read_journal(out / "journal.jsonl") if entry.event == "run-finished"]
    assert finished == [{"generators": []}]
    for site in SITES:
        rule = json.loads((out / "sites" / site / "egress.json").read_text())
        assert (rule["generator"], rule["max_bytes"]) == ({}, 8 * 4)
        (left,) = [e.facts for e in read_journal(out / "sites" / site / "journal.jsonl") if e.event == "reply-left"]
        assert (left["parameters"], left["bytes"]) == (0, 8 * 2)


def test_sharing_volumes_trains_what_an_ensemble_trains(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    linear_simulation(tmp_path / "volumes", cohorts, text=VOLUMES)
    linear_simulation(tmp_path / "ensemble", cohorts, text=ENSEMBLE)
    for site in SITES:
        one, other = (
            load_weights(tmp_path / mode / "sites" / site / "generator.safetensors")[0]
            for mode in ("volumes", "ensemble")
        )
        assert parameters_digest(one) == parameters_digest(other)


SENT = linear_generator(parse_study(VOLUMES))


@pytest.mark.parametrize("sent", [SENT, {"head.bias": SENT["head.bias"]}], ids=["a generator", "one array"])
def test_neither_site_nor_coordinator_lets_weights_pass_where_volumes_alone_are_shared(
    tmp_path: Path, cohorts: dict[str, Path], sent: Parameters
) -> None:
    folder = create_site_folder(tmp_path / "site", "site-a", cohorts["site-a"], VOLUMES, ParameterSpec.of(SENT))
    request = RoundRequest(parse_study(VOLUMES).digest(), 1, {})

    class Leaking(LinearTrainer):
        def train_round(self, request: RoundRequest) -> RoundReply:
            return replace(super().train_round(request), generator=sent)

    with pytest.raises(PolicyRefused, match=r"the reply of round 1: [13] parameters? where there may be none"):
        Site(folder, lambda root: Leaking(SiteFolder.open(root))).train_round(request)
    assert "reply-left" not in folder.journal.read_text()
    with pytest.raises(PolicyRefused, match=r"request was refused: [13] parameters? where"):
        Site(folder, LinearTrainer.open).train_round(replace(request, generator=sent))
    with ReplySpool(tmp_path, ParameterSpec(())) as spool:
        reply = RoundReply("site-a", 1, sent, 1.0, {})
        replies, failures = receive_replies([reply], request, {"site-a": 1.0}, spool)
    assert not replies
    assert "where there may be none" in failures[0].reason


def test_a_run_that_shares_volumes_and_was_broken_off_goes_on_and_keeps_the_same(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    def kept(out: Path) -> dict[str, bytes]:
        return {site: (out / "sites" / site / "generator.safetensors").read_bytes() for site in SITES}

    def named(site: str) -> int:
        journal = read_journal(tmp_path / "out" / "sites" / site / "journal.jsonl")
        return sum(entry.event == "generator-kept" for entry in journal)

    text = VOLUMES.replace("quorum = 2", "quorum = 3")
    linear_simulation(tmp_path / "undisturbed", cohorts, text=text)
    (cohorts["site-b"] / "behaviour.json").write_text(json.dumps({"crash": [1]}))
    with pytest.raises(PeerError, match="round 1"):
        linear_simulation(tmp_path / "out", cohorts, text=text)
    (cohorts["site-b"] / "behaviour.json").write_text("{}")
    linear_simulation(tmp_path / "out", cohorts, text=text)
    assert kept(tmp_path / "out") == kept(tmp_path / "undisturbed")
    assert [named(site) for site in SITES] == [1, 1, 1], "asked twice, a site names its generator once"
    linear_simulation(tmp_path / "out", cohorts, text=text)
    assert kept(tmp_path / "out") == kept(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(
    ("text", "sites"), [(ENSEMBLE, 2), (WEIGHTED_MOMENTUM, 3)], ids=["ensemble", "weights and momentum"]
)
def test_both_engines_share_alike(tmp_path: Path, cohorts: dict[str, Path], text: str, sites: int) -> None:
    """Of three sites' sum the order shows. Volumes alone, broken off or not: tests/test_flower_volumes.py."""
    some = {site: cohorts[site] for site in SITES[:sites]}

    def content(engine: Engine) -> list[bytes]:
        linear_simulation(tmp_path / engine, some, engine, text)
        return contents(tmp_path / engine)

    local = content("local")
    assert local
    assert local == content("flower")


def test_the_defaults_are_plain_federated_averaging() -> None:
    assert FederationTable() == FederationTable(
        sharing="weights", weighting="equal", declared_weights={}, proximal_weight=0.0, server_momentum=0.0
    )
