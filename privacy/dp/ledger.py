"""The budget of a cohort's patients: reserved before the first noised step, counted whole unless told otherwise.

The ledger is a hash-chained journal of its own (``ledger.jsonl``), beside the secret that its patients are named with
(``ledger.secret``). It outlives runs: sites' folders that name one ledger share a budget. A site's journal names every
line that the site had written there, so that a ledger which was removed, cut off or written anew is found by it.

The protocol (PRIVACY §2), under the ledger's lock: compose what was spent with what is asked for; refuse where it
exceeds the budget; else write the reservation, on the disk before :meth:`Ledger.reserve` returns. Steps that were not
taken are given back by :meth:`OpenReservation.commit`, which only the process that reserved them can write. A crash
leaves the reservation whole: never less is counted than was done.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...common.counted import counted
from ...common.errors import BudgetSpent, ConfigError, PolicyRefused, VerificationFailed, about
from ...common.installed_code import installed_code_digest
from ...common.journal import Fact, HeldJournal, Journal, JournalEntry
from ...common.labels.private_name import known_secret, site_secret
from .accounting import ACCOUNTANT, ADJACENCY, SAMPLING, UNIT, Mechanism
from .limits import Budget, Left, Limit, check_asked, limits_of
from .persons import Held, cohort_name, marked, secret_mark
from .spending import BEGUN, COHORT, COMMITTED, RESERVED, PublicConstants, Spending, claim_of, read_spending

LEDGER: Final = "ledger.jsonl"
SECRET: Final = "ledger.secret"  # noqa: S105  # the file's name

NOTED: Final = "budget-reserved"
"""Event in the site's journal: number and hash of the reservation's line in the ledger."""
GIVEN_BACK: Final = "budget-committed"
"""Likewise, of the line that says how many steps were done."""
REFUSED: Final = "budget-refused"
"""Event in the site's journal: what was asked for and is not left."""

_NAME = "the privacy ledger"
_RESTORE = "Restore it from a backup; until then none of these patients can take part in private steps."


@dataclass(frozen=True)
class NoisedRun:
    """Whose steps are reserved.

    Attributes:
        name: SHA-256 (hex) that names the run: of the study and of the site's coin record.
        study: The study's digest. In another run folder the same study is another run, and spends the same promise.
        clip_norm: C, a constant of the study.
        study_name: What the study is called, for people who read the ledger.
    """

    name: str
    study: str
    clip_norm: float
    study_name: str = ""


