"""The journal: what happened, in order, unchanged."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fedphantom.cli import run
from fedphantom.common.errors import StorageError, VerificationFailed
from fedphantom.common.journal import RECOVERED, START, Journal, last_hash, read_journal, verify_journal
from fedphantom.common.journal_commands import journal_app


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "site-a" / "journal.jsonl")
    journal.append("round", number=1, site="site-a")
    journal.append("audit", verdict="FAIL")
    journal.append("round", number=2, site="site-a")
    journal.append("audit", verdict="PASS", auc=0.5, counts={"members": 20, "attacks": ["A1", "A3"]})
    return journal


def test_events_are_read_back_in_order_with_their_facts(journal: Journal) -> None:
    entries = read_journal(journal.path)
    assert [(e.n, e.event) for e in entries] == [(1, "round"), (2, "audit"), (3, "round"), (4, "audit")]
    assert entries[3].facts == {"verdict": "PASS", "auc": 0.5, "counts": {"members": 20, "attacks": ["A1", "A3"]}}
    assert verify_journal(journal.path) == 4


def test_events_are_counted_by_name(journal: Journal, tmp_path: Path) -> None:
    assert journal.count("audit") == 2
    assert journal.count("release") == 0
    assert Journal(tmp_path / "new.jsonl").count("audit") == 0


def test_an_event_is_flushed_to_the_disk_before_append_returns(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[bytes] = []
    real = os.fsync

    def spy(descriptor: int) -> None:
        flushed.append(journal.path.read_bytes())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    journal.append("release")
    assert b'"release"' in flushed[0]


@pytest.mark.parametrize("line", [1, 2, 3, 4])
def test_an_edited_line_is_named(journal: Journal, line: int) -> None:
    lines = journal.path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(b'"facts":{', b'"facts":{"x":1,')
    journal.path.write_bytes(b"".join(lines))
    with pytest.raises(VerificationFailed, match=f"line {line} was changed") as caught:
        verify_journal(journal.path)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("line", [1, 2, 3])
def test_a_missing_line_is_named(journal: Journal, line: int) -> None:
    lines = journal.path.read_bytes().splitlines(keepends=True)
    del lines[line - 1]
    journal.path.write_bytes(b"".join(lines))
    with pytest.raises(VerificationFailed, match=f"line {line} does not continue"):
        verify_journal(journal.path)


def test_swapped_lines_are_named(journal: Journal) -> None:
    lines = journal.path.read_bytes().splitlines(keepends=True)
    lines[1], lines[2] = lines[2], lines[1]
    journal.path.write_bytes(b"".join(lines))
    with pytest.raises(VerificationFailed, match="line 2 does not continue"):
        verify_journal(journal.path)


def test_a_line_resealed_by_someone_who_edited_it_still_breaks_the_chain(journal: Journal, tmp_path: Path) -> None:
    other = Journal(tmp_path / "other.jsonl")
    other.append("round", number=1, site="site-a")
    other.append("audit", verdict="PASS")
    lines = journal.path.read_bytes().splitlines(keepends=True)
    lines[:2] = other.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join(lines))
    with pytest.raises(VerificationFailed, match="line 3 does not continue"):
        verify_journal(journal.path)


@pytest.mark.parametrize("key", ["facts", "event", "time"])
@pytest.mark.parametrize("value", [[], 5, None, ["x"]])
def test_a_sealed_line_of_another_form_is_named(tmp_path: Path, key: str, value: object) -> None:
    line = {"n": 1, "previous": START, "time": "2026-11-20T00:00:00Z", "event": "audit", "facts": {}} | {key: value}
    body = json.dumps(line, separators=(",", ":")).encode()[:-1]
    seal = hashlib.sha256(body).hexdigest()
    path = tmp_path / "journal.jsonl"
    path.write_bytes(body + f',"sha256":"{seal}"}}\n'.encode())
    (tmp_path / "journal.jsonl.head").write_text(f"1 {seal}\n")
    assert run(["journal", "verify", str(path)]) == run(["journal", "show", str(path)]) == 5
    with pytest.raises(VerificationFailed, match="line 1 is not a journal line"):
        read_journal(path)


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_line_cut_short_is_named(journal: Journal, cut: int) -> None:
    journal.path.write_bytes(journal.path.read_bytes()[:-cut])
    with pytest.raises(VerificationFailed, match="line 4 is cut short"):
        verify_journal(journal.path)


def test_every_single_flipped_bit_is_found(journal: Journal) -> None:
    content = journal.path.read_bytes()
    for offset in range(0, len(content), 3):
        journal.path.write_bytes(content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :])
        with pytest.raises(VerificationFailed):
            verify_journal(journal.path)


def test_lines_cut_off_the_end_show_against_a_head_noted_elsewhere(journal: Journal) -> None:
    head = journal.head()
    journal.append("release")
    assert verify_journal(journal.path, head=head) == 5
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join(lines[:3]))
    head_file(journal).unlink()
    with pytest.raises(VerificationFailed, match="without the head that is noted beside it"):
        verify_journal(journal.path)
    with pytest.raises(VerificationFailed, match="without the head that is noted beside it"):
        journal.append("release")
    head_file(journal).write_text(f"3 {last_hash(journal.path)}\n")  # whoever writes both anew is found only so
    assert verify_journal(journal.path) == 3
    with pytest.raises(VerificationFailed, match="without the head"):
        verify_journal(journal.path, head=head)


def head_file(journal: Journal) -> Path:
    return journal.path.with_name("journal.jsonl.head")


LOST: dict[str, Callable[[Path], object]] = {
    "its last line cut off": lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1])),
    "emptied": lambda path: path.write_bytes(b""),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("lose", LOST.values(), ids=LOST.keys())
def test_a_journal_that_lost_lines_is_neither_believed_nor_added_to(
    journal: Journal, lose: Callable[[Path], object]
) -> None:
    lose(journal.path)
    with pytest.raises(VerificationFailed):
        verify_journal(journal.path)
    with pytest.raises(VerificationFailed, match="where 4 were written"):
        journal.append("another")
    with pytest.raises(VerificationFailed, match="where 4 were written"), journal.held() as held:
        held.entries()


def test_nothing_is_added_to_a_journal_that_was_written_anew_with_as_many_lines(
    journal: Journal, tmp_path: Path
) -> None:
    other = Journal(tmp_path / "other.jsonl")
    for _ in range(4):
        other.append("audit", verdict="PASS")
    anew = other.path.read_bytes()
    journal.path.write_bytes(anew)
    with pytest.raises(VerificationFailed, match=r"line 4 of 'journal\.jsonl' is not the one that was written"):
        journal.append("release")
    assert journal.path.read_bytes() == anew


def test_a_head_one_line_behind_is_what_a_crash_leaves_and_holds(journal: Journal) -> None:
    behind = head_file(journal).read_bytes()
    journal.append("release")
    head_file(journal).write_bytes(behind)
    assert verify_journal(journal.path) == 5
    journal.append("another")
    assert head_file(journal).read_text().split() == ["6", journal.head()]


def test_a_damaged_head_is_not_passed_over(journal: Journal) -> None:
    head_file(journal).write_text("4 nonsense\n")
    with pytest.raises(VerificationFailed, match="damaged head"):
        verify_journal(journal.path)


def test_the_head_of_a_new_journal_holds_for_every_later_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.head() == START
    journal.append("created")
    assert verify_journal(journal.path, head=START) == 1


def test_a_missing_journal_is_a_failed_verification_and_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed, match="no readable journal"):
        verify_journal(tmp_path / "journal.jsonl")


def test_a_crash_in_the_middle_of_a_line_is_told_and_the_journal_goes_on(journal: Journal) -> None:
    content = journal.path.read_bytes()
    journal.path.write_bytes(content + b'{"n":5,"previous":"ab')
    journal.append("round", number=3)
    events = [(e.event, dict(e.facts)) for e in read_journal(journal.path)]
    assert events[-2:] == [(RECOVERED, {"bytes": 21}), ("round", {"number": 3})]
    assert verify_journal(journal.path) == 6


def test_nothing_is_added_to_a_journal_whose_last_line_was_edited(journal: Journal) -> None:
    edited = journal.path.read_bytes().replace(b'"PASS"', b'"FAIL"')
    journal.path.write_bytes(edited)
    with pytest.raises(VerificationFailed):
        journal.append("release")
    assert journal.path.read_bytes() == edited


def test_lines_longer_than_a_disk_block_are_chained_too(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for size in (10, 200_000, 10, 70_000):
        journal.append("note", text="x" * size)
    assert verify_journal(journal.path) == 4


def test_a_full_disk_leaves_the_journal_as_it_was(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    content = journal.path.read_bytes() + b'{"torn'
    journal.path.write_bytes(content)
    real = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) > 100:
            return real(descriptor, data[:100], offset)
        if data.endswith(b"}\n"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError):
        journal.append("release")
    assert journal.path.read_bytes() == content


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_know_are_refused_before_anything_is_written(journal: Journal, value: float) -> None:
    before = journal.path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        journal.append("audit", auc=value)
    assert journal.path.read_bytes() == before


@given(facts=st.dictionaries(st.text(max_size=8), st.one_of(st.text(), st.integers(), st.booleans(), st.none())))
def test_any_text_is_one_line_and_comes_back(tmp_path_factory: pytest.TempPathFactory, facts: dict[str, str]) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal") / "journal.jsonl")
    journal.append("note", value=facts)
    journal.append("end")
    assert read_journal(journal.path)[0].facts == {"value": facts}


def test_processes_that_append_at_once_never_break_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    program = (
        "import sys, pathlib; from fedphantom.common.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "for i in range(40): journal.append('step', process=sys.argv[2], i=i)"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(path), str(k)], cwd=tmp_path) for k in range(4)]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0, 0]
    assert verify_journal(path) == 160
    for k in range(4):
        assert [e.facts["i"] for e in read_journal(path) if e.facts["process"] == str(k)] == list(range(40))


def test_a_journal_is_shown_from_the_command_line(journal: Journal) -> None:
    text = CliRunner().invoke(journal_app, ["show", str(journal.path)])
    assert [line.split()[2] for line in text.stdout.splitlines()] == ["round", "audit", "round", "audit"]
    shown = CliRunner().invoke(journal_app, ["show", str(journal.path), "--json"])
    assert json.loads(shown.stdout)["entries"][1]["facts"] == {"verdict": "FAIL"}


def test_a_journal_is_verified_from_the_command_line(journal: Journal) -> None:
    done = CliRunner().invoke(journal_app, ["verify", str(journal.path), "--json"])
    assert json.loads(done.stdout) == {"ok": True, "entries": 4, "head": journal.head()}
    journal.path.write_bytes(journal.path.read_bytes().replace(b"PASS", b"FAIL"))
    for command in ("show", "verify"):
        broken = CliRunner().invoke(journal_app, [command, str(journal.path)])
        assert isinstance(broken.exception, VerificationFailed)
        assert not broken.stdout
