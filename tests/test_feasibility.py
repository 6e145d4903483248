"""Noise against signal before training (PRIVACY §1.4)."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import replace

import pytest
from promised import promised_text

from fedphantom.common.errors import ConfigError, PolicyRefused
from fedphantom.common.study import parse_study
from fedphantom.privacy.dp.accounting import Mechanism, epsilon
from fedphantom.privacy.dp.feasibility import DpPlan, Feasibility, feasibility, refuse_noise
from fedphantom.privacy.dp.plan import asked_feasibility

EXAMPLE = DpPlan(8.0, 0.002, 50, 0.2, 2000, 172_000)
FULL = DpPlan(8.0, 0.001, 100, 1.0, 500, 2_000)
LOOSE = DpPlan(8.0, 0.001, 12, 1.0, 2, 10, clip_norm=150.0, longest=2.5)
"""A clip norm sixty times as long as any patient's vector."""


@pytest.fixture(scope="module")
def example() -> Feasibility:
    return feasibility(EXAMPLE)


@pytest.fixture(scope="module")
def loose() -> Feasibility:
    return feasibility(LOOSE)


@pytest.fixture(scope="module")
def doubtful() -> Feasibility:
    return feasibility(replace(FULL, sampling_rate=0.25, noised_parameters=3_000))


def test_the_specification_s_example_is_pure_noise_and_refused(example: Feasibility) -> None:
    assert example.noise_multiplier == pytest.approx(4.18, rel=0.01)
    assert example.ratio == pytest.approx(173, rel=0.01)
    assert example.outlook == "refused"
    with pytest.raises(PolicyRefused, match=r"r = σ√P/B̄ = 173: every step would be pure noise") as caught:
        refuse_noise(example)
    assert caught.value.exit_code == 4
    assert "Feasible would be: " in str(caught.value)


@pytest.mark.parametrize(("limit", "below", "above"), [(5, "feasible", "doubtful"), (50, "doubtful", "refused")])
def test_a_plan_is_warned_of_above_a_ratio_of_five_and_refused_above_fifty(limit: int, below: str, above: str) -> None:
    most = math.floor((limit * 100 / feasibility(FULL).noise_multiplier) ** 2)
    under, over = (feasibility(replace(FULL, noised_parameters=number)) for number in (most, most + 1))
    assert 0.999 * limit < under.ratio <= limit < over.ratio < 1.001 * limit
    assert (under.outlook, over.outlook) == (below, above)
    refuse_noise(under)
    with pytest.raises(PolicyRefused, match="pure noise") if above == "refused" else contextlib.nullcontext():
        refuse_noise(over)


@pytest.mark.parametrize(("patients", "most"), [(100, 2_200), (48, 550)])
def test_so_many_parameters_are_feasible_as_the_specification_says(patients: int, most: int) -> None:
    asked = DpPlan(8.0, 1 / (10 * patients), patients, 1.0, 500, 10_000)
    found = feasibility(asked)
    assert found.outlook == "doubtful"  # ten thousand already warn
    refuse_noise(found)
    fewest_change = found.nearest[0]
    assert fewest_change.noised_parameters == pytest.approx(most, rel=0.03)
    assert cost_at_five(fewest_change) <= 8


def cost_at_five(plan: DpPlan) -> float:
    """ε with as much noise as a ratio of five allows."""
    signal = plan.expected_batch * min(1, (plan.longest or math.inf) / plan.clip_norm)
    sigma = 5 * signal / math.sqrt(plan.noised_parameters)
    return epsilon([Mechanism(plan.sampling_rate, sigma, plan.steps)], plan.delta)


@pytest.mark.parametrize("which", ["example", "doubtful", "loose"])
def test_every_plan_proposed_keeps_the_promise_with_a_ratio_of_five_at_most(
    which: str, request: pytest.FixtureRequest
) -> None:
    found: Feasibility = request.getfixturevalue(which)
    assert found.nearest
    for plan in found.nearest:
        assert (plan.epsilon, plan.delta, plan.patients) == (found.plan.epsilon, found.plan.delta, found.plan.patients)
        assert cost_at_five(plan) <= plan.epsilon