class Ledger:
    """A ledger in a folder, as one site writes to it.

    Args:
        folder: Of ``ledger.jsonl`` and ``ledger.secret``; made where it is missing.
        journal: The site's journal, begun.
    """

    def __init__(self, folder: Path, journal: Path) -> None:
        self.path, self._secret, self._site_journal = folder / LEDGER, folder / SECRET, Journal(journal)
        self._journal = Journal(self.path)

    def reserve(
        self, run: NoisedRun, patients: Mapping[str, Held], mechanism: Mechanism, budget: Budget
    ) -> OpenReservation:
        """Reserve steps for these patients; the reservation is on the disk when this returns.

        Args:
            run: Of the study at this site.
            patients: Everybody who may be in a step's batch: identifier to what their scans hold.
            mechanism: The steps, all that may be taken before the next reservation.
            budget: The study's.

        Raises:
            BudgetSpent: with these steps, some patient's composed ε would exceed the budget over all runs, or what
                the study promises over its own; says what is left.
            PolicyRefused: the run's patients, what their scans hold, their number, B̄ or C are others than in its
                earlier reservation, or two of the patients are one person.
            VerificationFailed: ledger, secret or site's journal is missing, damaged or does not belong to the others.
            ConfigError: δ ≥ 1/n, no patient, or a budget that is none.
            StorageError: the ledger or the journal cannot be written.
        """
        check_asked(budget, len(patients))
        noted = self._noted()
        with about(_NAME):
            _refuse_missing(self.path, noted)
        with about(_NAME), self._journal.held() as held:
            entries, secret = self._begun(held, noted)
            people = marked(patients, secret)
            whole = read_spending(entries)
            constants = PublicConstants(len(people), mechanism.sampling_rate * len(people), run.clip_norm)
            _refuse_another_cohort(whole, run.name, patients, secret, constants)
            spending = whole.of(people)
            delta = spending.delta(budget.delta)
            limits = limits_of(budget, spending, spending.of_study(run.study, run.name), people, mechanism)
            line, total = None, limits[0].asked
            if all(limit.asked <= limit.most for limit in limits):
                if whole.cohorts.keys().isdisjoint({cohort_name(people)}):
                    everybody = [sorted(marks) for marks in people]
                    _write(held, COHORT, cohort=cohort_name(people), patients=everybody, label_maps=True)
                proof = secrets.token_hex(32)
                line = _write(
                    held,
                    RESERVED,
                    run=run.name,
                    study=run.study,
                    study_name=run.study_name,
                    cohort=cohort_name(people),
                    patients=constants.patients,
                    expected_batch=constants.expected_batch,
                    clip_norm=constants.clip_norm,
                    sampling_rate=mechanism.sampling_rate,
                    noise_multiplier=mechanism.noise_multiplier,
                    steps=mechanism.steps,
                    delta=budget.delta,
                    budget=limits[0].most,
                    unit=UNIT,
                    adjacency=ADJACENCY,
                    sampling=SAMPLING,
                    accountant=ACCOUNTANT,
                    code=installed_code_digest(),
                    claim=claim_of(proof),
                )
        if line is None:
            raise self._refusal(run.name, limits, mechanism)
        self._note(NOTED, line, run=run.name, steps=mechanism.steps, epsilon=total, delta=delta)
        return OpenReservation(self, line.n, mechanism, constants, total, delta, proof)

    def left(
        self,
        run: NoisedRun,
        patients: Mapping[str, Held],
        mechanism: Mechanism,
        budget: Budget,
        *,
        new_site: bool = False,
    ) -> Left:
        """How many of these steps :meth:`reserve` would still allow, and by which limit; nothing is written.

        Args:
            run: As there.
            patients: As there.
            mechanism: All the steps that are needed.
            budget: As there.
            new_site: As of :meth:`spending`.

        Raises:
            ConfigError, PolicyRefused, VerificationFailed: as :meth:`reserve`.
            StorageError: a file may not be read.
        """
        check_asked(budget, len(patients))
        whole = self.spending(new_site=new_site)
        if not whole.reservations:
            return Left.of_nothing_spent(budget, mechanism)
        with about(_NAME):
            secret = self._known_secret(whole.secret_mark)
            people = marked(patients, secret)
            constants = PublicConstants(len(people), mechanism.sampling_rate * len(people), run.clip_norm)
            _refuse_another_cohort(whole, run.name, patients, secret, constants)
            spending = whole.of(people)
        return Left.under(
            limits_of(budget, spending, spending.of_study(run.study, run.name), people, mechanism), mechanism
        )

    def spending(self, *, new_site: bool = False) -> Spending:
        """What the ledger says, verified and held against the site's journal; nothing where neither began.

        Args:
            new_site: Whether the site is still to be made: it has no journal, and wrote no line.

        Raises:
            VerificationFailed: as :meth:`reserve`.
            StorageError: likewise.
        """
        noted = {} if new_site else self._noted()
        with about(_NAME):
            _refuse_missing(self.path, noted)
            entries = self._journal.entries()
            _refuse_other(entries, noted)
            if not entries:
                self._refuse_secret_alone()
            found = read_spending(entries)
            if found.secret_mark:
                self._known_secret(found.secret_mark)
            return found

    def _noted(self) -> Mapping[int, str]:
        """Line number to hash, as the site's journal has them. Read before the ledger, which only grows."""
        with about("the site's journal"):
            if not self._site_journal.begun() or not self._site_journal.path.exists():
                raise VerificationFailed(
                    "missing or empty",
                    expected="the journal since the site's first start: it names what was reserved",
                    remedy="Restore journal.jsonl from a backup; without it no budget can be trusted.",
                )
            entries = self._site_journal.entries()
        found = {}
        for entry in entries:
            if entry.event in (NOTED, GIVEN_BACK):
                number, digest = entry.facts.get("ledger_line"), entry.facts.get("ledger_sha256")
                found[number if isinstance(number, int) else 0] = str(digest)
        return found

    def _begun(self, held: HeldJournal, noted: Mapping[int, str]) -> tuple[tuple[JournalEntry, ...], bytes]:
        """The ledger's lines, the first one written if it has none; and the secret."""
        entries = held.entries()
        _refuse_other(entries, noted)
        if entries:
            return entries, self._known_secret(read_spending(entries).secret_mark)
        self._refuse_secret_alone()
        held.begin()  # before the secret: cut off between the two, a ledger that never had a line is no lost one
        secret = site_secret(self._secret)
        _write(held, BEGUN, secret_mark=secret_mark(secret))
        return held.entries(), secret

    def _refuse_secret_alone(self) -> None:
        """A secret is made for a ledger that was begun, so that one without is of a ledger that was lost."""
        if self._secret.exists() and not self._journal.begun():
            raise VerificationFailed(
                f"missing, though its secret '{SECRET}' is here",
                expected=f"'{LEDGER}' with everything that was ever reserved",
                remedy=_RESTORE,
            )

    def _known_secret(self, mark: str) -> bytes:
        try:
            secret = known_secret(self._secret)
        except ConfigError:
            secret = b""
        if not hmac.compare_digest(secret_mark(secret), mark):
            raise VerificationFailed(
                f"without the secret '{SECRET}' that its patients are named with",
                expected="the file that was made beside it",
                remedy=_RESTORE,
            )
        return secret

    def _refusal(self, run: str, limits: Sequence[Limit], mechanism: Mechanism) -> BudgetSpent:
        """What is left, in words, where one of the limits does not allow it; that it was asked for is journalled."""
        exceeded = next(limit for limit in limits if limit.asked > limit.most)
        left = min(limit.steps_left(mechanism) for limit in limits)
        with about("the site's journal"):
            self._site_journal.append(REFUSED, run=run, steps=mechanism.steps, left=left, budget=exceeded.most)
        return exceeded.refusal(mechanism, left)

    def _note(self, event: str, line: JournalEntry, **facts: str | int | float) -> None:
        with about("the site's journal"):
            self._site_journal.append(event, ledger_line=line.n, ledger_sha256=line.sha256, **facts)

    def commit(self, reservation: int, proof: str, steps_done: int) -> None:
        """Write how many of the reserved steps were done; only :class:`OpenReservation` has the proof."""
        noted = self._noted()
        with about(_NAME), self._journal.held() as held:
            entries = held.entries()
            _refuse_other(entries, noted)
            found = {one.line: one for one in read_spending(entries).reservations}
            if reservation not in found or found[reservation].steps_done is not None:
                raise PolicyRefused(
                    "no open reservation to give steps back from",
                    expected="one, committed once",
                    remedy="What was reserved counts whole.",
                )
            line = _write(held, COMMITTED, reservation=reservation, steps_done=steps_done, claim=proof)
        self._note(GIVEN_BACK, line, reservation=reservation, steps=steps_done)


