"""Coins guessed from one run: the bound in closed form, and guesses that know nothing of the coins."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedphantom.privacy.attacks.coin_guesses import combined, right_guesses
from fedphantom.privacy.attacks.interface import AttackScores
from fedphantom.privacy.audit.judging import judge, with_outliers
from fedphantom.privacy.one_run import one_run_epsilon, one_run_p_value


@pytest.mark.parametrize(("r", "epsilon"), [(10, 1.05), (20, 1.82), (50, 2.78), (100, 3.49), (200, 4.19), (500, 5.11)])
def test_all_guesses_right_prove_what_the_table_says(r: int, epsilon: float) -> None:
    assert one_run_epsilon(r, r, 2 * r) == pytest.approx(epsilon, abs=0.005)
    assert one_run_epsilon(r, r, 2 * r) == pytest.approx(math.log(0.05 ** (1 / r) / (1 - 0.05 ** (1 / r))), abs=1e-5)


@pytest.mark.parametrize(("r", "epsilon"), [(50, 2.71), (100, 3.35), (200, 3.91)])
def test_a_delta_lowers_the_bound_to_what_the_table_says(r: int, epsilon: float) -> None:
    assert one_run_epsilon(r, r, r, delta=5e-4) == pytest.approx(epsilon, abs=0.005)


def by_hand(v: int, r: int, m: int, epsilon: float, delta: float) -> float:
    share = math.exp(epsilon) / (1 + math.exp(epsilon))
    pmf = [math.comb(r, k) * share**k * (1 - share) ** (r - k) for k in range(r + 1)]
    worst = max((sum(pmf[v - i : v]) / i for i in range(1, v + 1)), default=0.0)
    return min(1.0, sum(pmf[v:]) + 2 * m * delta * worst)


guesses = st.integers(1, 30).flatmap(lambda r: st.tuples(st.integers(0, r), st.just(r), st.integers(r, 60)))


@settings(deadline=None)
@given(made=guesses, epsilon=st.floats(0, 4), delta=st.sampled_from([0.0, 1e-4, 1e-2]))
def test_the_p_value_is_the_formula_s(made: tuple[int, int, int], epsilon: float, delta: float) -> None:
    v, r, m = made
    assert one_run_p_value(v, r, m, epsilon, delta) == pytest.approx(by_hand(v, r, m, epsilon, delta), abs=1e-9)


@settings(deadline=None)
@given(made=guesses, delta=st.sampled_from([0.0, 1e-4]))
def test_the_bound_is_where_the_p_value_crosses_five_percent(made: tuple[int, int, int], delta: float) -> None:
    v, r, m = made
    epsilon = one_run_epsilon(v, r, m, delta)
    if epsilon == 0:
        assert one_run_p_value(v, r, m, 0.0, delta) > 0.05
    else:
        assert one_run_p_value(v, r, m, epsilon, delta) <= 0.05 < one_run_p_value(v, r, m, epsilon + 1e-5, delta)


@settings(deadline=None)
@given(made=guesses)
def test_more_right_guesses_prove_no_less_and_a_larger_delta_no_more(made: tuple[int, int, int]) -> None:
    v, r, m = made
    assert one_run_epsilon(max(0, v - 1), r, m) <= one_run_epsilon(v, r, m)
    assert one_run_epsilon(v, r, m, delta=1e-3) <= one_run_epsilon(v, r, m) + 1e-5


def scores(name: str, values: np.ndarray, coins: np.ndarray, sites: tuple[str, ...] | None = None) -> AttackScores:
    people = tuple(f"p{i:03d}" for i in range(len(coins)))
    return AttackScores(name, "S", people, sites or ("A",) * len(coins), coins.astype(bool), values.astype(float))


def test_attacks_count_alike_whatever_their_scale_and_site() -> None:
    coins = np.array([1, 0, 1, 0, 1, 0, 1, 0])
    one = scores("A3", np.array([9, 1, 8, 2, 700, 100, 800, 200]), coins, tuple("AAAABBBB"))
    other = scores("A4", np.array([4, 3, 2, 1, 4, 3, 2, 1]) * 1e-9, coins, one.sites)
    both = combined("A9", [one, other])
    assert both.guesses == 4
    rank = np.array([[4, 1, 3, 2, 3, 1, 4, 2], [4, 3, 2, 1, 4, 3, 2, 1]]) / 4 - 0.125
    assert both.score == pytest.approx(rank.mean(axis=0))


def test_the_upper_half_of_the_guesses_says_member_and_the_lower_holdout() -> None:
    coins = np.array([0, 0, 1, 0, 1, 0, 1, 1])
    attack = replace(scores("A9", np.arange(8), coins), guesses=4)
    assert right_guesses(attack) == 4
    assert right_guesses(replace(attack, guesses=6)) == 4  # wrong about the third and the sixth
    assert right_guesses(replace(attack, score=-attack.score)) == 0
    assert right_guesses(replace(attack, score=np.zeros(8))) == 4  # ties go by the order of the patients


def test_fair_coins_are_guessed_right_as_often_as_chance_has_it() -> None:
    """The bound's only assumption: sides of any number, attacks that go together, two sites."""
    draw = np.random.default_rng(5)
    p_values, epsilons = [], []
    for _ in range(400):
        coins, signal = draw.integers(0, 2, 60), draw.normal(size=60)
        sites = tuple("AB"[i % 3 > 0] for i in range(60))
        tried = [scores(f"A{k}", signal + draw.normal(size=60), coins, sites) for k in (3, 4, 5)]
        attack = combined("A9", tried)
        p_values.append(one_run_p_value(right_guesses(attack), attack.guesses, 60))
        epsilons.append(one_run_epsilon(right_guesses(attack), attack.guesses, 60))
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5
    assert np.mean(np.array(epsilons) > 0) <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5
    assert stats.binomtest(int(np.sum(np.array(p_values) < 0.5)), 400).pvalue > 1e-4


def test_an_audit_reads_p_and_epsilon_off_the_guesses_and_of_no_quartile() -> None:
    coins = np.arange(200) % 2
    attack = combined("A9", [scores("A3", coins + np.random.default_rng(0).normal(0, 0.01, 200), coins)])
    judged = judge(attack, 1, delta=0.0)
    assert judged.eps_lower_bound == pytest.approx(3.49, abs=0.005)
    assert judged.p_value == pytest.approx(2.0**-100)
    assert judge(attack, 1, delta=5e-4).eps_lower_bound < judged.eps_lower_bound
    whole, too_small = with_outliers([attack, scores("A3", attack.score, coins)], attack.patients[:40])
    assert ([one.id for one in whole], too_small) == (["A9", "A3", "A3/outliers"], ())
    assert attack.of(attack.patients[:40]).guesses == 0
