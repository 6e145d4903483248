"""What noised steps cost (PRIVACY §1.5, T5)."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from fedphantom.common.errors import ConfigError, VerificationFailed
from fedphantom.privacy.dp import accounting, cross_checks
from fedphantom.privacy.dp.accounting import (
    LARGEST_EPSILON,
    Mechanism,
    check_delta,
    epsilon,
    most_steps,
    noise_multiplier,
    usual_delta,
)

Row = tuple[int, float, int, float, float]

ROWS: list[tuple[int, float, int, tuple[float, float, float, float]]] = [
    (50, 0.2, 500, (10.69, 4.45, 2.17, 1.87)),
    (50, 0.2, 2000, (21.32, 8.78, 4.18, 3.56)),
    (50, 0.2, 10000, (47.87, 19.57, 9.25, 7.85)),
    (200, 0.1, 500, (6.29, 2.59, 1.32, 1.16)),
    (200, 0.1, 2000, (12.45, 4.98, 2.35, 2.02)),
    (200, 0.1, 10000, (27.95, 11.01, 5.07, 4.29)),
    (200, 0.25, 500, (15.55, 6.19, 2.89, 2.47)),
    (200, 0.25, 2000, (31.01, 12.31, 5.65, 4.78)),
    (500, 0.064, 500, (4.42, 1.86, 1.02, 0.91)),
    (500, 0.064, 2000, (8.68, 3.45, 1.66, 1.45)),
    (500, 0.064, 10000, (19.50, 7.54, 3.45, 2.92)),
    (500, 0.2, 500, (13.55, 5.32, 2.47, 2.10)),
    (500, 0.2, 2000, (27.03, 10.53, 4.76, 4.03)),
    (500, 0.2, 10000, (60.71, 23.48, 10.53, 8.88)),
]
TABLE: list[Row] = [
    (n, q, steps, target, sigma)
    for n, q, steps, sigmas in ROWS
    for target, sigma in zip((1.0, 3.0, 8.0, 10.0), sigmas, strict=True)
]
"""PRIVACY §1.5: patients, q, steps, ε, σ."""
QUICK = [row for row in TABLE if row[2] == 2000 and row[3] in (3.0, 8.0) and row[0] != 500]


@pytest.mark.parametrize(("patients", "q", "steps", "target", "sigma"), QUICK)
def test_the_specification_s_noise_is_within_one_percent_of_what_its_epsilon_needs(
    patients: int, q: float, steps: int, target: float, sigma: float
) -> None:
    delta = usual_delta(patients)
    assert epsilon([Mechanism(q, 1.01 * sigma, steps)], delta) < target
    assert epsilon([Mechanism(q, 0.99 * sigma, steps)], delta) > target


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patients", "q", "steps", "target", "sigma"),
    [row if row[3] in (3.0, 8.0) else pytest.param(*row, marks=pytest.mark.long) for row in TABLE],
)
def test_every_noise_multiplier_of_the_specification_is_found_within_one_percent(
    patients: int, q: float, steps: int, target: float, sigma: float
) -> None:
    found = noise_multiplier(target, usual_delta(patients), q, steps)
    assert found == pytest.approx(sigma, rel=0.01)
    assert epsilon([Mechanism(q, found, steps)], usual_delta(patients)) <= target


@pytest.mark.parametrize(("q", "steps", "target"), [(1.0, 500, 8.0), (0.2, 500, 3.0), (1.0, 1, 0.1)])
def test_the_noise_multiplier_keeps_the_promise_and_two_parts_in_a_thousand_less_would_not(
    q: float, steps: int, target: float
) -> None:
    found = noise_multiplier(target, 1e-3, q, steps)
    assert epsilon([Mechanism(q, found, steps)], 1e-3) <= target
    assert epsilon([Mechanism(q, found / 1.0021, steps)], 1e-3) > target


def test_less_noise_than_hides_anybody_is_never_proposed() -> None:
    assert noise_multiplier(50.0, 1e-3, 0.02, 2) == 0.3


def gaussian_delta(eps: float, sigma: float) -> float:
    """Balle & Wang 2018, theorem 8, sensitivity 1."""
    below, above = 0.5 / sigma - eps * sigma, -0.5 / sigma - eps * sigma
    return float(norm.cdf(below) - math.exp(eps + norm.logcdf(above)))


@settings(max_examples=10, deadline=None)
@given(sigma=st.floats(2, 60), steps=st.integers(1, 2000), delta=st.floats(1e-6, 1e-2))
def test_steps_with_every_patient_cost_what_one_gaussian_of_the_same_strength_costs(
    sigma: float, steps: int, delta: float
) -> None:
    found = epsilon([Mechanism(1.0, sigma, steps)], delta)
    strength = sigma / math.sqrt(steps)
    if math.isinf(found):
        assert gaussian_delta(0.9 * LARGEST_EPSILON, strength) > delta
        return
    assert gaussian_delta(found, strength) <= delta * (1 + 1e-6)  # an upper bound
    closer = 0.995 * found - 2e-3
    assert closer <= 0 or gaussian_delta(closer, strength) > delta  # and a tight one


KINDS = st.builds(Mechanism, st.floats(0.05, 1), st.floats(4, 30), st.integers(1, 300))
LITTLE = 1e-3  # of ε: what rounding a distribution may add


@settings(max_examples=6, deadline=None)
@given(kind=KINDS, more=st.floats(1.05, 2), delta=st.floats(1e-5, 1e-2))
def test_more_steps_a_higher_rate_and_less_noise_never_cost_less(kind: Mechanism, more: float, delta: float) -> None:
    cost = epsilon([kind], delta) - LITTLE
    q, sigma, steps = kind.sampling_rate, kind.noise_multiplier, kind.steps
    assert epsilon([Mechanism(q, sigma, math.ceil(more * steps))], delta) >= cost
    assert epsilon([Mechanism(min(1.0, more * q), sigma, steps)], delta) >= cost
    assert epsilon([Mechanism(q, sigma / more, steps)], delta) >= cost
    assert epsilon([kind], delta / more) >= cost


@settings(max_examples=6, deadline=None)
@given(first=KINDS, second=KINDS, cut=st.floats(0.01, 0.99), delta=st.floats(1e-5, 1e-2))
def test_parts_compose_to_the_whole_in_any_order(first: Mechanism, second: Mechanism, cut: float, delta: float) -> None:
    q, sigma, steps = first.sampling_rate, first.noise_multiplier, first.steps + 1
    early = min(max(1, round(cut * steps)), steps - 1)
    parts = [Mechanism(q, sigma, early), second, Mechanism(q, sigma, steps - early)]
    assert epsilon(parts, delta) == epsilon([second, Mechanism(q, sigma, steps)], delta)
    assert epsilon(parts, delta) >= max(epsilon([second], delta), epsilon([parts[0]], delta)) - LITTLE


def test_no_step_costs_nothing_and_absurd_steps_have_no_epsilon() -> None:
    assert epsilon([], 1e-3) == 0
    assert epsilon([Mechanism(1.0, 0.001, 1_000_000)], 1e-3) == math.inf
    assert epsilon([Mechanism(0.2, 0.5, 2000)], 1e-3) == math.inf


def test_how_many_steps_still_fit_is_the_largest_number_that_does() -> None:
    spent, asked = [Mechanism(1.0, 20.0, 150)], Mechanism(1.0, 20.0, 1500)
    fit = most_steps(3.0, 0.005, asked, spent)
    assert epsilon([*spent, Mechanism(1.0, 20.0, fit)], 0.005) <= 3
    assert epsilon([*spent, Mechanism(1.0, 20.0, fit + 1)], 0.005) > 3
    assert most_steps(3.0, 0.005, Mechanism(1.0, 20.0, 10), spent) == 10
    assert most_steps(1.0, 0.005, asked, spent) == 0


@pytest.mark.parametrize("q", [0.0, -0.1, 1.0001, math.nan, math.inf])
def test_a_sampling_rate_outside_its_range_is_refused(q: float) -> None:
    with pytest.raises(ConfigError, match=r"sampling rate q of .*expected 0 < q ≤ 1"):
        Mechanism(q, 1.0, 1)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_noise_that_is_none_negative_or_infinite_is_refused(sigma: float) -> None:
    with pytest.raises(ConfigError, match="noise multiplier σ"):
        Mechanism(0.2, sigma, 1)


@pytest.mark.parametrize("steps", [0, -1, 1.5, math.nan])
def test_steps_that_are_not_a_positive_whole_number_are_refused(steps: float) -> None:
    with pytest.raises(ConfigError, match="noised steps"):
        Mechanism(0.2, 1.0, steps)  # type: ignore[arg-type]  # what a file might say


@pytest.mark.parametrize("delta", [0.02, 0.5, 1.0, 0.0, -0.1, math.nan])
def test_a_delta_that_would_let_a_patient_be_published_is_refused(delta: float) -> None:
    with pytest.raises(ConfigError, match=r"for 50 patients; expected 0 < δ < 1/50\. Set delta under ") as caught:
        check_delta(delta, 50)
    remedy = str(caught.value)
    assert "[privacy.promise] to 1/(10·n) of the largest site: for so many patients 0.002." in remedy
    assert "more patients" not in remedy  # they make a δ that is too large larger still
    check_delta(0.019, 50)


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, math.nan])
def test_no_epsilon_is_told_at_a_delta_that_is_no_probability(delta: float) -> None:
    with pytest.raises(ConfigError, match="δ"):
        epsilon([Mechanism(0.2, 1.0, 1)], delta)


@pytest.mark.parametrize("target", [0.0, -1.0, 101.0, math.nan, math.inf])
def test_an_epsilon_that_promises_nothing_is_not_asked_for(target: float) -> None:
    with pytest.raises(ConfigError, match="asked for"):
        noise_multiplier(target, 1e-3, 0.2, 100)


def test_accounting_loads_neither_torch_nor_opacus() -> None:
    code = (
        "import sys; from fedphantom.privacy.dp.accounting import *; epsilon([Mechanism(.2, 4., 10)], 1e-3);"
        "print(sorted({'torch', 'opacus', 'flwr'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


CHECKED = [row for row in QUICK if row[3] == 8.0]


@pytest.mark.parametrize(("patients", "q", "steps", "target", "sigma"), CHECKED)
def test_other_accountants_confirm_the_official_epsilon(
    patients: int, q: float, steps: int, target: float, sigma: float
) -> None:
    found = cross_checks.cross_checks([Mechanism(q, sigma, steps)], usual_delta(patients))
    assert found.prv is not None
    assert found.pld - 0.02 <= found.prv <= found.pld + 0.06
    assert 8.0 < found.rdp < 9.5
    assert f"PRV {found.prv:.3f}" in found.told


def test_the_gaussian_accountant_would_have_told_less_than_the_truth() -> None:
    from opacus.accountants import GaussianAccountant

    with pytest.warns(UserWarning, match="can underestimate"):
        gdp = GaussianAccountant()
    gdp.history = [(4.18, 0.2, 2000)]
    assert gdp.get_epsilon(0.002) < epsilon([Mechanism(0.2, 4.18, 2000)], 0.002)


def test_where_the_prv_accountant_cannot_be_asked_that_is_said_and_rdp_stays() -> None:
    large = cross_checks.cross_checks([Mechanism(0.2, 0.7, 500)], 0.002)
    assert large.prv is None
    assert large.rdp >= large.pld > 30
    assert "PRV not asked or without an answer: ε is above 30" in large.told


def test_where_the_prv_accountant_fails_that_is_said_and_rdp_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from opacus.accountants import PRVAccountant

    def fail(self: object, delta: float) -> float:
        raise RuntimeError("Discrete mean differs significantly from continuous mean.")

    monkeypatch.setattr(PRVAccountant, "get_epsilon", fail)
    found = cross_checks.cross_checks([Mechanism(0.2, 4.18, 100)], 0.002)
    assert found.prv is None
    assert found.rdp > found.pld
    assert "it failed on these steps" in found.told


def test_accountants_that_contradict_each_other_let_nothing_be_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_checks, "epsilon", lambda steps, delta: accounting.epsilon(steps, delta) + 0.1)
    with pytest.raises(VerificationFailed, match=r"contradict each other: PRV .* under PLD"):
        cross_checks.cross_checks([Mechanism(0.2, 4.18, 100)], 0.002)


def test_no_step_is_confirmed_to_cost_nothing() -> None:
    found = cross_checks.cross_checks([], 0.002)
    assert (found.pld, found.prv, found.rdp) == (0, 0, 0)
