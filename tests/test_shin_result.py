"""The Shin protocol's figures, table and plot from scores that are known."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text
from shin_arms import OPTIONS, REAL, STUDY, SYNTHETIC, of_training, seen
from tiny_cohorts import tiny_scans

from fedphantom.client.evaluation.scores import Scores, region_members
from fedphantom.client.evaluation.shin import ShinPlan, shin_plan
from fedphantom.client.evaluation.shin_plot import draw, shin_plot
from fedphantom.client.evaluation.shin_result import ShinResult, shin_result
from fedphantom.client.evaluation.shin_table import COLUMNS, WIDTH, explanation, markdown, print_table, table_rows
from fedphantom.client.evaluation.tested import Examined
from fedphantom.privacy.report.people import PeopleCounts


def test_public_scans_make_an_arm_of_their_own_that_synthetic_ones_are_held_against() -> None:
    public = tiny_scans(3, seed=9, prefix="open")
    plan = shin_plan(REAL, SYNTHETIC, OPTIONS, public)
    assert [seen(segmenter) for segmenter in of_training(plan, "public")] == [[list(public.patients)]] * 6
    assert {arm.reference for arm in plan.arms if arm.training == "public"} == {"real", "real, no augmentation"}
    means = {"public": 0.5, "public, no augmentation": 0.4, "synthetic": 0.6, "synthetic, no augmentation": 0.3}
    dice = {arm: [[mean] * 10] * 3 for arm, mean in means.items()}
    found = result_of(plan, constructed(plan, dice))
    above = {arm: regions["whole"].mean for arm, regions in found.above_public.items()}
    assert above == pytest.approx({"synthetic": 0.1, "synthetic, no augmentation": -0.1})
    told = [line for line in explanation(found) if "public patients" in line]
    assert len(told) == 1
    assert "synthetic +10.0 [" in told[0]
    without = shin_plan(REAL, SYNTHETIC, OPTIONS)
    assert not result_of(without, constructed(without, {})).above_public


# Figures


def constructed(
    plan: ShinPlan, dice: dict[str, Sequence[Sequence[float]]], hd95: float = 4.0, empty: float = 0.0
) -> dict[str, Scores]:
    """Scores by segmenter: of arms named, one row of patients a seed; of others, 0.5 for ten patients."""
    scores = {}
    for arm in plan.arms:
        for number, segmenter in enumerate(arm.segmenters):
            values = np.asarray(dice[arm.name][number] if arm.name in dice else [0.5] * 10, dtype=np.float64)
            regions = region_members(STUDY)
            scores[segmenter.name] = Scores(
                dict.fromkeys(regions, values),
                dict.fromkeys(regions, np.full(len(values), hd95)),
                dict.fromkeys(regions, np.where(np.arange(len(values)) < 2, empty, 0.0)),
            )
    return scores


def result_of(plan: ShinPlan, scores: dict[str, Scores], **having: int) -> ShinResult:
    """Of ten patients, who have every region unless ``having`` says how many."""
    return shin_result(plan, scores, STUDY, dict.fromkeys(region_members(STUDY), 10) | having, "a" * 64)


def test_seeds_are_averaged_by_patient_before_patients_are_resampled() -> None:
    plan = shin_plan(REAL, SYNTHETIC, OPTIONS)
    rising = np.linspace(0.4, 0.6, 10)
    # Seeds that err in opposite ways on the same patients: each patient's mean is .5, whichever patients are drawn.
    found = result_of(plan, constructed(plan, {"synthetic": [rising, rising[::-1], [0.5] * 10]}))
    whole = next(a for a in found.arms if a.arm.name == "synthetic").regions["whole"]
    assert whole.dice.mean == pytest.approx(0.5)
    assert whole.dice_by_seed == pytest.approx((0.5, 0.5, 0.5))
    assert whole.dice.high - whole.dice.low == pytest.approx(1 - 0.05**0.1, abs=1e-3)  # equals: what n rules out
    apart = constructed(plan, {"synthetic": [[0.4] * 10, [0.5] * 10, [0.6] * 10]})
    whole = next(a for a in result_of(plan, apart).arms if a.arm.name == "synthetic").regions["whole"]
    assert whole.dice_by_seed == pytest.approx((0.4, 0.5, 0.6))
    assert whole.to_json()["dice_seeds"]["sd"] == pytest.approx(0.1)


def test_differences_are_paired_with_the_arm_of_the_same_augmentation() -> None:
    plan = shin_plan(REAL, SYNTHETIC, OPTIONS)
    real = np.linspace(0.2, 0.8, 10)
    dice = {
        "real": [real] * 3,
        "real, no augmentation": [real - 0.1] * 3,
        "synthetic": [real + 0.04] * 3,
        "synthetic, no augmentation": [real + 0.04] * 3,
    }
    found = {r.arm.name: r.regions["whole"] for r in result_of(plan, constructed(plan, dice)).arms}
    for name, difference in (("synthetic", 0.04), ("synthetic, no augmentation", 0.14)):
        figure = found[name].dice_difference
        assert figure is not None
        assert figure.mean == pytest.approx(difference)
    ratio = found["synthetic"].dice_ratio
    assert ratio is not None
    assert ratio.mean == pytest.approx(0.54 / 0.5)
    assert found["real"].dice_difference is None


def test_missed_structures_are_counted_over_patients_and_seeds() -> None:
    plan = shin_plan(REAL, SYNTHETIC, OPTIONS)
    found = result_of(plan, constructed(plan, {}, empty=0.5))
    assert {r.regions["whole"].one_empty for r in found.arms} == {2 * 3}


def swept(means: Sequence[float]) -> ShinResult:
    plan = shin_plan(REAL, SYNTHETIC, replace(OPTIONS, sweep=True))
    patients = np.linspace(-0.1, 0.1, 10)
    wobble = np.random.default_rng(0).normal(0, 0.004, (len(means), 10))  # a difference is known to within ± .0035
    wobble -= wobble.mean(axis=1, keepdims=True)
    dice = {name: [patients + mean + own] * 3 for (_, name), mean, own in zip(plan.sweep, means, wobble, strict=True)}
    return result_of(plan, constructed(plan, dice))


def test_the_sweep_says_from_which_share_more_synthetic_scans_hurt() -> None:
    # Shares 0, .5, 1, 2, 2.5.
    assert swept([0.7, 0.75, 0.78, 0.76, 0.74]).hurts_from("whole") == 2
    assert swept([0.7, 0.68, 0.78, 0.78, 0.78]).hurts_from("whole") == 0.5
    assert swept([0.7, 0.75, 0.78, 0.78, 0.781]).hurts_from("whole") is None
    assert swept([0.7, 0.75, 0.78, 0.779, 0.779]).hurts_from("whole") is None  # within what patients vary
    # A slow decline is held against every smaller share, not against the one before.
    assert swept([0.7, 0.78, 0.779, 0.7765, 0.7705]).hurts_from("whole") == pytest.approx(2.5)


# Structures that test patients lack


def lacking(tumour: int) -> ShinResult:
    plan = shin_plan(REAL, SYNTHETIC, replace(OPTIONS, sweep=True), tiny_scans(3, seed=9, prefix="open"))
    return result_of(plan, constructed(plan, {}, empty=1), tumour=tumour)


def test_a_structure_that_no_test_patient_has_gets_no_figure_and_is_said_to_be_absent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = lacking(0)
    content = result.to_json()
    assert content["test_patients_with"]["tumour"] == 0
    assert content.pop("test_patients_with").keys() == {"brain", "tumour", "whole", "foreground"}
    assert "tumour" not in json.dumps(content)
    assert "whole" in content["hurts_from"]
    assert result.above_public["synthetic"].keys() == {"brain", "whole", "foreground"}
    print_table(result)
    drawn = [text.get_text() for text in draw(result).findobj(Text)]
    for said in (capsys.readouterr().out, markdown(result), "\n".join(drawn)):
        assert [line for line in said.splitlines() if "tumour" in line] == [
            "No figures of 'tumour': no test patient has it."
        ]


def test_a_structure_that_some_patients_lack_says_how_many_have_it(capsys: pytest.CaptureFixture[str]) -> None:
    result = lacking(7)
    assert result.to_json()["test_patients_with"] == {"brain": 10, "tumour": 7, "whole": 10, "foreground": 10}
    print_table(result)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= WIDTH
    assert [" ".join(line.split()) for line in said.splitlines() if "have it" in line] == ["tumour 7 of 10 have it"]
    assert "## tumour (7 of 10 have it)" in markdown(result)
    assert "## whole\n" in markdown(result)


def test_the_region_that_speaks_for_the_study_is_one_that_test_patients_have() -> None:
    plan = shin_plan(REAL, SYNTHETIC, OPTIONS)
    assert result_of(plan, constructed(plan, {})).primary == "whole"
    assert result_of(plan, constructed(plan, {}), whole=0).to_json()["region"] == "foreground"


# Table and plot


def shown() -> ShinResult:
    plan = shin_plan(REAL, SYNTHETIC, replace(OPTIONS, sweep=True, real_patients=16))
    random = np.random.default_rng(0)
    dice = {arm.name: random.uniform(0.6, 0.9, (3, 10)).tolist() for arm in plan.arms}
    return result_of(plan, constructed(plan, dice, hd95=12.3, empty=1))


def test_the_table_fits_a_hundred_columns_and_shows_each_structure_once(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(shown())
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= WIDTH
    assert [
        line.strip() for line in said.splitlines() if line.strip() in ("whole", "brain", "tumour", "foreground")
    ] == [
        "whole",
        "brain",
        "tumour",
    ]  # here all foreground is the whole
    assert "…" not in said
    for arm in (
        "synthetic → 10 % real",
        "16 patients+synthetic",
        "synthetic → 16 patients",
        "sweep: 1/2 × real",
        "sweep: 2 × real",
    ):
        assert said.count(f"\n{arm} ") >= 3


def test_a_row_holds_the_figures() -> None:
    result = shown()
    rows = table_rows(result, "tumour")
    assert len(rows) == 8 + 6 + 3  # the sweep's ends are 'real' and 'real+synthetic'
    found = result.arms[2].regions["tumour"]
    cells = dict(zip(COLUMNS, rows[2], strict=False))
    assert rows[2][:2] == ("real+synthetic", "yes")
    assert cells["Dice [95 %]"].startswith(f"{found.dice.mean:.3f}"[1:] + " [.")
    assert cells["HD95 mm [95 %]"].startswith("12.3 [")
    assert rows[2][-1] == str(found.one_empty) == "6"
    assert f"{100 * found.dice_difference.mean:+.1f}".replace("-", "−") in cells["points gained"]  # type: ignore[union-attr]  # it has a reference


def test_the_markdown_table_has_the_same_rows_and_says_how_they_were_made() -> None:
    result = shown()
    text = markdown(result)
    for region in result.shown_regions:
        for row in table_rows(result, region):
            assert "| " + " | ".join(row) + " |" in text
    for line in explanation(result):
        assert line in text
    assert "each 10 steps of 4 scans" in text


def panels(result: ShinResult) -> dict[str, Axes]:
    return {axes.get_title(loc="left"): axes for axes in draw(result).findobj(Axes)}


def test_panels_of_one_measure_have_one_axis_and_an_axis_of_dice_cut_short_is_said() -> None:
    plan = shin_plan(REAL, SYNTHETIC, OPTIONS)
    scores = constructed(plan, {arm.name: [np.linspace(0.72, 0.88, 10)] * 3 for arm in plan.arms}, hd95=12.3)
    scores = {
        name: replace(one, dice={region: d - 0.4 * (region == "tumour") for region, d in one.dice.items()})
        for name, one in scores.items()
    }
    found = {title: axes.get_xlim() for title, axes in panels(result_of(plan, scores)).items()}
    assert len(found) == 2 * 3
    assert {limits for title, limits in found.items() if "Dice" in title} == {(0.3, 0.9)}
    assert {low for title, (low, _) in found.items() if "HD95" in title} == {0}
    assert len({limits for title, limits in found.items() if "HD95" in title}) == 1

    def said(result: ShinResult) -> str:
        return " ".join(text.get_text() for text in draw(result).findobj(Text))

    assert "starts at 0.3 and not at 0" in said(result_of(plan, scores))
    assert "not at 0" not in said(result_of(plan, constructed(plan, {"real": [[0.05] * 10] * 3})))


def test_the_sweep_has_a_panel_for_each_region_on_one_axis_from_none_to_all() -> None:
    found = panels(swept([0.7, 0.75, 0.78, 0.76, 0.74]))
    of_sweep = [found[region] for region in ("whole", "brain", "tumour")]
    assert len({axes.get_ylim() for axes in of_sweep}) == 1
    for axes in of_sweep:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1/2", "1", "2", "2.5"]
        line = axes.get_lines()[1].get_ydata()
        assert np.asarray(line).tolist() == pytest.approx([0, 5, 8, 6, 4])


def test_bars_that_leave_a_panel_of_the_sweep_are_said_to_be_cut_off() -> None:
    def cut(result: ShinResult) -> bool:
        return any("cut off" in text.get_text() for text in draw(result).findobj(Text))

    plan = shin_plan(REAL, SYNTHETIC, replace(OPTIONS, sweep=True))
    assert cut(result_of(plan, constructed(plan, {})))  # all the same: an exact bound of ± 26 points
    assert not cut(swept([0.7, 0.75, 0.78, 0.76, 0.74]))


@pytest.mark.parametrize(("seeds", "said"), [((0,), "seed 0"), ((0, 1, 2), "seeds 0, 1, 2")])
def test_table_and_plot_name_the_seeds(seeds: tuple[int, ...], said: str) -> None:
    plan = shin_plan(REAL, SYNTHETIC, replace(OPTIONS, seeds=seeds))
    result = result_of(plan, constructed(plan, {arm.name: [[0.4, 0.6]] * 3 for arm in plan.arms}))
    drawn = " ".join(text.get_text() for text in draw(result).findobj(Text))
    for text in (drawn, explanation(result)[0]):
        assert re.search(rf", {said}[;\n]", text)


def test_the_plot_is_svg_the_same_for_the_same_result_and_without_a_date() -> None:
    one = shin_plot(swept([0.7, 0.75, 0.78, 0.76, 0.74]))
    assert ElementTree.fromstring(one).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314  # our own
    again = shin_plot(swept([0.7, 0.75, 0.78, 0.76, 0.74]))
    # An id is a hash over unrounded coordinates, and the layout's solver need not give their last bit twice.
    identifier = re.compile(rb"\b[hmp][0-9a-f]{10}\b")
    assert identifier.sub(b"id", one) == identifier.sub(b"id", again)
    assert b"<dc:date>" not in one


def test_no_one_is_called_real_in_table_and_plot_where_no_person_was_scanned() -> None:
    everybody = PeopleCounts(real=0, procedural=20)
    result = replace(shown(), whom=Examined(test=everybody, training=everybody))
    drawn = " ".join(text.get_text() for text in draw(result).findobj(Text))
    for said in (markdown(result), drawn):
        assert f"{result.patients} procedural test patients" in said
        assert "procedural+synthetic" in said
        assert not re.search(r"\breal\b", said)
    persons = " ".join(text.get_text() for text in draw(shown()).findobj(Text))
    assert f"{result.patients} real test patients" in persons
    assert "real+synthetic" in persons
