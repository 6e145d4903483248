"""What a ledger's lines say: who was reserved for, what was done, and what that has cost each person so far.

A line that is not understood costs no less than one that is: it is refused, never passed over.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ...common.errors import ConfigError, PolicyRefused, VerificationFailed
from ...common.journal import RECOVERED, START, Fact, JournalEntry
from .accounting import Mechanism, epsilon
from .persons import Marks, cohort_name, person_of, persons

BEGUN: Final = "ledger-begun"
"""First line: the mark of the site's secret, so that a lost secret does not make strangers of its patients."""
COHORT: Final = "cohort"
"""Everybody's marks, once a cohort."""
RESERVED: Final = "reserved"
"""Steps that may be taken from here on; on the disk before the first of them."""
COMMITTED: Final = "committed"
"""How many of them were, told by whom they were reserved for."""


@dataclass(frozen=True)
class PublicConstants:
    """What a noised sum is made with, beside q and σ: fixed when a run first reserves, whatever the cohort is later.

    Attributes:
        patients: n, all who may be in a step's batch.
        expected_batch: B̄ = qn, by which the noised sum is divided.
        clip_norm: C.
    """

    patients: int
    expected_batch: float
    clip_norm: float


@dataclass(frozen=True)
class Reservation:
    """Steps reserved, and what became of them.

    Attributes:
        line: Number of its line in the ledger.
        time: UTC, ISO 8601, seconds.
        run: Names the study and the site's coin record, in one run folder.
        cohort: Name of the cohort: :func:`.persons.cohort_name`.
        mechanism: What was reserved.
        delta: Of the promise.
        budget: ε that the cohort may spend, as the study said then.
        claim: SHA-256 of what only the process that reserved knows.
        study: The study's digest, in whatever run folder; empty in a line of an earlier version, which does not say.
        study_name: What the study is called; empty likewise.
        constants: n, B̄ and C; None likewise.
        steps_done: As it told; None where it told nothing, and all count.
        told_on: Number of the line that told it, and when; None likewise.
    """

    line: int
    time: str
    run: str
    cohort: str
    mechanism: Mechanism
    delta: float
    budget: float
    claim: str
    study: str = ""
    study_name: str = ""
    constants: PublicConstants | None = None
    steps_done: int | None = None
    told_on: tuple[int, str] | None = None

    @property
    def steps_counted(self) -> int:
        """Steps that cost: those done, and all that were reserved where nobody told."""
        return self.mechanism.steps if self.steps_done is None else self.steps_done

    @property
    def spent(self) -> tuple[Mechanism, ...]:
        """The steps that cost."""
        return of_steps(self.mechanism, self.steps_counted)


def of_steps(mechanism: Mechanism, steps: int) -> tuple[Mechanism, ...]:
    """As many such steps; nothing for none."""
    return (Mechanism(mechanism.sampling_rate, mechanism.noise_multiplier, steps),) if steps else ()


@dataclass(frozen=True)
class Spending:
    """A verified ledger.

    Attributes:
        secret_mark: Which secret its patients' marks were made with; empty for a ledger without a line.
        cohorts: Name to everybody's marks.
        reservations: In the order of their lines.
        lines: How many lines there are.
        head: Hash of the last, to be noted elsewhere.
        by_label_maps: Names of cohorts whose marks are of label maps too; those of an earlier version are not.
    """

    secret_mark: str
    cohorts: Mapping[str, Sequence[Marks]]
    reservations: tuple[Reservation, ...]
    lines: int = 0
    head: str = START
    by_label_maps: frozenset[str] = frozenset()

    def up_to(self, line: int) -> Spending:
        """As if every reservation after that line had not been made."""
        return replace(self, reservations=tuple(one for one in self.reservations if one.line <= line))

    def as_of(self, line: int) -> Spending:
        """As the ledger stood after that line: what was told later is not known, and all that was reserved counts."""
        then = (
            one if one.told_on and one.told_on[0] <= line else replace(one, steps_done=None, told_on=None)
            for one in self.reservations
            if one.line <= line
        )
        return replace(self, reservations=tuple(then))

    def of_study(self, study: str, run: str) -> Spending:
        """With the reservations alone of one study, in whatever run folder.

        Args:
            study: Its digest.
            run: Name of a run of it, by which lines of an earlier version are known.
        """
        own = (one for one in self.reservations if (one.study == study if one.study else one.run == run))
        return replace(self, reservations=tuple(own))

    def of(self, people: Sequence[Marks]) -> Spending:
        """With the reservations alone that any of these patients was part of.

        Raises:
            PolicyRefused: patients whom one cohort keeps apart are one person by another.
        """
        cohorts = {**self.cohorts, cohort_name(people): people}
        known = persons(cohorts.values())
        _refuse_two_in_one(cohorts.values(), known)
        wanted = {person_of(marks, known) for marks in people}
        theirs = {name for name, those in cohorts.items() if any(person_of(marks, known) in wanted for marks in those)}
        return replace(
            self, cohorts=cohorts, reservations=tuple(one for one in self.reservations if one.cohort in theirs)
        )

    def delta(self, *asked: float) -> float:
        """The strictest δ that was promised, or is asked for now: at this one everything is composed."""
        return min([*asked, *(reservation.delta for reservation in self.reservations)])

    def dearest(
        self, delta: float, people: Sequence[Marks] | None = None, more: Sequence[Mechanism] = ()
    ) -> tuple[Mechanism, ...]:
        """What the person was part of for whom it costs most, in steps of each kind.

        Args:
            delta: At which ε is compared.
            people: Among these patients, of a cohort that the ledger knows; None for everybody.
            more: What each of them is to be part of besides.
        """
        known = persons(self.cohorts.values())
        parts: dict[int, set[int]] = defaultdict(set)
        for number, reservation in enumerate(self.reservations):
            for marks in self.cohorts[reservation.cohort]:
                parts[person_of(marks, known)].add(number)
        wanted = parts.keys() if people is None else {person_of(marks, known) for marks in people}
        # Many patients were part of the same reservations: each such set is composed once.
        sets = {frozenset(parts.get(person, ())) for person in wanted}
        sums = {_summed([*(part for number in one for part in self.reservations[number].spent), *more]) for one in sets}
        return max(sums, key=lambda one: epsilon(one, delta), default=())


