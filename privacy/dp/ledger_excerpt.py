"""What a site's ledger says of a study, line by line with ε after each, as a report shows it: no patient, no mark.

In full it is for the site. What may be shared of it are the study's totals, which the generator's statement is made of,
and the hash of the ledger's last line: whoever has it can tell later whether the ledger was the same then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ...common.cohorts.roles import load_roles
from ...common.site_folder import SiteFolder
from ...common.study import Study
from .accounting import epsilon
from .ledger import Ledger
from .run_spent import run_name, spent_on_study
from .spending import Spending
from .statement import Spent

MOST_LINES = 40
"""Lines shown at most: the first half of them and the last, where there are more."""


@dataclass(frozen=True)
class ExcerptLine:
    """One line of a ledger.

    Attributes:
        line: Its number.
        time: UTC, ISO 8601, seconds.
        what: Whether steps were reserved, or it was told how many of them were done.
        of_line: Number of the reservation's line.
        steps: As many.
        sampling_rate: q.
        noise_multiplier: σ.
        this_study: Whether they are the study's, in whatever run folder; another's count against the same patients'
            budget.
        epsilon: Of the patient for whom it is most, with everything that the ledger knew then, of every run; None
            beyond any figure.
    """

    line: int
    time: str
    what: Literal["reserved", "done"]
    of_line: int
    steps: int
    sampling_rate: float
    noise_multiplier: float
    this_study: bool
    epsilon: float | None


@dataclass(frozen=True)
class LedgerExcerpt:
    """Of one site.

    Attributes:
        site: Its name.
        head: SHA-256 (hex) of the ledger's last line.
        reserved: Steps that the study reserved, in this run and in others of it.
        spent: What of them counts for the patient for whom it is most, and its ε at the promise's δ.
        delta: At which ``epsilon`` of every line is told; None where no line is.
        lines: See :data:`MOST_LINES`; none of a shared excerpt.
        left_out: How many more there are between.
    """

    site: str
    head: str
    reserved: int
    spent: Spent
    delta: float | None = None
    lines: tuple[ExcerptLine, ...] = ()
    left_out: int = 0

    def shareable(self) -> LedgerExcerpt:
        """Totals and the last line's hash."""
        return replace(self, delta=None, lines=(), left_out=0)


def ledger_excerpts(folders: Sequence[SiteFolder], study: Study) -> tuple[LedgerExcerpt, ...]:
    """Of every site whose folder is at hand, in their order; none where the study promises nothing.

    Raises:
        VerificationFailed: a ledger is missing, damaged or not the one that its site's journal names.
    """
    promise = study.privacy.promise
    if promise is None:
        return ()
    return tuple(_excerpt(folder, study, promise.delta) for folder in folders)


def _excerpt(folder: SiteFolder, study: Study, delta: float) -> LedgerExcerpt:
    spending = Ledger(folder.ledger, folder.journal).spending()
    run = run_name(study, load_roles(folder.coins).cohort_digest)
    own = spending.of_study(study.digest(), run).reservations
    lines = sorted(
        [(one.line, one) for one in spending.reservations]
        + [(one.told_on[0], one) for one in spending.reservations if one.told_on],
        key=lambda pair: pair[0],
    )
    half = MOST_LINES // 2
    shown = lines if len(lines) <= MOST_LINES else lines[:half] + lines[-half:]
    strictest = spending.delta(delta)
    return LedgerExcerpt(
        folder.name,
        spending.head,
        sum(one.mechanism.steps for one in own),
        spent_on_study(spending, study, run),
        strictest,
        tuple(
            ExcerptLine(
                line,
                one.time if line == one.line or one.told_on is None else one.told_on[1],
                "reserved" if line == one.line else "done",
                one.line,
                one.mechanism.steps if line == one.line else one.steps_counted,
                one.mechanism.sampling_rate,
                one.mechanism.noise_multiplier,
                one in own,
                _then(spending, line, strictest),
            )
            for line, one in shown
        ),
        len(lines) - len(shown),
    )


def _then(spending: Spending, line: int, delta: float) -> float | None:
    found = epsilon(spending.as_of(line).dearest(delta), delta)
    return found if math.isfinite(found) else None
