"""Canaries: the promised noise is there, a broken step is found out, and the audit asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from audited_run import audit
from promised import promised_text, write_start
from tiny_cohorts import write_tiny_cohort
from torch import Tensor

from fedphantom.cli import run as fedphantom
from fedphantom.common.device import choose_device
from fedphantom.common.study import Study, parse_study
from fedphantom.privacy.audit.controls import canary_control
from fedphantom.privacy.dp import canaries, step
from fedphantom.privacy.dp.canaries import CanaryRun, run_canaries
from fedphantom.privacy.dp.patients import PrivatePatients
from fedphantom.privacy.dp.randomness import SecretRandom
from fedphantom.privacy.evidence import CANARY

CPU = choose_device("cpu")


def study(promise: str, *, epsilon: float = 8.0, steps: int = 3) -> Study:
    """One whose training takes so many steps of the generator, spare ones included twice as many."""
    text = promised_text("0" * 64, promise=promise, rounds=1, local_steps=steps)
    return parse_study(text.replace("epsilon = 8.0", f"epsilon = {epsilon}").replace("delta = 0.005", "delta = 0.001"))


NORMS = study('noised = "norms"\ndiscriminator_steps = 2')
STUDIES = {
    "means": study(""),
    "norms": NORMS,
    "head": study('noised = "head"\ndiscriminator_steps = 2\nclip_norm = 0.3'),
    "generator-head": study('noised = "generator-head"\nclip_norm = 0.05'),
    "public fakes": study('noised = "norms"\nfakes = "public-label-maps"\ndiscriminator_steps = 2'),
    "rarely drawn": study('noised = "norms"\ndiscriminator_steps = 5\nsampling_rate = 0.4'),
    "promised more": study('noised = "norms"\ndiscriminator_steps = 2', epsilon=1.0),
}


@pytest.mark.parametrize(
    "promised",
    [
        pytest.param(one, id=name, marks=[pytest.mark.long] if name in ("head", "rarely drawn") else [])
        for name, one in STUDIES.items()
    ],
)
def test_without_noise_the_coins_are_told_and_with_it_no_more_than_promised(promised: Study) -> None:
    run = run_canaries(promised, CPU)
    assert run.bare >= 1.5
    assert run.promised <= run.epsilon
    assert run.noise == pytest.approx(1.0, abs=4 / run.draws**0.5)
    assert run.reach == pytest.approx(1.0, abs=1e-3)  # the loudest that may be, and no louder
    assert not run.unclipped
    assert not run.excess
    assert canary_control(run).ok


class Quiet(SecretRandom):
    """A third of the noise that was asked for."""

    def normal(self, size: int) -> Tensor:
        return super().normal(size) / 3


class Silent(SecretRandom):
    """None of it, once what it chose directions by was drawn."""

    def normal(self, size: int) -> Tensor:
        return super().normal(size) * (size > 2000)


class Repeating(SecretRandom):
    """The same noise in every step: whoever sees two has it."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._drawn: dict[int, Tensor] = {}

    def normal(self, size: int) -> Tensor:
        return self._drawn.setdefault(size, super().normal(size))


@pytest.mark.parametrize("broken", [Quiet, Silent, Repeating])
@pytest.mark.parametrize("kind", ["means", "norms", "generator-head"])
def test_noise_that_is_not_as_promised_is_found_out_at_any_epsilon(
    monkeypatch: pytest.MonkeyPatch, broken: type[SecretRandom], kind: str
) -> None:
    monkeypatch.setattr(canaries, "SecretRandom", broken)
    run = run_canaries(STUDIES[kind], CPU)
    assert run.noise < 0.5
    assert run.excess
    assert not canary_control(run).ok


def test_right_guesses_alone_refute_a_small_epsilon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canaries, "SecretRandom", Silent)
    run = run_canaries(STUDIES["promised more"], CPU)
    assert run.promised > run.epsilon


