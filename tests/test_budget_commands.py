"""``fedphantom budget show`` and ``verify``: what a compliance officer reads of a ledger."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ledgered_site import BUDGET, DELTA, OTHER_RUN, RUN, cost, fit, people, steps

from fedphantom.cli import run
from fedphantom.common.journal import Journal
from fedphantom.privacy.dp.accounting import Mechanism
from fedphantom.privacy.dp.ledger import Budget, Ledger


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site-a"
    root.mkdir()
    (root / "site.toml").write_text('name = "site-a"\ncohort = "patients"\nstudy = "study.toml"\n')
    Journal(root / "journal.jsonl").begin()
    return root


@pytest.fixture
def spent(site: Path) -> Path:
    ledger = Ledger(site, site / "journal.jsonl")
    ledger.reserve(RUN, people("abc"), steps(40), BUDGET).commit(30)
    ledger.reserve(OTHER_RUN, people("bcde"), steps(20), BUDGET)
    return site


def shown(site: Path, capsys: pytest.CaptureFixture[str], *more: str) -> Any:
    assert run(["budget", "show", str(site), "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_program_reads_every_reservation_and_all_that_an_epsilon_means_nothing_without(
    spent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = shown(spent, capsys)
    assert (told["unit"], told["sampling"], told["accountant"]) == ("patient", "Poisson", "pld")
    assert "add/remove" in told["adjacency"]
    assert (told["epsilon"], told["delta"], told["budget"]) == (cost(50), DELTA, 3.0)
    assert told["left_steps"] == fit(3.0) - 50
    first, second = told["lines"]
    assert (first["line"], first["patients"], first["run"]) == (3, 3, RUN.name)
    assert (first["steps_reserved"], first["steps_counted"], first["committed"]) == (40, 30, True)
    assert (second["steps_reserved"], second["steps_counted"], second["committed"]) == (20, 20, False)
    assert (first["epsilon"], second["epsilon"]) == (cost(30), cost(50))
    assert (first["sampling_rate"], first["noise_multiplier"]) == (1.0, 20.0)


def test_a_person_reads_the_same_as_a_table_with_a_sentence(spent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["budget", "show", str(spent)]) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines()]
    assert rows[0][:5] == ["line", "reserved", "run", "patients", "q"]
    assert rows[1][2:] == [RUN.name[:12], "3", "1", "20", "40", "30", f"{cost(30):.3f}"]
    assert rows[2][2:] == [OTHER_RUN.name[:12], "4", "1", "20", "20", "20", "whole", f"{cost(50):.3f}"]
    assert re.search(r"ε = \d\.\d+ of ε = 3 is spent at δ = 0.005, by the patient for whom it is most", said)
    assert f"{fit(3.0) - 50} steps like the latest would still fit" in said
    assert "1 reservation of which nobody said how much was done" in said
    assert "Unit: patient; adjacency: add/remove" in said
    assert "patient-" not in said


def test_where_nothing_was_ever_reserved_that_is_said_as_loudly(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["budget", "show", str(site)]) == 0
    assert capsys.readouterr().out.startswith("dp: none.")
    assert shown(site, capsys) == {"dp": "none", "lines": []}
    assert run(["budget", "verify", str(site)]) == 0
    assert capsys.readouterr().out.startswith("dp: none.")
    assert sorted(path.name for path in site.iterdir()) == ["journal.jsonl", "journal.jsonl.head", "site.toml"]


@pytest.mark.parametrize(("name", "begins"), [("spent.png", b"\x89PNG"), ("spent.svg", b"<?xml")])
def test_epsilon_over_time_is_drawn(
    spent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, begins: bytes
) -> None:
    shown(spent, capsys, "--plot", str(tmp_path / name))
    drawn = (tmp_path / name).read_bytes()
    assert drawn.startswith(begins)
    shown(spent, capsys, "--plot", str(tmp_path / name))
    assert len((tmp_path / name).read_bytes()) == len(drawn)


def test_a_plot_of_another_kind_is_refused_before_anything_is_read(
    spent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["budget", "show", str(spent), "--plot", str(tmp_path / "spent.pdf")]) == 3
    assert "neither PNG nor SVG" in capsys.readouterr().err


def test_a_whole_ledger_is_verified_and_its_head_told(spent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = json.loads((spent / "ledger.jsonl").read_text().splitlines()[-1])["sha256"]
    assert run(["budget", "verify", str(spent)]) == 0
    assert capsys.readouterr().out == (f"6 lines, unbroken, and all that the site's journal names. Head: {head}\n")
    assert run(["budget", "verify", str(spent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "lines": 6, "head": head}


@pytest.mark.parametrize("command", ["show", "verify"])
def test_the_first_broken_line_is_named_with_exit_code_five(
    spent: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = spent / "ledger.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    for broken in (2, 4):
        lines[broken - 1] = lines[broken - 1].replace(b'"facts":{', b'"facts":{"x":1,')
    file.write_bytes(b"".join(lines))
    assert run(["budget", command, str(spent)]) == 5
    assert "in 'ledger.jsonl' line 2 was changed" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_removed_ledger_is_missed(spent: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for file in spent.glob("ledger.*"):
        file.unlink()
    assert run(["budget", command, str(spent)]) == 5
    assert "missing, though the site's journal names 3 lines" in capsys.readouterr().err


def test_a_folder_that_is_no_site_s_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["budget", "show", str(tmp_path)]) == 3
    assert "no valid site.toml" in capsys.readouterr().err


def test_a_ledger_that_site_toml_names_is_the_one_that_is_read(
    spent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "next-study"
    other.mkdir()
    text = (spent / "site.toml").read_text()
    (other / "site.toml").write_text(f'{text}ledger = "../site-a"\n')
    Journal(other / "journal.jsonl").begin()
    assert shown(other, capsys)["epsilon"] == cost(50)


def test_what_is_beyond_every_figure_is_told_without_one(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger(site, site / "journal.jsonl")
    reserved = ledger.reserve(RUN, people("abc"), Mechanism(1.0, 0.5, 1), Budget(50.0, DELTA))
    with pytest.raises(Exception, match="5000 steps taken of 1 reserved"):
        reserved.commit(5000)
    told = shown(site, capsys)
    assert (told["epsilon"], told["left_steps"]) == (None, 0)
    assert run(["budget", "show", str(site)]) == 0
    assert "ε beyond 100 of ε = 50 is spent" in capsys.readouterr().out
