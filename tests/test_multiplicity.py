"""Many attacks and many audits of one holdout: what is a find, and how sure a claim has to be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedphantom.privacy.evidence import ATTACKS, TESTS
from fedphantom.privacy.intervals import auc_interval
from fedphantom.privacy.multiplicity import (
    HYPOTHESES,
    claim_confidence,
    finds,
    finest_permutations,
    p_values,
    rejecting,
)
from fedphantom.privacy.statistics import Scores, auc, holm

shares = st.floats(1e-5, 1.0)
audits = st.lists(st.none() | st.dictionaries(st.sampled_from(["A1", "A3", "A3/outliers"]), shares), max_size=8)


@dataclass(frozen=True)
class Row:
    """An attack's p-values."""

    id: str
    threat_model: str
    p_value: float
    no_false_alarm_p_value: float | None


@given(p=st.lists(shares, min_size=1, max_size=4), earlier=audits)
def test_further_audits_never_add_a_find_and_the_first_is_judged_by_itself(
    p: list[float], earlier: list[dict[str, float] | None]
) -> None:
    alone, over_all = holm(p), finds(p, earlier)
    assert finds(p, []) == alone
    assert all(flag or not found for flag, found in zip(alone, over_all, strict=True))


def test_holm_spans_the_tests_of_every_audit() -> None:
    # Four tests before and two now: six in all, so that .05 / 6 decides.
    before = {"A1": 0.3, "A3": 0.6, "A1/outliers": 0.9, "A3/outliers": 0.2}
    assert finds([0.05 / 6, 0.5], [before]) == (True, False)
    assert finds([0.05 / 6 + 1e-9, 0.5], [before]) == (False, False)
    # Not .05 / 2 for the audit and half of that for the first test.
    assert finds([0.05 / 4, 0.5], [before]) == (False, False)


def test_an_audit_that_was_broken_off_counts_as_a_whole_one_that_found_nothing() -> None:
    limit = 0.05 / (1 + HYPOTHESES)
    assert len(TESTS) + len(ATTACKS) == HYPOTHESES
    assert finds([limit], [None]) == (True,)
    assert finds([limit + 1e-9], [None]) == (False,)
    assert finds([limit], [None, None]) == (False,)


@pytest.mark.parametrize("audits", [1, 18, 60, 200])
def test_a_perfect_attack_is_found_however_many_audits_went_before(audits: int) -> None:
    perfect = 1 / (1 + finest_permutations(audits))
    assert finds([perfect, *[0.5] * (HYPOTHESES - 1)], [None] * (audits - 1))[0]
    assert finest_permutations(audits) <= 200_000, "nor may it take for ever"


def test_an_attack_rejects_by_its_auc_or_by_the_members_that_it_names_without_a_false_alarm() -> None:
    def row(name: str, auc: float, named: float | None) -> Row:
        return Row(name, "S", auc, named)

    def flags(*rows: Row, earlier: tuple[None, ...] = ()) -> dict[str, tuple[bool, bool]]:
        return rejecting(rows, earlier)

    assert flags(row("A3", 0.04, 0.5)) == {"A3": (False, False)}, "of two tests each has half"
    assert flags(row("A3", 0.025, 0.5)) == {"A3": (True, True)}
    assert flags(row("A3", 0.5, 0.025)) == {"A3": (True, True)}
    assert flags(row("A3", 0.5, 0.025), earlier=(None,)) == {"A3": (False, True)}
    assert flags(row("A3/outliers", 0.05, None)) == {"A3/outliers": (True, True)}, "one test, of the AUC"
    assert flags(row("A3", 0.03, None)) == {"A3": (False, False)}, "not told: it counts, and finds nothing"
    assert p_values([row("A3", 0.1, 0.2), Row("B0", "none", 0.3, None)]) == {"A3": 0.1, "A3/no-false-alarm": 0.2}


def test_a_find_of_an_earlier_audit_is_taken_out_of_the_way_as_holm_does() -> None:
    assert finds([0.05], [{"A1": 1e-4, "A3": 2e-4}]) == (True,)
    assert finds([0.05], [{"A1": 1e-4, "A3": 0.9}]) == (False,)


def test_ten_audits_of_generators_that_leak_nothing_find_something_by_chance_in_five_percent() -> None:
    draw = np.random.default_rng(5)
    found = 0
    for _ in range(2000):
        *earlier, last = draw.random((10, 4))
        everything = finds([*last, *np.concatenate(earlier)], [])
        assert finds(last.tolist(), [dict(zip("abcd", p, strict=True)) for p in earlier]) == everything[:4]
        found += any(everything)
    assert found / 2000 <= 0.05 + 2 * (0.05 * 0.95 / 2000) ** 0.5


def test_audit_k_claims_with_a_kth_of_five_percent() -> None:
    assert [claim_confidence(k) for k in (1, 2, 5, 50)] == pytest.approx([0.95, 0.975, 0.99, 0.999])


def test_a_surer_upper_bound_is_wider_and_leaves_all_else_as_it_is() -> None:
    draw = np.random.default_rng(1)
    scores = Scores.of(draw.normal(0.2, 1, 50), draw.normal(0, 1, 50))
    first, second, fifth, thirtieth = (
        auc_interval(scores, np.random.default_rng(7), claim=claim_confidence(k)) for k in (1, 2, 5, 30)
    )
    assert first.upper95 < second.upper95 < fifth.upper95 < thirtieth.upper95 < 1
    assert second.upper95 == pytest.approx(second.ci[1], abs=1e-12)
    assert (first.auc, first.ci, first.lower95) == (second.auc, second.ci, second.lower95)
    # As far beyond the estimate as the normal distribution says, give or take a quarter.
    assert (thirtieth.upper95 - first.auc) / (first.upper95 - first.auc) == pytest.approx(2.94 / 1.645, rel=0.25)


@pytest.mark.parametrize("shift", [-100.0, 100.0], ids=["all below", "all above"])
def test_a_surer_bound_of_perfect_order_is_its_closed_form(shift: float) -> None:
    scores = Scores.of(np.arange(12.0) + shift, np.arange(12.0))
    bound = auc_interval(scores, np.random.default_rng(0), claim=0.99).upper95
    assert auc(scores) == (shift > 0)
    assert bound == pytest.approx(1.0 if shift > 0 else 1 - 0.01 ** (1 / 12))


def test_a_surer_bound_covers_as_often_as_it_says() -> None:
    draw = np.random.default_rng(11)
    covered = 0
    for _ in range(100):
        scores = Scores.of(draw.normal(0, 1, 40), draw.normal(0, 1, 40))
        covered += auc_interval(scores, draw, claim=0.99).upper95 >= 0.5
    assert covered >= 97
