"""What may be told of figures computed on real patients: aggregates over enough of them, and only where they may go."""

from __future__ import annotations

from ...common.errors import DataError

NOTICE = (
    "Computed on real patients: these figures leave the site only inside the signed report, and in a study with"
    " differential privacy not at all, or inside its claim."
)
"""DESIGN §4.4; stands in every such file."""

FEWEST = 5
"""A mean over fewer is nearly a figure of one patient."""


def check_enough(number: int, what: str) -> None:
    """Raise DataError where there are fewer than :data:`FEWEST`; ``what`` is a plural."""
    if number < FEWEST:
        raise DataError(
            f"{number} {what}",
            expected=f"{FEWEST} or more: a mean over fewer is nearly a figure of one of them",
            remedy="Evaluate on more; a study's roles say how many patients are kept for test.",
        )
