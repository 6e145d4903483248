"""A ledger that is damaged, lost or cannot be written: nothing is forgotten, and nothing more is spent (PRIVACY §2)."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ledgered_site import (
    BUDGET,
    DELTA,
    OTHER_RUN,
    RUN,
    counted,
    fit,
    ledger_in,
    people,
    steps,
)

from fedphantom.common.errors import BudgetSpent, ConfigError, StorageError, VerificationFailed
from fedphantom.common.journal import Journal, read_journal, verify_journal
from fedphantom.privacy.dp import ledger as ledger_module
from fedphantom.privacy.dp.ledger import Ledger
from fedphantom.privacy.dp.limits import Budget


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return ledger_in(tmp_path)


# What is damaged or missing.


@pytest.fixture
def spent(ledger: Ledger) -> Ledger:
    for number in (10, 20, 30):
        ledger.reserve(RUN, people("abc"), steps(number), BUDGET).commit(number)
    return ledger


def lines_of(ledger: Ledger) -> list[bytes]:
    return ledger.path.read_bytes().splitlines(keepends=True)


def head_of(ledger: Ledger) -> Path:
    return ledger.path.with_name("ledger.jsonl.head")


def edit(ledger: Ledger) -> None:
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b'"steps":30', b'"steps":03'))


def miss_a_line(ledger: Ledger) -> None:
    lines = lines_of(ledger)
    ledger.path.write_bytes(b"".join(lines[:4] + lines[5:]))


def cut_off(ledger: Ledger) -> None:
    ledger.path.write_bytes(b"".join(lines_of(ledger)[:-2]))


def cut_off_with_the_head(ledger: Ledger) -> None:
    lines = lines_of(ledger)[:-2]
    ledger.path.write_bytes(b"".join(lines))
    head_of(ledger).write_text(f"{len(lines)} {json.loads(lines[-1])['sha256']}\n")


def write_anew(ledger: Ledger) -> None:
    ledger.path.unlink()
    head_of(ledger).unlink()
    elsewhere = ledger_in(ledger.path.parents[1] / "elsewhere")
    for _ in range(3):
        elsewhere.reserve(RUN, people("abc"), steps(1), BUDGET).commit(1)
    for path in (elsewhere.path, head_of(elsewhere), elsewhere.path.with_name("ledger.secret")):
        (ledger.path.parent / path.name).write_bytes(path.read_bytes())


def remove(ledger: Ledger) -> None:
    ledger.path.unlink()


def remove_with_the_head(ledger: Ledger) -> None:
    ledger.path.unlink()
    head_of(ledger).unlink()


def remove_the_folder(ledger: Ledger) -> None:
    for path in ledger.path.parent.iterdir():
        path.unlink()
    ledger.path.parent.rmdir()


def empty(ledger: Ledger) -> None:
    ledger.path.write_bytes(b"")


def empty_with_the_head(ledger: Ledger) -> None:
    empty(ledger)
    head_of(ledger).unlink()


def remove_the_head(ledger: Ledger) -> None:
    head_of(ledger).unlink()


def add_a_stranger_s_line(ledger: Ledger) -> None:
    Journal(ledger.path).append("pardoned", steps=60)


def remove_the_secret(ledger: Ledger) -> None:
    ledger.path.with_name("ledger.secret").unlink()


def change_the_secret(ledger: Ledger) -> None:
    ledger.path.with_name("ledger.secret").write_text("ab" * 32 + "\n")


def remove_the_journal(ledger: Ledger) -> None:
    (ledger.path.parents[1] / "site/journal.jsonl").unlink()


def damage_the_journal(ledger: Ledger) -> None:
    path = ledger.path.parents[1] / "site/journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b"budget-reserved", b"budget-whatever"))


DAMAGE: dict[Callable[[Ledger], None], str] = {
    edit: "the privacy ledger: in 'ledger.jsonl' line 7 was changed",
    miss_a_line: "the privacy ledger: in 'ledger.jsonl' line 5 does not continue",
    cut_off: "the privacy ledger: 'ledger.jsonl' holds only 6 lines, where 8 were written",
    cut_off_with_the_head: "the privacy ledger: without line 7 as the site's journal names it",
    write_anew: "the privacy ledger: without line 3 as the site's journal names it",
    remove: "the privacy ledger: missing, though the site's journal names 6 lines",
    remove_with_the_head: "the privacy ledger: missing, though the site's journal names 6 lines",
    remove_the_folder: "the privacy ledger: missing, though the site's journal names 6 lines",
    empty: "the privacy ledger: 'ledger.jsonl' holds no line, where 8 were written",
    empty_with_the_head: "the privacy ledger: without line 3 as the site's journal names it",
    remove_the_head: "the privacy ledger: 'ledger.jsonl' without the head",
    add_a_stranger_s_line: "the privacy ledger: line 9 is not a line of a privacy ledger",
    remove_the_secret: "the privacy ledger: without the secret 'ledger.secret'",
    change_the_secret: "the privacy ledger: without the secret 'ledger.secret'",
    remove_the_journal: "the site's journal: missing or empty",
    damage_the_journal: "the site's journal: in 'journal.jsonl' line 1 was changed",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda one: one.__name__)
def test_what_was_spent_is_not_forgotten_by_damage_but_nothing_more_is_spent(
    spent: Ledger, damage: Callable[[Ledger], None]
) -> None:
    assert verify_journal(spent.path) == 8
    damage(spent)
    for ask in (spent.spending, lambda: spent.reserve(RUN, people("abc"), steps(1), BUDGET)):
        with pytest.raises(VerificationFailed, match=DAMAGE[damage]) as caught:
            ask()
        assert caught.value.exit_code == 5
        if DAMAGE[damage].startswith("the privacy ledger"):  # the site has another file that is called the journal
            assert "the journal" not in str(caught.value)


def test_steps_are_not_given_back_in_a_ledger_that_was_written_anew_meanwhile(spent: Ledger) -> None:
    """Its chain is sound and the open reservation is in it, but of what was spent before less is left."""
    reserved = spent.reserve(RUN, people("abc"), steps(5), BUDGET)
    lines = read_journal(spent.path)
    spent.path.unlink()
    head_of(spent).unlink()
    for line in lines:
        forgotten = {"steps_done": 1} if line.event == "committed" else {}
        Journal(spent.path).append(line.event, **{**line.facts, **forgotten})
    anew = spent.path.read_bytes()
    with pytest.raises(
        VerificationFailed, match=r"the privacy ledger: without line [34] as the site's journal names it"
    ):
        reserved.commit(0)
    assert spent.path.read_bytes() == anew


def test_a_reservation_torn_by_a_crash_was_never_handed_out_and_is_passed_over(spent: Ledger) -> None:
    whole = spent.path.read_bytes()
    spent.path.write_bytes(whole + lines_of(spent)[-2][:57])
    assert counted(spent) == 60
    spent.reserve(RUN, people("abc"), steps(1), BUDGET)
    assert counted(spent) == 61


def test_a_crash_between_ledger_and_journal_leaves_the_reservation_counted(
    spent: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Journal.append

    def crash(self: Journal, event: str, **facts: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", crash)
    with pytest.raises(KeyboardInterrupt):
        spent.reserve(RUN, people("abc"), steps(5), BUDGET)
    monkeypatch.setattr(Journal, "append", real)
    assert counted(spent) == 65
    spent.reserve(RUN, people("abc"), steps(1), BUDGET)
    assert counted(spent) == 66


def test_a_ledger_that_cannot_be_written_lets_no_step_be_taken(spent: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match="the privacy ledger: no space is left"):
        spent.reserve(RUN, people("abc"), steps(1), BUDGET)
    monkeypatch.undo()
    assert counted(spent) == 60


@pytest.mark.skipif(not Path("/proc").exists(), reason="a place where nothing can be made")
def test_a_ledger_that_cannot_be_made_is_told_in_words_and_without_its_path(tmp_path: Path) -> None:
    ledger_in(tmp_path)
    ledger = Ledger(Path("/proc/of-patient-a/ledger"), tmp_path / "site/journal.jsonl")
    with pytest.raises(StorageError, match="the privacy ledger: the folder may not be written to") as caught:
        ledger.reserve(RUN, people("abc"), steps(1), BUDGET)
    assert "of-patient-a" not in str(caught.value)
    assert ledger.spending().reservations == ()  # looking makes nothing


def test_something_else_in_the_ledger_s_place_is_refused_by_name(tmp_path: Path) -> None:
    ledger = ledger_in(tmp_path)
    ledger.path.mkdir(parents=True)
    for ask in (ledger.spending, lambda: ledger.reserve(RUN, people("abc"), steps(1), BUDGET)):
        with pytest.raises(
            VerificationFailed, match=r"the privacy ledger: a folder, or .* 'ledger.jsonl' belongs"
        ) as found:
            ask()
        assert found.value.remedy.startswith("Keep what is there")
        assert "emove" not in found.value.remedy


def test_a_site_without_a_journal_reserves_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", tmp_path / "journal.jsonl")
    with pytest.raises(VerificationFailed, match="the site's journal: missing or empty"):
        ledger.reserve(RUN, people("abc"), steps(1), BUDGET)
    assert not ledger.path.exists()


@pytest.mark.parametrize(
    ("budget", "names"),
    [(Budget(3.0, 0.5), "abc"), (Budget(3.0, 0.0), "abc"), (Budget(0.0, DELTA), "abc"), (Budget(3.0, DELTA), "")],
    ids=["δ of 1/n and more", "δ of nothing", "ε of nothing", "nobody"],
)
def test_a_promise_that_is_none_is_refused_before_anything_is_written(
    ledger: Ledger, budget: Budget, names: str
) -> None:
    with pytest.raises(ConfigError):
        ledger.reserve(RUN, people(names), steps(1), budget)
    assert not ledger.path.exists()


def test_two_sites_folders_share_one_ledger(tmp_path: Path) -> None:
    first = ledger_in(tmp_path)
    journal = Journal(tmp_path / "next study's site/journal.jsonl")
    journal.begin()
    second = Ledger(first.path.parent, journal.path)
    whole = fit(3.0)
    first.reserve(RUN, people("abc"), steps(whole), BUDGET)
    with pytest.raises(BudgetSpent):
        second.reserve(OTHER_RUN, people("abc"), steps(1), BUDGET)


@pytest.fixture
def next_studys_site(spent: Ledger, tmp_path: Path) -> Ledger:
    """Another folder that names the same ledger, and never wrote into it: its journal knows no line."""
    journal = Journal(tmp_path / "next study's site/journal.jsonl")
    journal.begin()
    return Ledger(spent.path.parent, journal.path)


@pytest.mark.parametrize("damage", [remove_with_the_head, empty_with_the_head], ids=lambda one: one.__name__)
def test_a_lost_ledger_is_told_by_its_secret_to_a_site_that_never_wrote_there(
    spent: Ledger, next_studys_site: Ledger, damage: Callable[[Ledger], None]
) -> None:
    damage(spent)
    for ask in (
        next_studys_site.spending,
        lambda: next_studys_site.reserve(OTHER_RUN, people("abc"), steps(1), BUDGET),
    ):
        with pytest.raises(VerificationFailed, match="missing, though its secret") as caught:
            ask()
        assert caught.value.exit_code == 5
    assert not spent.path.exists() or not spent.path.read_bytes()


@pytest.mark.parametrize("moment", ["before the secret", "before the first line"])
def test_a_ledger_whose_beginning_a_crash_cut_off_is_begun(
    ledger: Ledger, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ledger_module, "site_secret" if moment == "before the secret" else "secret_mark", crash)
        with pytest.raises(KeyboardInterrupt):
            ledger.reserve(RUN, people("abc"), steps(1), BUDGET)
    assert ledger.path.with_name("ledger.secret").exists() == (moment == "before the first line")
    assert ledger.spending().lines == 0
    ledger.reserve(RUN, people("abc"), steps(1), BUDGET)
    assert counted(ledger) == 1
