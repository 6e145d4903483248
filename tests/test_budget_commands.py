"""``fedphantom budget show`` and ``verify``: what a compliance officer reads of a ledger."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from ledgered_site import BUDGET, DELTA, OTHER_RUN, RUN, cost, fit, ledger_in, people, steps
from promised import EPSILON, promised_text

from fedphantom.cli import run
from fedphantom.common.journal import HeldJournal, Journal
from fedphantom.common.study import Study, parse_study
from fedphantom.privacy.dp.accounting import Mechanism
from fedphantom.privacy.dp.budget import budget_so_far, epsilon_over_time
from fedphantom.privacy.dp.ledger import Ledger, NoisedRun
from fedphantom.privacy.dp.limits import Budget


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
    assert (told["dp"], told["left_steps"], told["left_rounds"]) == (
        "patient-level",
        fit(3.0) - 50,
        (fit(3.0) - 50) // 20,
    )
    assert (told["budget_from"], told["left_epsilon"]) == ("studies", 3.0 - cost(50))
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
    assert rows[0][:5] == ["line", "reserved", "study", "patients", "q"]
    assert rows[1][2:] == [RUN.study[:12], "3", "1", "20", "40", "30", f"{cost(30):.3f}"]
    assert rows[2][2:] == [OTHER_RUN.study[:12], "4", "1", "20", "20", "20", "whole", f"{cost(50):.3f}"]
    assert re.search(r"ε = \d\.\d+ of ε = 3 is spent at δ = 0.005, by the patient for whom it is most", said)
    rounds = (fit(3.0) - 50) // 20
    assert f"which {rounds} rounds like the latest (20 noised steps each) would fit." in said
    assert (
        "What binds is the smallest that any of these patients was reserved under: 3, as site.toml names none." in said
    )
    assert "took part in, one patient's taking part makes it at most e^ε ≈" in said
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
    shown(spent, capsys, "--plot", str(tmp_path / f"again-{name}"))
    assert len((tmp_path / f"again-{name}").read_bytes()) == len(drawn)


def words_drawn(file: Path) -> list[str]:
    """Of an SVG, whose letters are outlines, each after a comment that says what they spell."""
    return re.findall("<!-- (.*?) -->", file.read_text())


def test_one_moment_is_drawn_with_its_day_and_no_fraction_of_a_second(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Ledger(site, site / "journal.jsonl").reserve(RUN, people("abc"), steps(40), BUDGET)
    (line,) = shown(site, capsys, "--plot", str(tmp_path / "spent.svg"))["lines"]
    words = words_drawn(tmp_path / "spent.svg")
    assert line["time"] in words
    assert "0.2" not in words
    assert "when it was reserved; hollow: nobody said how much was done, all counts" in words


def test_where_nothing_was_reserved_a_plot_that_is_asked_for_is_said_not_to_be_drawn(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["budget", "show", str(site), "--plot", str(tmp_path / "n.png"), "--json"]) == 0
    told = capsys.readouterr()
    assert "no plot 'n.png': no noised step was ever reserved here" in told.err
    assert json.loads(told.out) == {"dp": "none", "lines": []}
    assert not (tmp_path / "n.png").exists()


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
    assert json.loads(capsys.readouterr().out) == {"ok": True, "lines": 6, "head": head, "torn_bytes": 0}


def test_what_stands_after_the_last_whole_line_may_stand_and_is_told_until_the_next_writer_removes_it(
    spent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (spent / "ledger.jsonl").open("ab") as file:
        file.write(b"\x00" * 100)
    assert run(["budget", "verify", str(spent)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("6 lines, unbroken")
    assert "100 bytes after the last whole line, as a crash leaves of a line that was never confirmed" in told
    assert run(["budget", "verify", str(spent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["torn_bytes"] == 100
    Ledger(spent, spent / "journal.jsonl").reserve(OTHER_RUN, people("bcde"), steps(1), BUDGET)
    assert run(["budget", "verify", str(spent)]) == 0
    assert "whole line" not in capsys.readouterr().out


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
    assert "a folder without site.toml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("budget = -1.0", "the key 'budget' is -1.0\n  expected:   a number above 0, the ε that the site allows"),
        ("budget = 0", "the key 'budget' is 0\n"),
        ("budget = nan", "the key 'budget' is nan\n"),
        ("budget = inf", "the key 'budget' is inf\n"),
        ("budget = true", "the key 'budget' is true\n"),
        ('budget = "x"', "the key 'budget' is 'x', which is text\n"),
        ("budgt = 3.0", "the key 'budgt' is unknown\n  expected:   name, cohort and study, and perhaps ledger, budget"),
        ('ledger = ["/data/patients"]', "the key 'ledger' is of another kind or out of range\n  expected:   text"),
        ("budget = 1.0.0", "no valid site.toml in the site's folder: "),
    ],
)
def test_what_is_wrong_in_site_toml_is_told_by_its_key_and_without_a_path(
    spent: Path, line: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with (spent / "site.toml").open("a") as file:
        file.write(f"{line}\n")
    assert run(["budget", "show", str(spent)]) == 3
    said = capsys.readouterr().err
    assert told in said
    assert "/data" not in said


def test_a_whole_number_is_a_budget_as_well(spent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (spent / "site.toml").open("a") as file:
        file.write("budget = 10\n")
    assert shown(spent, capsys)["budget"] == 10.0


def test_a_path_that_is_something_else_is_called_what_it_is(
    spent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / "sites").mkdir(parents=True)
    (tmp_path / "run" / "sites" / "a").symlink_to(spent)
    (tmp_path / "ledgers").mkdir()
    (tmp_path / "ledgers" / "ledger.jsonl").touch()
    (tmp_path / "study.toml").touch()
    for name, told in {
        "run": "a run's folder\n  expected:   a site's folder, as in RUN/sites/NAME\n  what to do: Give one of its"
        " sites': sites/a.",
        "ledgers": "a ledger's folder, and not the site's",
        "study.toml": "SITE_FOLDER: a file",
        "nowhere": "nothing at the path given",
    }.items():
        for command in ("show", "verify"):
            assert run(["budget", command, str(tmp_path / name)]) == 3
            said = capsys.readouterr().err
            assert told in said
            assert "damaged" not in said


def promise(site: Path, epsilon: float = 20.0) -> Study:
    text = promised_text("0" * 64).replace(f"epsilon = {EPSILON}", f"epsilon = {epsilon}")
    (site / "study.toml").write_text(text)
    return parse_study(text)


def test_a_study_that_promises_and_has_spent_nothing_is_not_called_none(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    promise(site, 3.0)
    told = shown(site, capsys)
    assert (told["dp"], told["epsilon"], told["study_asked"], told["lines"]) == ("patient-level", 0.0, 3.0, [])
    for command in ("show", "verify"):
        assert run(["budget", command, str(site)]) == 0
        said = capsys.readouterr().out
        assert said.startswith("dp: patient-level. ε ≤ 3 at δ = ")
        assert "nothing spent yet" in said
        assert "none" not in said


def test_the_site_s_own_budget_is_what_binds_and_what_the_study_asked_is_told_beside_it(
    spent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (spent / "site.toml").open("a") as file:
        file.write("budget = 10.0\n")
    promise(spent, 20.0)
    told = shown(spent, capsys)
    assert (told["budget"], told["budget_from"], told["study_asked"]) == (10.0, "site.toml", 20.0)
    assert (told["left_steps"], told["left_epsilon"]) == (fit(10.0) - 50, 10.0 - cost(50))
    assert run(["budget", "show", str(spent)]) == 0
    said = capsys.readouterr().out
    assert "What binds is the site's own budget (site.toml: 10; this folder's study asked 20)." in said


def test_less_than_a_round_is_not_told_as_a_round(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = fit(3.0)
    ledger = Ledger(site, site / "journal.jsonl")
    ledger.reserve(RUN, people("abc"), steps(whole - 1), BUDGET)
    told = shown(site, capsys)
    assert (told["left_steps"], told["left_rounds"], told["round_steps"]) == (1, 0, whole - 1)
    assert run(["budget", "show", str(site)]) == 0
    said = capsys.readouterr().out
    assert f"no round like the latest ({whole - 1} noised steps) would fit; 1 such step would." in said


def test_what_each_study_spent_is_told_by_its_name_and_this_folder_s_is_marked(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = promise(site)
    ledger = Ledger(site, site / "journal.jsonl")
    own = NoisedRun("c" * 64, study.digest(), 1.0, study.name)
    ledger.reserve(own, people("abc"), steps(10), BUDGET).commit(10)
    ledger.reserve(NoisedRun("d" * 64, "d" * 64, 1.0, "elder"), people("abc"), steps(20), BUDGET).commit(20)
    ledger.reserve(own, people("abc"), steps(5), BUDGET).commit(5)
    told = shown(site, capsys)
    assert [(one["name"], one["epsilon"], one["steps"], one["this_folder"]) for one in told["studies"]] == [
        (study.name, cost(15), 15, True),
        ("elder", cost(20), 20, False),
    ]
    assert [line["this_folder"] for line in told["lines"]] == [True, False, True]
    assert run(["budget", "show", str(site)]) == 0
    said = capsys.readouterr().out
    assert f"'{study.name}' ({study.digest()[:12]}), this folder's: ε = " in said
    assert f"'elder' ({'d' * 12}): ε = " in said
    assert said.count(" *  ") == 2


def test_a_line_that_names_no_study_is_read_and_called_by_its_run(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = HeldJournal.append

    def as_before(self: HeldJournal, event: str, **facts: Any) -> None:
        written(self, event, **{key: fact for key, fact in facts.items() if key not in ("study", "study_name")})

    monkeypatch.setattr(HeldJournal, "append", as_before)
    Ledger(site, site / "journal.jsonl").reserve(RUN, people("abc"), steps(10), BUDGET)
    monkeypatch.undo()
    (told,) = shown(site, capsys)["studies"]
    assert (told["name"], told["study"], told["run"], told["steps"]) == ("", "", RUN.name, 10)
    assert run(["budget", "show", str(site)]) == 0
    assert f"run {RUN.name[:12]}: ε = " in capsys.readouterr().out


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_ledger_is_read_where_nothing_can_be_written(
    spent: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = os.open

    def read_only(path: Any, flags: int, *more: Any, **by_name: Any) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, "read-only file system")
        return opened(path, flags, *more, **by_name)

    monkeypatch.setattr(os, "open", read_only)
    assert run(["budget", command, str(spent)]) == 0
    assert capsys.readouterr().out


def test_a_ledger_is_held_against_a_head_noted_elsewhere(spent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.loads(line) for line in (spent / "ledger.jsonl").read_text().splitlines()]
    assert run(["budget", "verify", str(spent), "--head", lines[2]["sha256"]]) == 0
    capsys.readouterr()
    assert run(["budget", "verify", str(spent), "--head", "0" * 63 + "1"]) == 5
    told = capsys.readouterr().err
    assert "the privacy ledger: 'ledger.jsonl' of 6 lines without the head 000000000000…" in told
    assert "Either the head was typed or noted wrongly" in told
    assert "or lines were removed" in told


def test_64_zeros_which_any_ledger_passes_through_are_no_proof_of_one_with_lines(
    spent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["budget", "verify", str(spent), "--head", "0" * 64]) == 5
    told = capsys.readouterr().err
    assert "6 lines, and 64 zeros as the head noted earlier: that of a ledger without a line" in told
    assert "Either the head was typed or noted wrongly, or it was noted before the first line" in told


def test_a_ledger_without_a_line_has_64_zeros_as_its_head_and_no_other(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["budget", "verify", str(site), "--head", "0" * 64]) == 0
    capsys.readouterr()
    assert run(["budget", "verify", str(site), "--head", "a" * 64]) == 5
    told = capsys.readouterr().err
    assert "the privacy ledger: no line, and so no head aaaaaaaaaaaa…" in told
    assert "typed or noted wrongly" in told
    assert "removed" in told


@pytest.mark.parametrize("head", ["0" * 63, "0" * 65, "g" * 64, "A" * 64, ""])
def test_what_can_be_no_head_is_an_error_of_usage_and_no_damage(
    spent: Path, head: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["budget", "verify", str(spent), "--head", head]) == 2
    told = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert f"a hash is 64 of the signs 0-9 and a-f, and {len(head)} signs are given" in told


def test_epsilon_over_time_begins_at_nothing_also_with_one_reservation(tmp_path: Path) -> None:
    ledger = ledger_in(tmp_path)
    ledger.reserve(RUN, people("abc"), steps(40), BUDGET)
    found = budget_so_far(ledger.spending())
    assert found
    when, spent = epsilon_over_time(found)
    assert (when[0], spent[0]) == (0.0, 0.0)
    assert (when[1], spent[1]) == (0.0, cost(40))
    assert when[-1] > 0
    assert spent[-1] == cost(40)


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
