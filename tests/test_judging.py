"""An attack's figures: how sure its bounds are, how wide the blind baseline's, and when strangers are told apart."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fedphantom.privacy.attacks.interface import AttackScores
from fedphantom.privacy.audit.controls import strangers_told
from fedphantom.privacy.audit.judging import judge, judge_blind
from fedphantom.privacy.statistics import null_p_value, null_standard_error

PATIENTS = 60


def scores(id: str = "A3", shift: float = 0.3, seed: int = 1) -> AttackScores:
    """Thirty members, who score higher by ``shift`` standard deviations, and thirty holdout patients."""
    member = np.arange(PATIENTS) < PATIENTS // 2
    score = np.random.default_rng(seed).normal(0, 1, PATIENTS) + shift * member
    names = tuple(f"p{i:02d}" for i in range(PATIENTS))
    return AttackScores(id, "S", names, ("A",) * PATIENTS, member, score)


def test_a_surer_claim_moves_the_upper_bound_alone() -> None:
    first, tenth = judge(scores(), 0, 0.01), judge(scores(), 0, 0.01, audit_number=10)
    assert tenth.upper95 > first.upper95 + 0.02
    assert (*tenth.auc_ci, tenth.lower95) == pytest.approx((*first.auc_ci, first.lower95), abs=0.005)
    assert tenth.p_value == pytest.approx(first.p_value, abs=0.005)


def test_a_larger_delta_proves_less() -> None:
    leak = scores(shift=5.0)
    assert judge(leak, 0, 0.0).eps_lower_bound > judge(leak, 0, 0.2).eps_lower_bound > 0


def null(times: float, attack: AttackScores) -> NDArray[np.float64]:
    """AUCs that spread so many times as wide as Mann and Whitney's formula says."""
    draw = np.random.default_rng(2).normal(0, 1, 400)
    return 0.5 + times * null_standard_error(attack.scores()) * (draw - draw.mean()) / draw.std()


@pytest.mark.parametrize(("times", "factor"), [(1.4, 1.4), (2.0, 2.0), (1.0, 1.0), (0.5, 1.0)])
def test_the_blind_baselines_bounds_are_as_much_wider_as_its_null_and_never_narrower(
    times: float, factor: float
) -> None:
    attack = scores("B0", shift=0.1)
    plain, blind = judge(attack, 0, 0.01), judge_blind(attack, null(times, attack), 0, 0.01)
    for narrow, wide in (
        (plain.auc_ci[0], blind.auc_ci[0]),
        (plain.auc_ci[1], blind.auc_ci[1]),
        (plain.lower95, blind.lower95),
        (plain.upper95, blind.upper95),
    ):
        assert wide - plain.auc == pytest.approx(factor * (narrow - plain.auc))
    assert blind.auc == plain.auc


def test_the_blind_baselines_p_value_is_its_rank_among_shuffled_coins_and_its_bounds_are_probabilities() -> None:
    attack = scores("B0", shift=1.5)
    shuffled = np.r_[np.full(97, 0.5), np.ones(2)]  # two as high as any
    assert judge_blind(attack, shuffled, 0, 0.01).p_value == pytest.approx(3 / 100)
    wide = judge_blind(attack, null(20.0, attack), 0, 0.01)
    assert (wide.auc_ci, wide.lower95, wide.upper95) == ((0.0, 1.0), 0.0, 1.0)


def test_strangers_are_told_only_where_holm_says_so_over_all_seeds_and_attacks() -> None:
    def found(*shifts: float) -> tuple[AttackScores, ...]:
        return tuple(scores(f"A{i}", shift, seed=10 + i) for i, shift in enumerate(shifts))

    one = scores("A1", 0.85, seed=11)
    p_value = null_p_value(one.scores())
    assert 0.05 / 9 < p_value < 0.05, "a find by itself, none among nine"
    alone, _ = strangers_told({1: (one,)})
    assert alone is not None
    assert not alone.ok
    among, runs = strangers_told({seed: (one, *found(0.0)[:1], *found(0.0)[:1]) for seed in (1, 2, 3)})
    assert among is not None
    assert len(runs) == 9
    assert among.ok
    sure, _ = strangers_told({1: (scores("A1", 3.0),), 2: found(0.0), 3: "its training came to nothing"})
    assert sure is not None
    assert not sure.ok
