"""The audit's arithmetic, against closed forms, published tables and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedphantom.common.errors import DataError
from fedphantom.privacy.intervals import auc_interval, epsilon_by_halves, permutation_p_value
from fedphantom.privacy.power import joint_power, power, smallest_detectable_auc
from fedphantom.privacy.statistics import (
    Scores,
    auc,
    clopper_pearson,
    epsilon_lower_bound,
    hanley_mcneil_se,
    holm,
    no_false_alarm_p_value,
    null_p_value,
    null_standard_error,
    pooled_no_false_alarm_p_value,
    tpr_at_fpr,
)

finite = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=15)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(max_examples=60, deadline=None)
@given(member=finite, holdout=finite)
def test_auc_is_mann_whitney_with_ties_half(member: list[float], holdout: list[float]) -> None:
    expected = stats.mannwhitneyu(member, holdout).statistic / (len(member) * len(holdout))
    assert auc(Scores.of(member, holdout)) == pytest.approx(expected)


def test_infinite_scores_are_ordered() -> None:
    assert auc(Scores.of([math.inf, 1.0], [-math.inf, math.inf])) == pytest.approx((0.5 + 1 + 0 + 1) / 4)


BAD_SCORES = {
    "a member's score is not a number": ([math.nan, 1.0], [0.0], None, None),
    "a holdout score is not a number": ([1.0], [math.nan], None, None),
    "no holdout": ([1.0], [], None, None),
    "no site has both sides": ([1.0], [0.0], ["A"], ["B"]),
    "a site too few": ([1.0, 2.0], [0.0], ["A"], ["A"]),
}


@pytest.mark.parametrize("case", BAD_SCORES.values(), ids=BAD_SCORES.keys())
def test_scores_that_cannot_be_compared_are_refused(case) -> None:  # type: ignore[no-untyped-def]  # a table of tuples
    with pytest.raises(DataError):
        Scores.of(*case)


def test_a_difference_between_sites_is_no_leak() -> None:
    # Site B scores 100 higher and holds most members: pooled, that alone looks like a leak.
    member = np.concatenate([rng(1).normal(size=20), rng(2).normal(100, 1, size=80)])
    holdout = np.concatenate([rng(3).normal(size=80), rng(4).normal(100, 1, size=20)])
    sites_m, sites_h = ["A"] * 20 + ["B"] * 80, ["A"] * 80 + ["B"] * 20
    assert auc(Scores.of(member, holdout)) > 0.75
    stratified = Scores.of(member, holdout, sites_m, sites_h)
    assert auc(stratified) == pytest.approx(0.5, abs=0.1)
    assert permutation_p_value(stratified, rng(), 2000) > 0.05


def test_a_site_with_one_side_only_is_left_out() -> None:
    scores = Scores.of([1.0, 9.0], [0.0], ["A", "B"], ["A"])
    assert (scores.n_member, scores.n_holdout, auc(scores)) == (1, 1, 1.0)


# PRIVACY §3.4: n, SE(.5), smallest AUC, max ε_LB of a perfect attack, FPR bound at 0 false positives.
POWER_TABLE = [
    (10, 0.132, 0.80, 0.79, 0.259),
    (20, 0.092, 0.72, 1.59, 0.139),
    (30, 0.075, 0.68, 2.03, 0.095),
    (50, 0.058, 0.64, 2.57, 0.058),
    (100, 0.041, 0.60, 3.28, 0.030),
    (200, 0.029, 0.57, 3.98, 0.015),
    (500, 0.018, 0.55, 4.91, 0.006),
]


@pytest.mark.parametrize(("n", "se", "smallest", "epsilon", "fpr"), POWER_TABLE)
def test_power_is_the_published_table(n: int, se: float, smallest: float, epsilon: float, fpr: float) -> None:
    got = power(n, n, attacks=1, tau=0.6)
    assert got.standard_error == pytest.approx(se, abs=6e-4)
    assert got.smallest_auc == pytest.approx(smallest, abs=6e-3)
    assert got.max_epsilon == pytest.approx(epsilon, abs=6e-3)
    assert got.fpr_bound == pytest.approx(fpr, abs=6e-4)


def test_joint_power_is_the_published_one() -> None:
    assert joint_power(104, 104, 1, 0.60) == pytest.approx(0.8, abs=0.005)
    assert joint_power(103, 103, 1, 0.60) < 0.8
    assert joint_power(413, 413, 1, 0.55) == pytest.approx(0.8, abs=0.005)
    assert [round(joint_power(n, n, k, 0.60), 2) for n in (104, 200) for k in (6, 11)] == [0.27, 0.09, 0.81, 0.68]


def test_the_blind_baseline_spreads_wider_and_costs_power() -> None:
    of_attacks = joint_power(50, 50, 5, 0.65)
    assert of_attacks == pytest.approx(0.38, abs=0.01)
    baseline = joint_power(50, 50, 1, 0.65, spread=1.4)
    assert baseline == pytest.approx(0.58, abs=0.01)
    assert baseline < joint_power(50, 50, 1, 0.65)
    assert power(50, 50, attacks=6, tau=0.65).joint_power == pytest.approx(of_attacks * baseline)


def test_the_isolated_quartile_costs_the_most_power_of_all() -> None:
    without, isolated = power(50, 50, attacks=5, tau=0.65), power(50, 50, attacks=5, tau=0.65, outlier_tau=0.75)
    assert without.joint_power == pytest.approx(0.27, abs=0.01)
    assert isolated.joint_power == pytest.approx((without.joint_power or 0) * joint_power(12, 12, 4, 0.75))
    assert isolated.joint_power == pytest.approx(0.05, abs=0.01)  # 3 of 40 audits passed: docs/experiments.md


def test_sites_count_by_what_their_patients_can_tell_as_van_elteren_weights_them() -> None:
    # 2 members and 2 holdout patients: 2 * 2 / 5; 10 and 20: 10 * 20 / 31.
    small, large = 4 / 5, 200 / 31
    scores = Scores.of(
        [1.0, 1.0, *[0.0] * 10],
        [0.0, 0.0, *[1.0] * 20],
        ["A", "A", *["B"] * 10],
        ["A", "A", *["B"] * 20],
    )
    assert scores.weights.tolist() == pytest.approx([small / (small + large), large / (small + large)])
    assert auc(scores) == pytest.approx(small / (small + large))  # 1 at A, 0 at B


def test_three_patients_cannot_find_even_a_perfect_attack_more_often_than_said() -> None:
    assert smallest_detectable_auc([(1, 1)]) == 1.0


def test_a_perfect_attack_on_fifty_patients_shows_epsilon_257() -> None:
    assert epsilon_lower_bound(50, 50, 0, 50) == pytest.approx(2.57, abs=0.005)


def test_epsilon_uses_the_better_of_both_tails_and_is_never_negative() -> None:
    assert epsilon_lower_bound(50, 50, 40, 50) == pytest.approx(
        math.log((1 - clopper_pearson(40, 50)[1]) / (1 - clopper_pearson(50, 50)[0])), abs=1e-9
    )
    assert epsilon_lower_bound(0, 50, 50, 50) == 0.0
    assert epsilon_lower_bound(25, 50, 25, 50) == 0.0
    assert epsilon_lower_bound(50, 50, 0, 50, delta=0.05) < epsilon_lower_bound(50, 50, 0, 50)


def test_clopper_pearson_is_the_binomial_tail() -> None:
    low, high = clopper_pearson(7, 50)
    assert stats.binom.sf(6, 50, low) == pytest.approx(0.025)
    assert stats.binom.cdf(7, 50, high) == pytest.approx(0.025)
    assert clopper_pearson(0, 10)[0] == 0.0
    assert clopper_pearson(10, 10)[1] == 1.0
    assert clopper_pearson(0, 0) == (0.0, 1.0)


def test_tpr_threshold_lets_exactly_the_allowed_holdout_patients_pass() -> None:
    scores = Scores.of(np.arange(100) + 0.5, np.arange(100.0))
    at_ten = tpr_at_fpr(scores, 0.1)  # threshold 89: holdout 90 … 99 exceed it, members 89.5 … 99.5 do
    assert (at_ten.tpr, at_ten.resolvable) == (0.11, True)
    assert tpr_at_fpr(scores, 0.0).tpr == 0.01
    assert tpr_at_fpr(scores, 0.0).fpr_bound == pytest.approx(1 - 0.05 ** (1 / 100))
    assert tpr_at_fpr(scores, 1.0).tpr == 1.0


def test_the_p_value_of_members_above_every_holdout_patient_is_the_share_of_coins_that_put_them_there() -> None:
    # 3 members and 4 holdout patients; the two highest of all are members: 5 of 35 choices of three hold both.
    scores = Scores.of([9.0, 8.0, 1.0], [7.0, 6.0, 3.0, 2.0])
    assert no_false_alarm_p_value(scores) == pytest.approx(5 / 35)
    assert no_false_alarm_p_value(Scores.of([9.0, 7.0], [7.0, 2.0])) == pytest.approx(2 / 4)  # a tie is not above
    none = no_false_alarm_p_value(Scores.of([0.0], [1.0, 2.0]))
    assert (none, type(none)) == (1.0, float), "a journal takes a whole number for no p-value"


def test_a_site_with_many_members_names_more_of_them_by_chance() -> None:
    # Both of the highest are of site A, where three of four patients are members: 3 of 6 pairs.
    scores = Scores.of([9.0, 8.0, 2.0, 1.0], [7.0, 6.0, 3.0], ["A", "A", "A", "B"], ["A", "B", "B"])
    assert no_false_alarm_p_value(scores) == pytest.approx(3 / 6)


@pytest.mark.parametrize("threshold", [0.01, 0.05, 0.3])
def test_members_above_every_holdout_patient_are_called_a_find_by_chance_no_more_often_than_asked(
    threshold: float,
) -> None:
    draw, runs = rng(11), 4000
    sites = ["A"] * 10 + ["B"] * 20
    low = sum(
        no_false_alarm_p_value(Scores.of(draw.normal(size=30), draw.normal(size=30), sites, sites[::-1])) <= threshold
        for _ in range(runs)
    )
    assert low / runs <= threshold + 3 * math.sqrt(threshold / runs)
    assert low > 0


def test_the_bound_of_the_rate_without_false_alarm_alone_would_accuse_too_often() -> None:
    """Why it fails nothing by itself: eleven attacks would accuse every sixth generator that knows nobody."""
    draw, runs = rng(12), 1500
    beyond = sum(
        tpr_at_fpr(Scores.of(draw.normal(size=104), draw.normal(size=104)), 0).ci[0] > 0.02 for _ in range(runs)
    )
    assert 0.01 < beyond / runs < 0.03


def test_the_p_value_over_sites_counts_members_above_their_own_holdout() -> None:
    one = Scores.of([9.0, 8.0, 1.0], [7.0, 6.0, 3.0, 2.0])
    assert pooled_no_false_alarm_p_value(2, [(3, 4)]) == pytest.approx(no_false_alarm_p_value(one))
    # One member and one holdout patient at each of two sites: both members on top of theirs in one of four throws.
    assert [pooled_no_false_alarm_p_value(k, [(1, 1), (1, 1)]) for k in (0, 1, 2)] == pytest.approx([1, 0.75, 0.25])


@pytest.mark.parametrize(("n", "fpr", "resolvable"), [(99, 0.01, False), (100, 0.01, True), (999, 0.001, False)])
def test_a_false_positive_rate_finer_than_the_holdout_is_not_resolvable(n: int, fpr: float, resolvable: bool) -> None:
    assert tpr_at_fpr(Scores.of(np.zeros(5), np.arange(float(n))), fpr).resolvable is resolvable


def test_holm_steps_down_and_stops() -> None:
    assert holm([0.01, 0.04, 0.03]) == (True, False, False)
    assert holm([0.01, 0.02, 0.04]) == (True, True, True)
    assert holm([0.02, 0.02, 0.02]) == (False, False, False)
    assert holm([]) == ()


def test_the_bootstrap_interval_covers_as_often_as_it_says() -> None:
    inside, under_upper, over_lower, runs = 0, 0, 0, 300
    truth = float(stats.norm.cdf(0.5 / math.sqrt(2)))
    for seed in range(runs):
        draw = rng(seed)
        got = auc_interval(Scores.of(draw.normal(0.5, 1, 30), draw.normal(size=30)), draw, 500)
        inside += got.ci[0] <= truth <= got.ci[1]
        under_upper += truth <= got.upper95
        over_lower += got.lower95 <= truth
    slack = 3 * math.sqrt(0.05 * 0.95 / runs)
    assert inside / runs >= 0.95 - 0.015 - slack
    assert under_upper / runs >= 0.95 - 0.015 - slack
    assert over_lower / runs >= 0.95 - 0.015 - slack
    assert inside < runs


def test_the_bootstrap_interval_is_as_wide_as_theory_says() -> None:
    scores = Scores.of(rng(1).normal(size=200), rng(2).normal(size=200), ["A", "B"] * 100, ["B", "A"] * 100)
    got = auc_interval(scores, rng(3))
    assert got.method == "BCa"
    assert (got.ci[1] - got.ci[0]) / (2 * 1.96) == pytest.approx(hanley_mcneil_se(0.5, 200, 200), rel=0.12)
    assert got.ci[0] < got.lower95 < got.auc < got.upper95 < got.ci[1]
    assert auc_interval(scores, rng(3)) == got


def test_the_bootstrap_interval_of_skewed_scores_is_that_of_scipy() -> None:
    # A few members far below the others: the acceleration is -.11, and its sign moves every bound by .03 to .11.
    member, holdout = np.array([2.0, 30, 33, *range(35, 42)]), np.arange(40) + 0.5

    def area(one: np.ndarray, other: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray((one[..., :, None] > other[..., None, :]).mean(axis=(-2, -1)))

    def reference(level: float) -> tuple[float, float]:
        found = stats.bootstrap(
            (member, holdout), area, method="BCa", confidence_level=level, n_resamples=6000, batch=500, rng=rng(1)
        )
        return found.confidence_interval.low, found.confidence_interval.high

    got = auc_interval(Scores.of(member, holdout), rng(3), 10_000)
    for low, high, level in ((*got.ci, 0.95), (got.lower95, got.upper95, 0.9)):
        expected = reference(level)
        assert low == pytest.approx(expected[0], abs=0.04)
        assert high == pytest.approx(expected[1], abs=0.012)


def test_perfect_separation_never_claims_certainty() -> None:
    got = auc_interval(Scores.of(np.arange(20) + 100.0, np.arange(30.0)), rng())
    assert (got.auc, got.upper95, got.method) == (1.0, 1.0, "exact")
    assert got.lower95 == pytest.approx(0.05 ** (1 / 20))
    assert got.ci[0] == pytest.approx(0.025 ** (1 / 20))


def test_perfect_inversion_is_bounded_from_above_alike() -> None:
    got = auc_interval(Scores.of(np.arange(20.0), np.arange(30) + 100.0), rng())
    assert (got.auc, got.lower95) == (0.0, 0.0)
    assert got.upper95 == pytest.approx(1 - 0.05 ** (1 / 20))


def test_an_attack_that_says_the_same_of_everybody_proves_nothing() -> None:
    got = auc_interval(Scores.of(np.zeros(50), np.zeros(50)), rng())
    assert got.auc == 0.5
    assert got.upper95 == pytest.approx(0.5 + 1.645 * 0.058, abs=2e-3)
    assert permutation_p_value(Scores.of(np.zeros(50), np.zeros(50)), rng(), 500) == 1.0


def test_one_pair_out_of_order_is_not_worth_more_than_perfect_separation() -> None:
    member = np.arange(8) + 7.5  # all but one pair in order: holdout 8 against member 7.5
    got = auc_interval(Scores.of(member, [*range(7), 8.0]), rng())
    assert 0.9 < got.auc < 1
    assert got.lower95 <= 0.05 ** (1 / 8)


def test_one_patient_a_side_knows_nearly_nothing() -> None:
    got = auc_interval(Scores.of([2.0], [1.0]), rng())
    assert got.lower95 == pytest.approx(0.05)


def test_the_permutation_p_value_is_the_exact_rank_test() -> None:
    draw = rng(5)
    member, holdout = draw.normal(0.6, 1, 25), draw.normal(size=25)
    exact = stats.mannwhitneyu(member, holdout, alternative="greater", method="exact").pvalue
    assert permutation_p_value(Scores.of(member, holdout), rng(6)) == pytest.approx(exact, abs=0.006)


def test_the_permutation_p_value_is_never_zero() -> None:
    assert permutation_p_value(Scores.of(np.arange(30) + 99.0, np.arange(30.0)), rng(), 999) == pytest.approx(0.001)


def test_a_p_value_too_small_for_the_permutations_is_told_by_more_of_them() -> None:
    perfect = Scores.of(np.arange(30) + 99.0, np.arange(30.0))
    assert permutation_p_value(perfect, rng(), 999, finest=39_999) == pytest.approx(1 / 40_000)
    draw = rng(5)
    vague = Scores.of(draw.normal(0.2, 1, 25), draw.normal(size=25))
    assert permutation_p_value(vague, rng(6), finest=200_000) == permutation_p_value(vague, rng(6))


def test_p_values_by_more_permutations_are_no_more_often_small_than_asked() -> None:
    # Two looks of which the smaller counted would be called small nearly twice as often.
    runs, threshold = 3000, 0.02
    small = 0
    for seed in range(runs):
        draw = rng(seed)
        scores = Scores.of(draw.normal(size=8), draw.normal(size=8))
        small += permutation_p_value(scores, draw, permutations=99, finest=199) <= threshold
    assert small / runs <= threshold + 2 * math.sqrt(threshold / runs)


def test_the_null_p_value_agrees_with_the_rank_test() -> None:
    draw = rng(7)
    member, holdout = draw.normal(0.4, 1, 40), draw.normal(size=40)
    scores = Scores.of(member, holdout)
    reference = stats.mannwhitneyu(member, holdout, method="asymptotic", use_continuity=False).pvalue
    assert null_p_value(scores) == pytest.approx(reference, rel=0.02)
    split = Scores.of(member, holdout, ["A", "B"] * 20, ["A", "B"] * 20)
    assert null_standard_error(split) == pytest.approx(hanley_mcneil_se(0.5, 20, 20) / math.sqrt(2))


def test_null_scores_are_flagged_no_more_often_than_five_percent() -> None:
    runs, attacks, flagged = 500, 3, 0
    for seed in range(runs):
        draw = rng(seed)
        p_values = [
            permutation_p_value(Scores.of(draw.normal(size=20), draw.normal(size=20)), draw, 399)
            for _ in range(attacks)
        ]
        flagged += any(holm(p_values))
    assert flagged / runs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)
    assert flagged > 0


def test_epsilon_by_halves_is_judged_on_patients_the_threshold_never_saw() -> None:
    perfect = epsilon_by_halves(Scores.of(rng(1).normal(100, 1, 100), rng(2).normal(size=100)), rng(3))
    assert perfect.epsilon == pytest.approx(epsilon_lower_bound(50, 50, 0, 50))
    assert (perfect.advantage, perfect.n_member, perfect.n_holdout) == (1.0, 50, 50)
    advantages = [
        epsilon_by_halves(Scores.of(rng(s).normal(size=20), rng(s + 999).normal(size=20)), rng(s)).advantage
        for s in range(200)
    ]
    assert np.mean(advantages) == pytest.approx(0.0, abs=0.04)  # chosen and judged on one half: about 0.3


@pytest.mark.parametrize("n", [1, 2, 3])
def test_epsilon_by_halves_of_a_handful_is_nearly_nothing(n: int) -> None:
    assert epsilon_by_halves(Scores.of(np.ones(n), np.zeros(n)), rng()).epsilon == 0.0
