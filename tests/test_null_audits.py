"""Audits of generators that know nobody: how often they accuse, and how often a large one passes (PRIVACY §8, T11)."""

from __future__ import annotations

import math

import pytest
from null_audits import null_audits

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_an_audit_accuses_a_generator_that_knows_nobody_no_more_often_than_it_says() -> None:
    """Five hundred of them: docs/experiments.md."""
    found = list(null_audits(range(24), 30))
    most = 0.05 + 2 * math.sqrt(0.05 * 0.95 / len(found))
    assert sum(audit.accuses for audit in found) <= most * len(found)
    assert {audit.outcome for audit in found} <= {"INCONCLUSIVE", "INVALID", "FAIL"}


def test_two_hundred_patients_a_side_are_enough_to_pass() -> None:
    found = list(null_audits(range(6), 200))
    assert sum(audit.outcome == "PASS" for audit in found) >= 0.8 * len(found)