def _summed(parts: Iterable[Mechanism]) -> tuple[Mechanism, ...]:
    steps: Counter[tuple[float, float]] = Counter()
    for part in parts:
        steps[part.sampling_rate, part.noise_multiplier] += part.steps
    return tuple(Mechanism(q, sigma, number) for (q, sigma), number in sorted(steps.items()))


def _refuse_two_in_one(cohorts: Iterable[Sequence[Marks]], known: Mapping[str, int]) -> None:
    """One person twice in a step's batch would move it twice as far as the noise is made for. Raises PolicyRefused."""
    for people in cohorts:
        if len({person_of(marks, known) for marks in people}) < len(people):
            raise PolicyRefused(
                "patients whom one cohort keeps apart and who are one person by another's identifiers or scans",
                expected="each scan under one patient's identifier, now and in every earlier cohort of this ledger",
                remedy="Give renamed or exchanged patients their earlier identifiers again, then repeat.",
            )


def read_spending(entries: Iterable[JournalEntry]) -> Spending:
    """Understand verified lines.

    Raises:
        VerificationFailed: a line that no ledger has, or out of its place; it names the line.
    """
    lines, head = 0, START
    mark, cohorts, reservations = "", dict[str, Sequence[Marks]](), dict[int, Reservation]()
    by_label_maps = set[str]()
    for entry in entries:
        lines, head = entry.n, entry.sha256
        try:
            if entry.event == RECOVERED:
                continue
            if (entry.event == BEGUN) == bool(mark):
                raise _Odd
            if entry.event == BEGUN:
                mark = _hash(entry.facts["secret_mark"])
            elif entry.event == COHORT:
                name, people = _cohort(entry.facts)
                cohorts[name] = people
                if entry.facts.get("label_maps") is True:
                    by_label_maps.add(name)
            elif entry.event == RESERVED:
                reservation = _reservation(entry)
                if reservation.cohort not in cohorts:
                    raise _Odd
                reservations[entry.n] = reservation
            elif entry.event == COMMITTED:
                line = _whole(entry.facts["reservation"])
                reservations[line] = _committed(reservations[line], entry)
            else:
                raise _Odd
        except (_Odd, KeyError, TypeError, ValueError, ConfigError):
            raise VerificationFailed(
                f"line {entry.n} is not a line of a privacy ledger, or not in its place",
                expected="what 'fedphantom' writes there and nothing else",
                remedy="Restore the ledger from a backup; until then nothing may be spent.",
            ) from None
    return Spending(mark, cohorts, tuple(reservations.values()), lines, head, frozenset(by_label_maps))


class _Odd(Exception):
    """A line that does not belong."""


def _cohort(facts: Mapping[str, Fact]) -> tuple[str, tuple[Marks, ...]]:
    listed = facts["patients"]
    if not isinstance(listed, list) or not listed or not all(isinstance(marks, list) and marks for marks in listed):
        raise _Odd
    people = tuple(frozenset(_hash(mark) for mark in marks) for marks in listed)
    if cohort_name(people) != facts["cohort"]:
        raise _Odd
    return cohort_name(people), people


def _reservation(entry: JournalEntry) -> Reservation:
    facts = entry.facts
    kind = Mechanism(_number(facts["sampling_rate"]), _number(facts["noise_multiplier"]), _whole(facts["steps"]))
    delta, budget = _number(facts["delta"]), _number(facts["budget"])
    if not 0 < delta < 1 or not budget > 0:
        raise _Odd
    run, cohort, claim = _hash(facts["run"]), _hash(facts["cohort"]), _hash(facts["claim"])
    study = _hash(facts["study"]) if "study" in facts else ""
    named, fixed = _text(facts.get("study_name", "")), _constants(facts)
    return Reservation(entry.n, entry.time, run, cohort, kind, delta, budget, claim, study, named, fixed)


def _constants(facts: Mapping[str, Fact]) -> PublicConstants | None:
    if "patients" not in facts:
        return None
    found = PublicConstants(_whole(facts["patients"]), _number(facts["expected_batch"]), _number(facts["clip_norm"]))
    if not (found.patients > 0 and found.expected_batch > 0 and found.clip_norm > 0):
        raise _Odd
    return found


def _committed(reserved: Reservation, entry: JournalEntry) -> Reservation:
    """With the steps done; only who reserved them knows what the claim is the hash of."""
    done, proof = _whole(entry.facts["steps_done"]), _hash(entry.facts["claim"])
    told = hmac.compare_digest(claim_of(proof), reserved.claim)
    if reserved.steps_done is not None or done < 0 or not told:
        raise _Odd
    return replace(reserved, steps_done=done, told_on=(entry.n, entry.time))


def claim_of(proof: str) -> str:
    """SHA-256 (hex) of a reservation's proof (hex)."""
    return hashlib.sha256(bytes.fromhex(proof)).hexdigest()


def _hash(value: Fact) -> str:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise _Odd
    return value


def _text(value: Fact) -> str:
    if not isinstance(value, str):
        raise _Odd
    return value


def _whole(value: Fact) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Odd
    return value


def _number(value: Fact) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _Odd
    return float(value)
