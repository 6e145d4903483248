"""What a coordinator is told when a round fails at a site: one of a few fixed sentences, whatever the engine."""

from __future__ import annotations

from .errors import (
    BudgetSpent,
    ConfigError,
    DataError,
    PolicyRefused,
    RoundOver,
    StorageError,
    TrainingError,
    VerificationFailed,
)

BUDGET_SPENT = "the site's privacy budget is spent"
"""It reserved nothing in that round, so that what it told before is still all that it has spent."""

ROUND_OVER = "the site gave its part in that round's sum before"
"""Of secure aggregation: another attempt at the round is refused there for good."""

POLICY_REFUSED = "the site's policy refused the round"
"""Something there forbids it: a pause or limit of the site's own, or patients who changed; only the site says what."""

# An exception's own text may count patients or name files; these sentences cannot.
_SAYABLE: tuple[tuple[type[BaseException], str], ...] = (
    (BudgetSpent, BUDGET_SPENT),
    (RoundOver, ROUND_OVER),
    (PolicyRefused, POLICY_REFUSED),
    (ConfigError, "the site's configuration does not fit the study"),
    (DataError, "the site's cohort needs mending"),
    (TrainingError, "training stopped on a NaN or a collapse"),
    (StorageError, "the site's disk is full or not writable"),
    (VerificationFailed, "a signature or hash did not hold at the site"),
    (MemoryError, "the site ran out of memory"),
)


def sayable_reason(error: BaseException) -> str:
    """A fixed sentence for what went wrong: all that a coordinator is told of a failure."""
    for kind, sentence in _SAYABLE:
        if isinstance(error, kind):
            return sentence
    return "training failed unexpectedly"