def test_noise_is_held_against_the_longest_vector_there_is_and_not_against_a_clip_norm_above_it(
    loose: Feasibility,
) -> None:
    tight = feasibility(replace(LOOSE, clip_norm=2.5))
    assert loose.ratio == pytest.approx(60 * tight.ratio)
    assert tight.ratio == feasibility(replace(LOOSE, clip_norm=1.0)).ratio < 1
    assert "it can be learnt from" in tight.meaning()
    assert (loose.outlook, tight.outlook) == ("doubtful", "feasible")
    assert "little can be learnt" in loose.meaning()
    assert f"r = σ√P/B̄ · 150/2.5 = {loose.ratio:.3g}" in loose.text()
    assert "r = σ√P/B̄ = " in tight.text()


def test_of_a_clip_norm_above_every_vector_the_longest_is_proposed_first(loose: Feasibility) -> None:
    assert loose.ways()[0] == "[privacy.promise] clip_norm = 2.5 instead of 150"
    tight = feasibility(loose.nearest[0])
    assert tight.outlook == "feasible"
    assert tight.plan == replace(LOOSE, clip_norm=2.5)


def test_what_is_proposed_changes_no_more_than_it_must(doubtful: Feasibility) -> None:
    asked = doubtful.plan
    fewer = next(plan for plan in doubtful.nearest if plan.noised_parameters < asked.noised_parameters)
    shorter = next(plan for plan in doubtful.nearest if plan.steps < asked.steps)
    assert cost_at_five(replace(fewer, noised_parameters=round(1.02 * fewer.noised_parameters))) > asked.epsilon
    assert cost_at_five(replace(shorter, steps=round(1.02 * shorter.steps))) > asked.epsilon


@pytest.mark.slow
def test_a_larger_batch_is_proposed_where_it_suffices() -> None:
    asked = DpPlan(2.0, 0.001, 100, 0.05, 50, 1_000)
    found = feasibility(asked)
    assert found.outlook == "doubtful"
    larger = next(p for p in found.nearest if p == replace(asked, sampling_rate=p.sampling_rate))
    assert 0.05 < larger.sampling_rate <= 1
    assert cost_at_five(larger) <= 2
    assert cost_at_five(replace(asked, sampling_rate=0.97 * larger.sampling_rate)) > 2


def test_what_is_feasible_is_told_with_its_noise_and_nothing_is_proposed() -> None:
    found = feasibility(FULL)
    assert found.outlook == "feasible"
    assert found.nearest == ()
    assert "σ = 10.7; r = σ√P/B̄ = 4.8" in found.text()
    assert "only what persists over many steps can be learnt" in found.text()
    assert "smaller than the largest possible signal" in replace(found, ratio=0.9).text()


def test_of_one_step_it_is_not_said_that_many_are_needed() -> None:
    found = replace(feasibility(FULL), plan=replace(FULL, steps=2, spare_steps=1), ratio=2.0)
    assert "what does not stand out of its noise is not learnt" in found.text()
    assert "2 noised steps, 1 of them spare" in found.text()
    assert "many steps" not in found.text()


@pytest.mark.parametrize(("epsilon", "said"), [(3.0, False), (8.0, True)])
def test_an_epsilon_that_forbids_little_is_told_so(epsilon: float, said: bool) -> None:
    found = replace(feasibility(FULL), plan=replace(FULL, epsilon=epsilon))
    assert ("by itself forbids little" in found.text()) == said


def test_with_so_many_patients_as_are_told_the_plan_is_feasible(doubtful: Feasibility) -> None:
    enough = doubtful.enough_patients
    assert enough is not None
    assert feasibility(replace(doubtful.plan, patients=enough)).outlook == "feasible"
    assert doubtful.ratio * doubtful.plan.patients / round(0.97 * enough) > 5  # the ratio falls with their number