@pytest.mark.parametrize("kind", ["means", "norms", "public fakes", "generator-head"])
def test_a_step_that_does_not_clip_is_found_out_at_any_epsilon(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The noise is all there, and larger than what it is to hide: the guesses are no better than they may be."""

    def unclipped(vector: list[Tensor], clip_norm: float) -> Tensor:
        return torch.cat([part.reshape(-1) for part in vector]).double()

    monkeypatch.setattr(step, "clipped", unclipped)
    run = run_canaries(STUDIES[kind], CPU)
    assert run.noise > 0.8
    assert run.unclipped
    assert run.excess
    assert not canary_control(run).ok


@pytest.mark.parametrize("too_far", [1.5, 1.05])
@pytest.mark.parametrize("kind", ["means", "norms", "public fakes", "generator-head"])
def test_a_step_that_clips_a_little_too_late_is_found_out_too(
    monkeypatch: pytest.MonkeyPatch, kind: str, too_far: float
) -> None:
    """Half of a clip norm too much is far less than what two patients may give, among whom a canary is heard."""
    right = step.clipped
    monkeypatch.setattr(step, "clipped", lambda vector, clip_norm: right(vector, too_far * clip_norm))
    run = run_canaries(STUDIES[kind], CPU)
    assert run.reach >= 0.999 * too_far  # more, where what patients gave too much lies along a canary's
    assert run.unclipped
    assert run.excess
    assert not canary_control(run).ok


def test_nobodys_scan_is_in_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two made-up patients and the canary, whatever the cohort: nothing is to be paid for."""
    seen: set[str] = set()
    made = PrivatePatients.__init__

    def watched(self, scans, *rest):  # type: ignore[no-untyped-def]  # as what it watches
        seen.update(scans.patients)
        made(self, scans, *rest)

    monkeypatch.setattr(PrivatePatients, "__init__", watched)
    run_canaries(STUDIES["means"], CPU)
    assert seen == {"made-up-00", "made-up-01", "made-up-02"}


def test_canaries_that_show_nothing_even_without_noise_are_no_control() -> None:
    run = CanaryRun(coins=64, bare=0.4, promised=0.1, epsilon=3.0, noise=1.0, draws=1000, reach=1.0)
    assert not run.excess
    assert not canary_control(run).ok


@pytest.mark.slow
def test_an_audit_of_a_promised_generator_fails_once_the_noise_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "start.safetensors"
    roles = "test = 0.0\nreference = 0.0\ncontrol = 0.2\naudit = 0.5"
    text = promised_text(write_start(start), promise='noised = "norms"', rounds=1, local_steps=2, roles=roles)
    (tmp_path / "study.toml").write_text(text + "[federation]\nquorum = 1\n")
    cohort, public = write_tiny_cohort(tmp_path / "cohort", 20), write_tiny_cohort(tmp_path / "public", 4, seed=9)
    out, synthetic = tmp_path / "run", tmp_path / "synthetic"
    given = ["simulate", str(tmp_path / "study.toml"), "--site", f"site-a={cohort}", "--start", str(start)]
    assert fedphantom([*given, "--out", str(out)]) == 0
    painted = ["generate", str(out / "generator.safetensors"), str(synthetic), "--sample", "4"]
    assert fedphantom([*painted, "--public", str(public)]) == 0

    paid = (out / "sites" / "site-a" / "ledger.jsonl").read_bytes()
    kept = audit(tmp_path, tmp_path)
    monkeypatch.setattr(canaries, "SecretRandom", Silent)
    broken = audit(tmp_path, tmp_path)
    assert [found["verdict"] for found in (kept, broken)] == ["INCONCLUSIVE", "FAIL"]  # too few patients for more
    assert [ok_of_canaries(found) for found in (kept, broken)] == [True, False]
    assert (out / "sites" / "site-a" / "ledger.jsonl").read_bytes() == paid


def ok_of_canaries(result: dict[str, Any]) -> bool:
    (control,) = (row for row in result["controls"] if row["id"] == CANARY)
    return bool(control["ok"])
