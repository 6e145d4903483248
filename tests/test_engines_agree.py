"""Real training, both engines: the same generator in one process and over real Flower processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_cohorts import tiny_text, write_tiny_cohort
from trained_run import trained_run

from fedphantom.common.gan.generation import initial_parameters
from fedphantom.common.gan.weights import load_weights
from fedphantom.common.study import parse_study
from fedphantom.server.simulation import Engine, SimulationResult

pytestmark = [pytest.mark.slow, pytest.mark.network]

TEXT = tiny_text(rounds=2, local_steps=3)
OPTIONS = (
    TEXT
    + """
[federation]
weighting = "declared"
declared_weights = { site-a = 1, site-b = 3 }
proximal_weight = 0.1
server_momentum = 0.5
norm_bound = 0.5
transport = "float16"
"""
)


def federation(out: Path, cohorts: dict[str, Path], engine: Engine, text: str) -> SimulationResult:
    return trained_run(text, cohorts, out, engine=engine)


@pytest.mark.parametrize("text", [TEXT, OPTIONS], ids=["plain", "with every option"])
def test_both_engines_give_the_same_generator(tmp_path: Path, text: str) -> None:
    cohorts = {f"site-{letter}": write_tiny_cohort(tmp_path / letter, 6, seed) for seed, letter in enumerate("ab")}
    local = federation(tmp_path / "local", cohorts, "local", text)
    flower = federation(tmp_path / "flower", cohorts, "flower", text)
    assert [record.sites for record in flower.rounds] == [record.sites for record in local.rounds]
    assert flower.generator.read_bytes() == local.generator.read_bytes()
    trained, start = load_weights(flower.generator)[0], initial_parameters(parse_study(text))
    assert any(not np.array_equal(trained[name], start[name]) for name in start)


def test_both_engines_leave_each_site_the_same_generator_of_its_own(tmp_path: Path) -> None:
    text = tiny_text(rounds=1, local_steps=3) + '[federation]\nsharing = "volumes"\n'
    cohorts = {f"site-{letter}": write_tiny_cohort(tmp_path / letter, 6, seed) for seed, letter in enumerate("ab")}
    local = federation(tmp_path / "local", cohorts, "local", text)
    flower = federation(tmp_path / "flower", cohorts, "flower", text)
    assert local.generator is flower.generator is None
    assert local.rounds[0].metrics == flower.rounds[0].metrics
    kept = [[(r.folder.site(site) / "generator.safetensors").read_bytes() for site in cohorts] for r in (local, flower)]
    assert kept[0] == kept[1]
    assert len(set(kept[0])) == 2