class OpenReservation:
    """Steps that may be taken, until they are committed.

    Attributes:
        epsilon: Of the dearest patient, with all of these steps: what the budget was asked for.
        delta: At which: the strictest that the patients were ever promised.
        mechanism: The steps.
        constants: n, B̄ and C, as the ledger holds them.
        line: Number of its line in the ledger.
    """

    def __init__(
        self,
        ledger: Ledger,
        line: int,
        mechanism: Mechanism,
        constants: PublicConstants,
        epsilon: float,
        delta: float,
        proof: str,
    ) -> None:
        self.line, self.mechanism, self.constants, self.epsilon, self.delta = line, mechanism, constants, epsilon, delta
        self._ledger, self._proof, self._process = ledger, proof, os.getpid()

    def commit(self, steps_done: int) -> None:
        """Say how many steps were taken, begun ones included; the rest are given back. Once, at the end.

        Raises:
            PolicyRefused: another process reserved them, or they were committed already.
            BudgetSpent: more steps than were reserved; all of them are in the ledger now.
            ValueError: a negative number.
            VerificationFailed: as :meth:`Ledger.reserve`.
            StorageError: it cannot be written; the reservation counts whole.
        """
        if steps_done < 0:
            raise ValueError("a negative number of steps")
        if os.getpid() != self._process:
            raise PolicyRefused(
                "steps of a reservation that another process made",
                expected="the process that reserved them, which alone knows how many it took",
                remedy="Let that process commit; otherwise the reservation counts whole.",
            )
        self._ledger.commit(self.line, self._proof, steps_done)
        if steps_done > self.mechanism.steps:
            raise BudgetSpent(
                f"{counted(steps_done, 'step')} taken of {self.mechanism.steps} reserved",
                expected="no step beyond a reservation",
                remedy="All of them are counted; report this as a defect, and release nothing of this run.",
            )


