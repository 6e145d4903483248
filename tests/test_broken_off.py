"""Ctrl-C during a study under a promise: its cost is told as the ledgers hold it, and never as it might have been."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NoReturn

import pytest
from promised import promised_text, write_start
from tiny_cohorts import write_tiny_cohort

from fedphantom.cli import run
from fedphantom.client import private_training, site_setup
from fedphantom.common.errors import TrainingError
from fedphantom.common.interrupt import SAID, said_of_interrupt, say_when_interrupted

SITES = ("site-a", "site-b")


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    start = write_start(tmp_path / "start.safetensors")
    promise = 'noised = "norms"\ndiscriminator_steps = 2\nspare_rounds = 2'
    text = promised_text(start, promise=promise, rounds=1, roles="test = 0.1\ncontrol = 0.0\naudit = 0.0")
    (tmp_path / "study.toml").write_text(text)
    given = ["simulate", str(tmp_path / "study.toml"), "--start", str(tmp_path / "start.safetensors")]
    for number, name in enumerate(SITES):
        given += ["--site", f"{name}={write_tiny_cohort(tmp_path / name, 10, seed=number, prefix=name[-1])}"]
    return [*given, "--out", str(tmp_path / "run")]


def stopped(*arguments: object) -> NoReturn:
    raise KeyboardInterrupt


def failed(*arguments: object) -> NoReturn:
    raise TrainingError("the power failed", expected="power", remedy="Wait.")


def test_an_interrupt_before_anything_was_reserved_costs_nothing_and_says_so(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(site_setup, "check_site_cohort", stopped)
    assert run(command) == 130
    told = capsys.readouterr().err
    assert "it has cost no patient anything" in told
    assert "count whole" not in told
    assert "spare round" not in told


def test_steps_that_were_reserved_and_never_told_are_what_an_interrupt_costs(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(private_training.PrivateDiscriminatorStep, "__call__", failed)
        assert run(command) == 1
    told = said_of_interrupt()
    for name in SITES:
        assert f"site '{name}': 8 counted, of 8 of them nobody says how many were taken" in told
    assert "the study keeps 2 spare rounds for that in all" in told
    assert run(command) == 0
    assert "site 'site-a': 16 counted, of 8 of them nobody says how many were taken" in said_of_interrupt()


def test_a_site_whose_ledger_cannot_be_read_is_named_and_not_called_free(command: list[str], tmp_path: Path) -> None:
    assert run(command) == 0
    (tmp_path / "run" / "sites" / "site-a" / "ledger.secret").unlink()
    told = said_of_interrupt()
    assert "site 'site-a': its ledger cannot be read; site 'site-b': 8 counted." in told
    assert "count whole" not in told


def test_the_command_that_says_what_is_left_can_be_typed_as_it_stands_also_for_a_path_with_spaces(
    command: list[str], tmp_path: Path
) -> None:
    spaced = tmp_path / "a run of ours"
    assert run([*command[:-1], str(spaced)]) == 0
    typed = shlex.split(said_of_interrupt().partition("What is left of a site NAME: ")[2])
    assert typed == ["fedphantom", "budget", "show", f"{spaced}/sites/NAME"]


def test_an_interrupt_whose_cost_cannot_be_found_out_is_told_all_the_same() -> None:
    say_when_interrupted(stopped)
    assert said_of_interrupt() == SAID
