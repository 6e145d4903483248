"""What sites' ledgers say of a promise, in words and rows for the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...common.counted import counted
from ...common.study import Study
from ..dp.accounting import told
from ..dp.ledger_excerpt import ExcerptLine, LedgerExcerpt


@dataclass(frozen=True)
class LedgerTable:
    """One site's.

    Attributes:
        site: Its name.
        head: Hash of the ledger's last line.
        totals: What the study reserved and spent, in a sentence.
        delta: At which ε after each row is told; None where there is no row.
        rows: Line, time, what it says, q, σ, ε after it; none of an excerpt that is shared.
        gap: Between which rows lines were left out, in words; empty where all are shown.
    """

    site: str
    head: str
    totals: str
    delta: float | None
    rows: tuple[tuple[str, ...], ...]
    gap: str


def ledger_tables(excerpts: Sequence[LedgerExcerpt], study: Study) -> list[LedgerTable]:
    """One a site.

    Args:
        excerpts: As the rendition may show them; none where the study promises nothing.
        study: At whose δ its total is told.
    """
    promise = study.privacy.promise
    if promise is None:
        return []
    return [
        LedgerTable(
            one.site,
            one.head,
            f"This study reserved {counted(one.reserved, 'noised step')}; {one.spent.steps} of them count:"
            f" {told(one.spent.epsilon)} at δ = {promise.delta:g}.",
            one.delta,
            tuple(map(_row, one.lines)),
            f"{counted(one.left_out, 'line')} between line {one.lines[len(one.lines) // 2 - 1].line} and line"
            f" {one.lines[len(one.lines) // 2].line} left out. "
            if one.left_out
            else "",
        )
        for one in excerpts
    ]


def _row(line: ExcerptLine) -> tuple[str, ...]:
    if line.what == "reserved":
        says = f"{counted(line.steps, 'step')} reserved"
    else:
        says = f"{line.steps} of the steps reserved in line {line.of_line} done"
    return (
        str(line.line),
        line.time,
        f"{says}, {'this study' if line.this_study else 'another study'}",
        f"{line.sampling_rate:.3g}",
        f"{line.noise_multiplier:.3g}",
        told(math.inf if line.epsilon is None else line.epsilon).removeprefix("ε = "),
    )
