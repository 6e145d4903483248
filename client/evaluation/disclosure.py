"""What may be told of figures computed on real patients: aggregates over enough of them, and only where they may go."""

from __future__ import annotations

from ...common.errors import DataError
from ...privacy.evidence import FEWEST_AVERAGED

NOTICE = (
    "Computed on real patients: these figures leave the site only inside the signed report, and in a study with"
    " differential privacy not at all, or inside its claim."
)
"""DESIGN §4.4; stands in every such file."""


def check_enough(number: int, what: str) -> None:
    """Raise DataError where there are fewer than :data:`FEWEST_AVERAGED`; ``what`` is a plural."""
    if number < FEWEST_AVERAGED:
        raise DataError(
            f"{number} {what}",
            expected=f"{FEWEST_AVERAGED} or more: a mean over fewer is nearly a figure of one of them",
            remedy="Evaluate on more; a study's roles say how many patients are kept for test.",
        )