def test_of_a_study_s_choices_the_one_that_noises_most_is_proposed_and_no_other_number() -> None:
    asked = replace(FULL, noised_parameters=10_000)
    choices = {"norms": replace(FULL, noised_parameters=1_500), "head": replace(FULL, noised_parameters=800)}
    found = feasibility(asked, choices)
    assert '[privacy.promise] noised = "norms": 1500 noised parameters instead of 10000' in found.ways()
    none = feasibility(asked, {"norms": replace(asked, noised_parameters=9_000)})
    assert all(plan.noised_parameters == 10_000 for plan in none.nearest)


def test_a_choice_of_more_steps_than_can_be_accounted_for_is_not_proposed() -> None:
    few = promised_text("a" * 64, rounds=1, local_steps=150_000).replace("epsilon = 8.0", "epsilon = 0.1")
    found = asked_feasibility(parse_study(few), 10)
    assert found.outlook == "doubtful"
    assert set(found.choices) == {"generator-head"}  # of the discriminator's steps there would be five times as many


def test_a_choice_that_brings_its_own_steps_names_no_other_key_and_the_usual_one_is_named_beside_it() -> None:
    asked = replace(FULL, noised_parameters=10_000)
    choices = {
        "generator-head": replace(FULL, noised_parameters=1_500, steps=100),
        "means": replace(FULL, noised_parameters=8, steps=2),
    }
    head, means, shorter, _ = feasibility(asked, choices, "[privacy.promise] discriminator_steps").ways()
    assert head == (
        '[privacy.promise] noised = "generator-head" and clip_norm = 0.05: 1500 noised parameters instead of 10000,'
        " 100 steps instead of 500"
    )
    assert means == '[privacy.promise] noised = "means": 8 noised parameters instead of 10000, 2 steps instead of 500'
    assert shorter.endswith("instead of 500, by [privacy.promise] discriminator_steps")


def test_a_choice_that_suffices_by_itself_is_not_proposed_again_with_all_patients() -> None:
    asked = replace(FULL, sampling_rate=0.05, noised_parameters=50_000)
    choices = {"norms": replace(asked, noised_parameters=2_000), "means": replace(asked, noised_parameters=8)}
    ways = feasibility(asked, choices).ways()
    assert sum('noised = "means"' in way for way in ways) == 1
    assert any('noised = "norms"' in way and "sampling_rate = 1 " in way for way in ways)


def test_what_would_be_feasible_is_told_by_the_keys_of_a_study(doubtful: Feasibility) -> None:
    ways = "\n".join(doubtful.ways())
    assert "with [privacy.promise] sampling_rate = 1 (B̄ = 100) instead of 0.25" in ways
    assert "instead of 500, by [training] rounds or local_steps, or [privacy.promise] spare_rounds" in ways
    assert "with the same sampling_rate and delta" in ways


def test_a_person_and_a_program_are_told_the_same(example: Feasibility) -> None:
    told = json.loads(json.dumps(example.to_json()))
    assert told["outlook"] == "refused"
    assert told["ratio"] == example.ratio
    assert told["plan"]["noised_parameters"] == 172_000
    assert [plan["steps"] for plan in told["nearest"]] == [plan.steps for plan in example.nearest]
    text = example.text()
    assert "ε = 8 at δ = 0.002 per patient (add/remove, Poisson), 2000 noised steps" in text
    assert told["meaning"] in text
    assert f"{example.nearest[0].noised_parameters} noised parameters instead of 172000" in text


@pytest.mark.parametrize(
    "wrong",
    [
        {"delta": 0.02},
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.5},
        {"steps": 0},
        {"noised_parameters": 0},
        {"patients": 0},
    ],
    ids=str,
)
def test_a_plan_outside_its_ranges_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        replace(EXAMPLE, **wrong)  # type: ignore[arg-type]  # values of several types by name
