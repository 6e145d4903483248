"""A site with a journal and a ledger, and patients of whom only names and digests are known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from fedphantom.common.journal import Journal
from fedphantom.privacy.dp.accounting import Mechanism, epsilon, most_steps
from fedphantom.privacy.dp.ledger import Ledger, NoisedRun
from fedphantom.privacy.dp.limits import Budget
from fedphantom.privacy.dp.persons import Held


def run_named(name: str, study: str | None = None) -> NoisedRun:
    """A run of a study of its own, unless another is named."""
    return NoisedRun(name, study or name, clip_norm=1.0)


RUN, OTHER_RUN = run_named("a" * 64), run_named("b" * 64)
DELTA = 0.005
SIGMA = 20.0
"""With every patient in every step: cheap to account for."""


def steps(number: int) -> Mechanism:
    return Mechanism(1.0, SIGMA, number)


def cost(number: int, delta: float = DELTA) -> float:
    return epsilon([steps(number)] if number else [], delta)


def fit(budget: float, delta: float = DELTA) -> int:
    """How many steps the budget is worth."""
    return most_steps(budget, delta, steps(10_000))


def scan(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def people(names: Iterable[str]) -> dict[str, Held]:
    """Each with one scan that is theirs whatever they are called: lower and upper case have the same."""
    return {f"patient-{name}": Held([scan(name.lower())]) for name in names}


def ledger_in(folder: Path) -> Ledger:
    journal = Journal(folder / "site" / "journal.jsonl")
    journal.begin()
    return Ledger(folder / "ledger", journal.path)


def counted(ledger: Ledger, delta: float = DELTA) -> int:
    """Steps of the dearest patient, as the ledger has them."""
    return sum(part.steps for part in ledger.spending().dearest(delta))


BUDGET = Budget(3.0, DELTA)
UNLIMITED = Budget(90.0, DELTA)
