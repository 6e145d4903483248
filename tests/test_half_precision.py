"""Half-precision transport: the same rounding under both engines, half the bytes, nothing that it cannot hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flower_messages import prepared
from hypothesis import given
from hypothesis import strategies as st
from linear_run import contents, linear_simulation
from linear_site import LinearTrainer, cohorts_of, linear_generator, study_text

from fedphantom.client.egress import EgressRule, as_sent, check_reply
from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.errors import ConfigError, PeerError, PolicyRefused
from fedphantom.common.exchange import Parameters, RoundReply, RoundRequest
from fedphantom.common.gan.parameters import ParameterSpec, parameters_digest
from fedphantom.common.gan.weights import load_weights
from fedphantom.common.journal import read_journal
from fedphantom.common.round_record import kept_round
from fedphantom.common.site_folder import SiteFolder
from fedphantom.common.study import parse_study
from fedphantom.common.transport import LARGEST, as_received
from fedphantom.common.wire import GENERATOR, packed, parse_reply, read_flat, reply_header, reply_metrics
from fedphantom.privacy.study_summary import study_text as in_words
from fedphantom.server.app import run_study
from fedphantom.server.checkpoints import latest_checkpoint

SITES = ("site-a", "site-b", "site-c")
HALF = study_text(federation='transport = "float16"')
STUDY = parse_study(HALF)
FULL = linear_generator(STUDY)
SPEC = ParameterSpec.of(FULL)
RULE = EgressRule(SPEC, dtype="float16")
REQUEST = RoundRequest(STUDY.digest(), 1, as_received(FULL, "float16"))


@pytest.fixture
def cohorts(tmp_path: Path) -> dict[str, Path]:
    return cohorts_of(tmp_path, SITES)


def is_half(parameters: Parameters) -> bool:
    return all(np.array_equal(a.astype(np.float16).astype(np.float32), a) for a in parameters.values())


@pytest.mark.usefixtures("identity")
def test_both_engines_round_alike_and_each_message_has_half_the_bytes(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    linear_simulation(tmp_path / "direct", cohorts, text=HALF)
    folder, grid = prepared(tmp_path / "flower", cohorts, HALF)
    rounds = run_study(grid, folder)
    folder.write_results(rounds.study, rounds.sites, rounds.checkpoint, "flower")
    assert contents(folder.root) == contents(tmp_path / "direct")
    (array,) = grid.sent[0].content.array_records[GENERATOR].values()
    assert array.dtype == "float16"
    assert 2 * SPEC.values <= len(array.data) <= 2 * SPEC.values + 256


def test_what_is_averaged_is_half_and_the_average_is_kept_in_full(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    linear_simulation(tmp_path / "half", cohorts, text=HALF)
    linear_simulation(tmp_path / "full", cohorts)
    checkpoint = latest_checkpoint(tmp_path / "half" / "checkpoints")
    assert checkpoint is not None
    assert not is_half(checkpoint.aggregate)
    half, full = (load_weights(tmp_path / which / "generator.safetensors")[0] for which in ("half", "full"))
    for name in full:
        np.testing.assert_allclose(half[name], full[name], rtol=2e-3, atol=1e-3)
    assert any(not np.array_equal(half[name], full[name]) for name in full)
    for site in SITES:
        site_folder = SiteFolder.open(tmp_path / "half" / "sites" / site)
        left = [e.facts for e in read_journal(site_folder.journal) if e.event == "reply-left"]
        for facts in left:
            kept = kept_round(site_folder, int(str(facts["round"])))
            assert kept is not None
            assert is_half(kept.sent)
            assert parameters_digest(kept.sent) == facts["sha256"]
        assert [(facts["dtype"], facts["bytes"]) for facts in left] == [("float16", 2 * SPEC.values + 16)] * 3


finite = st.floats(-LARGEST, LARGEST, width=32, allow_subnormal=False)


@given(st.lists(finite, min_size=43, max_size=43))
def test_a_reply_arrives_as_the_site_says_that_it_left(values: list[float]) -> None:
    sent = as_sent(RoundReply("site-a", 1, SPEC.unpack(np.array(values, np.float32)), 1.0, {}), RULE)
    check_reply(sent, RULE, site="site-a", request=REQUEST)
    flat = packed(SPEC, sent.generator, "float16")
    got = parse_reply(reply_header(sent), reply_metrics(sent), flat, SPEC, "float16")
    assert parameters_digest(got.generator) == parameters_digest(sent.generator)


@pytest.mark.parametrize("value", [65_504.01, 65_536.0, -7e4, 1e30])
def test_a_value_that_half_precision_cannot_hold_does_not_leave(
    tmp_path: Path, cohorts: dict[str, Path], value: float
) -> None:
    class Astray(LinearTrainer):
        def train_round(self, request: RoundRequest) -> RoundReply:
            return replace(super().train_round(request), generator={**FULL, "head.bias": np.full(1, value, np.float32)})

    folder = create_site_folder(tmp_path / "site", "site-a", cohorts["site-a"], HALF, SPEC)
    with pytest.raises(PolicyRefused, match="beyond ±65504, the largest number of float16"):
        Site(folder, lambda root: Astray(SiteFolder.open(root))).train_round(REQUEST)
    assert "reply-left" not in folder.journal.read_text()


def test_values_finer_than_half_precision_do_not_leave_either() -> None:
    with pytest.raises(PolicyRefused, match="finer than float16"):
        check_reply(RoundReply("site-a", 1, FULL, 1.0, {}), RULE, site="site-a", request=REQUEST)


def test_the_sites_rule_says_precision_and_bytes(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    folder = create_site_folder(tmp_path / "site", "site-a", cohorts["site-a"], HALF, SPEC)
    rule = json.loads(folder.egress.read_text())
    assert (rule["dtype"], rule["max_bytes"]) == ("float16", 2 * SPEC.values + 8 * 4)
    assert EgressRule.from_json(folder.egress.read_text()) == RULE
    with pytest.raises(ConfigError, match=r"egress\.json"):
        EgressRule.from_json(folder.egress.read_text().replace("float16", "float8"))


def test_a_side_that_sends_another_precision_is_not_understood() -> None:
    flat = packed(SPEC, FULL, "float32")
    reply = RoundReply("site-a", 1, FULL, 1.0, {})
    with pytest.raises(PeerError, match="float16"):
        parse_reply(reply_header(reply), reply_metrics(reply), flat, SPEC, "float16")
    with pytest.raises(PeerError, match="float16"):
        read_flat(b"\x93NUMPY\x01\x00", SPEC, "float16")


def test_a_study_says_it_and_one_whose_sites_train_alone_may_not() -> None:
    assert "Weights travel in half precision" in in_words(STUDY)
    assert STUDY.digest() != parse_study(study_text()).digest()
    with pytest.raises(ConfigError, match="for an average"):
        parse_study(study_text(rounds=1, federation='sharing = "volumes"\ntransport = "float16"'))