def _write(held: HeldJournal, event: str, **facts: Fact) -> JournalEntry:
    held.append(event, **facts)
    return held.entries()[-1]


def _refuse_missing(path: Path, noted: Mapping[int, str]) -> None:
    if path.exists() and not path.is_file():
        raise VerificationFailed(
            f"a folder, or something else that is no file, where '{path.name}' belongs",
            expected=f"'{path.name}' with everything that was ever reserved",
            remedy=f"Keep what is there, under another name. {_RESTORE}",
        )
    if noted and not path.exists():
        raise VerificationFailed(
            f"missing, though the site's journal names {counted(len(noted), 'line')} of it",
            expected=f"'{path.name}' with everything that was ever reserved",
            remedy=_RESTORE,
        )


def _refuse_other(entries: Sequence[JournalEntry], noted: Mapping[int, str]) -> None:
    """A ledger written anew has a sound chain, but not the lines that the site's journal names."""
    for number, digest in sorted(noted.items()):
        if not 0 < number <= len(entries) or entries[number - 1].sha256 != digest:
            raise VerificationFailed(
                f"without line {number} as the site's journal names it",
                expected="every line that the site had written there",
                remedy=_RESTORE,
            )


def _refuse_another_cohort(
    spending: Spending, run: str, patients: Mapping[str, Held], secret: bytes, constants: PublicConstants
) -> None:
    earlier = [one for one in spending.reservations if one.run == run]
    # What an earlier version reserved is held against what it knew patients by.
    now = {known: cohort_name(marked(patients, secret, label_maps=known)) for known in (True, False)}
    if any(one.cohort != now[one.cohort in spending.by_label_maps] for one in earlier):
        raise PolicyRefused(
            "a cohort that changed since the run's earlier reservation: other patients, or other scans or label maps of"
            " theirs",
            expected="the same patients, scans and label maps in every round of a run",
            remedy="Restore the cohort, or begin a new run with roles of its own; what was spent stays spent.",
        )
    before = next((one.constants for one in earlier if one.constants not in (None, constants)), None)
    if before:
        raise PolicyRefused(
            f"n = {constants.patients}, B̄ = {constants.expected_batch:g}, C = {constants.clip_norm:g}, where the run"
            f" reserved with n = {before.patients}, B̄ = {before.expected_batch:g}, C = {before.clip_norm:g}",
            expected="the same public constants in every round of a run",
            remedy="Give the study unchanged; what was spent stays spent.",
        )
