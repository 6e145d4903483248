"""What happened, in order: hash-chained JSON lines that cannot be changed unnoticed in the middle.

One line an event, flushed to the disk before :meth:`Journal.append` returns::

    {"n":2,"previous":"<sha256 of line 1>","time":"…Z","event":"audit","facts":{…},"sha256":"<of this line>"}

``sha256`` is taken over the line's own bytes up to it, so what was written is what is checked. A
chain shows that nothing was edited, removed or inserted before its last line. That the last lines
themselves were not cut off, or the file emptied, shows against its head: number and hash of the last
line, written beside it (``journal.jsonl.head``) after each line, and asked whenever the journal is
read or added to. Whoever cuts off both, or writes both anew, is found only against a head noted
elsewhere (:meth:`Journal.head`, :func:`verify_journal`).

Facts never hold a patient identifier or a path to patient data.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .atomic import sync_folder, write_atomic
from .counted import counted
from .errors import DataError, VerificationFailed
from .storage import making_errors, storage_errors

Fact = str | int | float | bool | None | Sequence["Fact"] | Mapping[str, "Fact"]
"""What JSON can hold: lists, tuples and dicts of it; NaN and infinities are refused."""

START = "0" * 64
"""The ``previous`` of the first line, and the head of an empty journal."""

RECOVERED = "torn-line-dropped"
"""Event that stands where a line was cut short by a crash: it had never been confirmed."""

_SEAL = re.compile(rb',"sha256":"([0-9a-f]{64})"}\Z')


@dataclass(frozen=True)
class JournalEntry:
    """One verified line.

    Attributes:
        n: 1-based line number.
        time: UTC, ISO 8601, seconds.
        event: What happened, one word or hyphenated words.
        facts: Its particulars.
        sha256: The line's hash, named by the next line.
    """

    n: int
    time: str
    event: str
    facts: Mapping[str, Fact]
    sha256: str


class Journal:
    """An append-only journal file; any number of processes may append at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: str, **facts: Fact) -> None:
        """Add one line; it is on the disk when this returns.

        A line that a crash cut short is dropped, and its place told by a :data:`RECOVERED` line.

        Raises:
            VerificationFailed: the last line is not what was written, or lines after it were cut off; nothing is
                added to it.
            StorageError: the disk is full, read-only or forbidden; the journal is as before, or holds the line but
                its head is one behind.
            ValueError: a fact is NaN or infinite.
        """
        with self.held() as journal:
            journal.append(event, **facts)

    @contextlib.contextmanager
    def held(self) -> Iterator[HeldJournal]:
        """The journal under its lock: what is read and what is then appended belong together.

        Nobody else reads or appends meanwhile. Who holds several takes them in the order of their paths, so that
        no two wait for each other.

        Raises:
            OutputTaken: a file where one of its folders would be.
            StorageError: as :meth:`append`; or nothing can be made where it is to lie.
        """
        with making_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with storage_errors():
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # closing the descriptor lets go
            yield HeldJournal(descriptor, self.path)
        finally:
            os.close(descriptor)

    def entries(self) -> tuple[JournalEntry, ...]:
        """All entries, the whole chain verified, under a shared lock; it may lie where nothing can be written.

        What a crash left of a last line is passed over; a file that is missing has no line.

        Raises:
            VerificationFailed: as :func:`read_journal`.
            StorageError: it may not be read.
        """
        try:
            with storage_errors():
                descriptor = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return _up_to_head((), self.path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            return HeldJournal(descriptor, self.path).entries()
        finally:
            os.close(descriptor)

    def begin(self) -> None:
        """Make an empty journal and its head: from here on, one that is missing was removed.

        Raises:
            StorageError: as :meth:`append`.
        """
        with self.held() as journal:
            journal.begin()

    def begun(self) -> bool:
        """Whether a line or a head was ever written here."""
        return _head_file(self.path).exists() or (self.path.exists() and self.path.stat().st_size > 0)

    def count(self, event: str) -> int:
        """How many times an event stands in the verified journal; 0 where there is no file yet."""
        return sum(entry.event == event for entry in read_journal(self.path)) if self.path.exists() else 0

    def head(self) -> str:
        """The last line's hash, to be noted elsewhere (in a signed report, say)."""
        return last_hash(self.path) if self.path.exists() else START


class HeldJournal:
    """An open journal whose lock is held: see :meth:`Journal.held`."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor, self._path = descriptor, path

    def entries(self) -> tuple[JournalEntry, ...]:
        """All entries, the whole chain verified; what a crash left of a last line is passed over.

        Raises:
            VerificationFailed: as :func:`read_journal`.
        """
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            whole, newline, _ = file.read().rpartition(b"\n")
        return _up_to_head(tuple(_entries(whole + newline, self._path)), self._path)

    def begin(self) -> None:
        """As :meth:`Journal.begin`."""
        if not Journal(self._path).begun():
            write_atomic(_head_file(self._path), f"0 {START}\n".encode())

    def append(self, event: str, **facts: Fact) -> None:
        """As :meth:`Journal.append`."""
        with storage_errors():
            content_size, last, torn = _tail(self._descriptor)
            entry = _parse(last, _line_number(last), self._path) if last else None
            n, previous = (entry.n, entry.sha256) if entry else (0, START)
            head = _noted_head(self._path)
            if not _head_file(self._path).exists():  # before the first line: cut off between the two, it still has one
                write_atomic(_head_file(self._path), f"0 {START}\n".encode())
            if n < head[0] or (n == head[0] and previous != head[1]):
                raise _cut_off(n, head[0], self._path)
            lines = b""
            if torn:
                n += 1
                line, previous = _line(n, previous, RECOVERED, {"bytes": len(torn)})
                lines += line
            line, digest = _line(n + 1, previous, event, facts)
            _write(self._descriptor, content_size, torn, lines + line)
            if not entry:  # the file's own name is on the disk from its first line on
                sync_folder(self._path.parent)
            write_atomic(_head_file(self._path), f"{n + 1} {digest}\n".encode())


def read_journal(path: Path, *, without_head: bool = False) -> tuple[JournalEntry, ...]:
    """All entries, the whole chain verified.

    Args:
        path: The journal.
        without_head: Whether it may be a copy without the head that is noted beside a journal.

    Raises:
        VerificationFailed: no readable file, a line that is edited, missing or cut short (it names the line), or fewer
            lines than its head says.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            content = file.read()
            head = (0, START) if without_head and not _head_file(path).exists() else _noted_head(path)
    except OSError:
        raise VerificationFailed(
            f"no readable journal '{path.name}'",
            expected="the journal that the run or site keeps",
            remedy="Give the journal's path; if it was removed, the history is lost and the run counts as unverified.",
        ) from None
    return _up_to_head(tuple(_entries(content, path)), path, head)


def torn_bytes(path: Path) -> int:
    """How many bytes stand after the last whole line: of one that a crash cut short, or that somebody else wrote there.

    They count for nothing, and :meth:`Journal.append` tells of them in a :data:`RECOVERED` line in their place.
    """
    with contextlib.suppress(FileNotFoundError), storage_errors(), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        return len(file.read().rpartition(b"\n")[2])
    return 0


def refuse_nothing_there(path: Path) -> None:
    """Tell a mistyped path from a journal that was removed, which leaves its head. Raises DataError for the first."""
    if not path.exists() and not _head_file(path).exists():
        raise DataError(
            f"no journal '{path.name}' at the path given",
            expected="the journal.jsonl that a run or site keeps",
            remedy="Check the path; if both it and its head were removed, its history is lost and the run counts as"
            " unverified.",
        )


def verify_journal(path: Path, *, head: str | None = None) -> int:
    """Check the chain from the first line to the last.

    Args:
        path: The journal.
        head: A hash noted earlier (:meth:`Journal.head`); the chain must pass through it. Only this
            shows that the last lines were not cut off since.

    Returns:
        The number of entries.

    Raises:
        VerificationFailed: as :func:`read_journal`, or the chain does not pass through ``head``.
    """
    if head is None and path.exists() and not _head_file(path).exists():
        raise _headless(path)
    entries = read_journal(path, without_head=head is not None)
    if head is not None and head != START and all(entry.sha256 != head for entry in entries):
        raise VerificationFailed(
            f"'{path.name}' of {counted(len(entries), 'line')} without the head {head[:12]}… noted earlier",
            expected="a chain that passes through it",
            remedy="Either the head was typed or noted wrongly (compare it with your note), or lines were removed or"
            " written anew since, or this is another file: restore it from a backup.",
        )
    return len(entries)


def last_hash(path: Path) -> str:
    """Of a journal, or of a copy without the head beside it. Raises VerificationFailed as :func:`read_journal`."""
    entries = read_journal(path, without_head=True)
    return entries[-1].sha256 if entries else START


def _head_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.head")


def _noted_head(path: Path) -> tuple[int, str]:
    """Number and hash of the last line as noted beside the journal; before the first where there is no journal yet."""
    try:
        text = _head_file(path).read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        if not path.exists() or not path.stat().st_size:
            return 0, START
        raise _headless(path) from None
    found = re.fullmatch(r"([0-9]{1,18}) ([0-9a-f]{64})\n", text)
    if found is None:
        raise VerificationFailed(
            f"a damaged head '{_head_file(path).name}' beside '{path.name}'",
            expected="number and hash of its last line, as they were written",
            remedy="Restore both from the same backup.",
        )
    return int(found[1]), found[2]


def _up_to_head(
    entries: tuple[JournalEntry, ...], path: Path, head: tuple[int, str] | None = None
) -> tuple[JournalEntry, ...]:
    """The entries, if they reach the head; a crash may have left the head one line behind, never before."""
    number, digest = head or _noted_head(path)
    if number and (len(entries) < number or entries[number - 1].sha256 != digest):
        raise _cut_off(len(entries), number, path)
    return entries


def _headless(path: Path) -> VerificationFailed:
    return VerificationFailed(
        f"'{path.name}' without the head that is noted beside it",
        expected=f"'{_head_file(path).name}', written with every line",
        remedy="Restore both from the same backup. A copy alone is checked against a head noted elsewhere:"
        " 'fedphantom journal verify COPY --head NOTED'.",
    )


def _cut_off(lines: int, noted: int, path: Path) -> VerificationFailed:
    there = "no line" if not lines else "only " + counted(lines, "line")
    return VerificationFailed(
        f"'{path.name}' holds {there}, where {noted} were written"
        if lines < noted
        else f"line {noted} of '{path.name}' is not the one that was written",
        expected=f"every line up to the head in '{_head_file(path).name}'",
        remedy="Lines were cut off or replaced: restore both files from the same backup.",
    )


def _entries(content: bytes, path: Path) -> Iterator[JournalEntry]:
    previous = START
    lines = content.split(b"\n")
    for n, line in enumerate(lines[:-1], start=1):
        entry = _parse(line, n, path, previous)
        previous = entry.sha256
        yield entry
    if lines[-1]:
        raise _broken(len(lines), path, "is cut short")


def _parse(line: bytes, n: int, path: Path, previous: str | None = None) -> JournalEntry:
    seal = _SEAL.search(line)
    if seal is None:
        raise _broken(n, path, "is not a journal line")
    digest = seal.group(1).decode()
    if hashlib.sha256(line[: seal.start()]).hexdigest() != digest:
        raise _broken(n, path, "was changed after it was written")
    # The seal holds, so these are the bytes that _line wrote: only a forger's could lack a key.
    try:
        found = json.loads(line)
        entry = JournalEntry(found["n"], found["time"], found["event"], found["facts"], digest)
        linked = previous is None or found["previous"] == previous
        formed = isinstance(entry.facts, dict) and all(isinstance(text, str) for text in (entry.time, entry.event))
    except (ValueError, TypeError, KeyError, RecursionError):
        formed = False
    if not formed:
        raise _broken(n, path, "is not a journal line")
    if entry.n != n or not linked:
        raise _broken(n, path, "does not continue the line before it")
    return entry


def _line(n: int, previous: str, event: str, facts: Mapping[str, Fact]) -> tuple[bytes, str]:
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    record = {"n": n, "previous": previous, "time": time, "event": event, "facts": facts}
    body = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()[:-1]  # ASCII, one line
    digest = hashlib.sha256(body).hexdigest()
    return body + f',"sha256":"{digest}"}}\n'.encode(), digest


def _tail(descriptor: int) -> tuple[int, bytes, bytes]:
    """Size up to the last newline, the last whole line, and what a crash left after it."""
    size = os.fstat(descriptor).st_size
    tail, start = b"", size
    while start > 0 and tail.count(b"\n") < 2:
        step = min(1 << 16, start)
        start -= step
        tail = os.pread(descriptor, step, start) + tail
    whole, newline, torn = tail.rpartition(b"\n")
    return size - len(torn), whole.rpartition(b"\n")[2] if newline else b"", torn


def _line_number(line: bytes) -> int:
    match = re.match(rb'\{"n":([0-9]{1,18}),', line)
    return int(match.group(1)) if match else 0


def _write(descriptor: int, offset: int, torn: bytes, lines: bytes) -> None:
    """Write ``lines`` over the torn end and flush; on failure leave the file as it was."""
    try:
        written = 0
        while written < len(lines):
            written += os.pwrite(descriptor, lines[written:], offset + written)
        os.ftruncate(descriptor, offset + written)
        os.fsync(descriptor)
    except BaseException:
        _restore(descriptor, offset, torn)
        raise


def _restore(descriptor: int, offset: int, torn: bytes) -> None:
    os.ftruncate(descriptor, offset)
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, torn, offset)


def _broken(n: int, path: Path, how: str) -> VerificationFailed:
    return VerificationFailed(
        f"in '{path.name}' {f'line {n}' if n else 'the last line'} {how}",
        expected="an unbroken chain",
        remedy=f"Restore '{path.name}' from a backup; what follows that line cannot be trusted.",
    )
