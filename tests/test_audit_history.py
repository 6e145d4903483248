"""Which number an audit has, and what is known of those before it: from journals alone, whoever else wants a number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedphantom.common.errors import VerificationFailed
from fedphantom.common.journal import Journal, read_journal, verify_journal
from fedphantom.common.site_folder import ROLES_DRAWN
from fedphantom.privacy.audit.history import AUDITED, DONE, Turn, begin_audit, end_audit


def a_journal(folder: Path, site: str = "a") -> Journal:
    journal = Journal(folder / site / "journal.jsonl")
    journal.append(ROLES_DRAWN, cohort="0" * 64)
    return journal


def audited(*journals: Journal, p: float | None = 0.5, generator: str = "f" * 64) -> Turn:
    """One audit, ended with this p-value or broken off."""
    turn = begin_audit(journals, generator=generator)
    if p is not None:
        end_audit(journals, turn, {"A1": p}, verdict="INCONCLUSIVE")
    return turn


def test_audits_are_numbered_and_their_p_values_handed_on(tmp_path: Path) -> None:
    journal = a_journal(tmp_path)
    assert audited(journal, p=0.25).number == 1
    assert audited(journal, p=None).number == 2
    turn = audited(journal, p=0.75)
    assert (turn.number, turn.earlier) == (3, ({"A1": 0.25}, None))
    assert [(entry.event, entry.facts["number"]) for entry in read_journal(journal.path)[1:]] == [
        (AUDITED, 1),
        (DONE, 1),
        (AUDITED, 2),
        (AUDITED, 3),
        (DONE, 3),
    ]


def test_audits_of_other_generators_count_too(tmp_path: Path) -> None:
    journal = a_journal(tmp_path)
    audited(journal, p=0.25, generator="1" * 64)
    audited(journal, p=0.5, generator="2" * 64)
    assert audited(journal).earlier == ({"A1": 0.25}, {"A1": 0.5})


def test_an_audit_of_several_sites_is_one_and_those_of_single_sites_are_counted_once_each(tmp_path: Path) -> None:
    a, b = a_journal(tmp_path, "a"), a_journal(tmp_path, "b")
    assert audited(a, p=0.1).number == 1
    assert audited(b, p=0.2).number == 1
    both = audited(a, b, p=0.3)
    assert (both.number, sorted(str(audit) for audit in both.earlier)) == (3, ["{'A1': 0.1}", "{'A1': 0.2}"])
    assert audited(a, b).earlier[2:] == ({"A1": 0.3},)
    # Alone again, site A cannot tell what the audits were that its own count skips: they count, as if broken off.
    alone = audited(a)
    assert alone.number == 5
    assert alone.earlier.count(None) == 1


def test_two_names_of_one_journal_are_one_journal(tmp_path: Path) -> None:
    journal = a_journal(tmp_path, "a")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert begin_audit([journal, Journal(tmp_path / "b" / "journal.jsonl")]).number == 1
    assert journal.count(AUDITED) == 1


def test_audits_noted_before_p_values_were_kept_count_as_broken_off(tmp_path: Path) -> None:
    journal = a_journal(tmp_path)
    for number in (1, 2):
        journal.append(AUDITED, number=number, generator="1" * 64, tier="controlled")
        journal.append(DONE, number=number, verdict="INCONCLUSIVE", sha256="0" * 64, generator="1" * 64)
    assert audited(journal).earlier == (None, None)


@pytest.mark.parametrize("odd", [{"A1": "0.3"}, {"A1": 2.0}, {"A1": -0.1}, [0.3], None, {}])
def test_p_values_that_are_none_count_as_unknown(tmp_path: Path, odd: object) -> None:
    journal = a_journal(tmp_path)
    journal.append(DONE, number=1, generator="1" * 64, p_values=odd)  # type: ignore[arg-type]  # whatever is there
    assert audited(journal).earlier == (None,)


@pytest.mark.parametrize("spoil", ["missing", "without roles", "edited"])
def test_without_a_whole_journal_nothing_is_counted_anywhere(tmp_path: Path, spoil: str) -> None:
    whole, other = a_journal(tmp_path, "a"), a_journal(tmp_path, "b")
    if spoil == "missing":
        other.path.unlink()
    elif spoil == "without roles":
        other.path.write_bytes(b"")
    else:
        other.path.write_bytes(other.path.read_bytes().replace(b"00", b"01", 1))
    with pytest.raises(VerificationFailed):
        begin_audit([whole, other])
    assert whole.count(AUDITED) == 0


def test_a_line_that_a_crash_cut_short_does_not_stop_the_next_audit(tmp_path: Path) -> None:
    journal = a_journal(tmp_path)
    audited(journal, p=0.25)
    with journal.path.open("ab") as file:
        file.write(b'{"n":4,"previous":"ab')
    assert audited(journal).number == 2
    assert verify_journal(journal.path) == 6  # the roles, four lines of two audits, one that tells of the torn line


COUNTER = """
import sys
from pathlib import Path
from fedphantom.common.journal import Journal
from fedphantom.privacy.audit.history import begin_audit
journals = [Journal(Path(path)) for path in sys.argv[1:]]
print("ready", flush=True)
sys.stdin.readline()
for _ in range(8):
    print(begin_audit(journals, generator="f" * 64).number, flush=True)
"""


@pytest.mark.network  # starts real processes
def test_two_processes_never_take_the_same_number(tmp_path: Path) -> None:
    paths = [str(a_journal(tmp_path, site).path) for site in ("a", "b")]
    # The second names the journals the other way round: neither waits for the other for ever.
    started = [
        subprocess.Popen(
            [sys.executable, "-c", COUNTER, *order], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for order in (paths, paths[::-1])
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0].split() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert sorted(int(number) for numbers in told for number in numbers) == list(range(1, 17))
    for path in paths:
        assert [entry.facts["number"] for entry in read_journal(Path(path))[1:]] == list(range(1, 17))
