"""Figures of usefulness in a release: means over twenty test patients and more, of the released volumes, signed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_cohorts import tiny_scans
from tiny_release import TRUSTED, Releasable, assert_refused, edit_json, in_predicate, sign_again, statement_of

from fedphantom.client.evaluation.figures import over_patients
from fedphantom.client.evaluation.shin import ShinOptions, shin_plan
from fedphantom.common.errors import DataError, PolicyRefused, VerificationFailed
from fedphantom.privacy.release.evaluation import FILE, evaluation_extract, parse_evaluation
from fedphantom.privacy.release.pack import verify_release
from fedphantom.privacy.release.readme import render_readme
from fedphantom.privacy.report.content import ReportEvaluation
from fedphantom.privacy.statement import ReleasePredicate
from fedphantom.privacy.synthetic_digest import synthetic_digest

SHA = "a" * 64
CLAIM = {"protocols": ["arms"], "test_patients": 25, "procedural": False}


def a_figure(n: int = 25, mean: float = 0.8) -> dict[str, Any]:
    return over_patients(mean + np.linspace(-0.1, 0.1, n)).to_json()


def arms(n: int = 25, sha256: str = SHA) -> dict[str, Any]:
    one = {
        "name": "synthetic",
        "scans": 7,
        "dice": a_figure(n),
        "per_label": {"whole": a_figure(n)},
        "hd95_mm": {"whole": {"mean": 3.25, "ci": [2.5, 4.0], "n_test": n}},
    }
    return {
        "arms": [one],
        "region": "whole",
        "ratio_to_real": {"synthetic": {"mean": 0.97, "ci": [0.95, 0.99], "n_test": n}},
        "segmenter": {"steps": 500, "batch": 4, "seed": 0},
        "synthetic_sha256": sha256,
    }


def shin(n: int = 25) -> dict[str, Any]:
    region = {
        "dice": a_figure(n),
        "dice_seeds": {"means": [0.81, 0.79], "sd": 0.01},
        "hd95_mm": {"mean": 3.25, "ci": [2.5, 4.0], "n_test": n},
        "one_empty": 1,
    }
    arm = {"name": "real", "per_label": {"whole": a_figure(n)}, "regions": {"whole": region}}
    return arms(n) | {"protocol": "shin", "arms": [arm], "test_patients": n}


def fidelity(n: int = 25) -> dict[str, Any]:
    figure = {"mean": 0.9, "ci": [0.88, 0.92], "n": n}
    return {
        "protocol": "fidelity",
        "refinding": {"whole": {"synthetic": figure, "real": figure}},
        "intensity_distance": [{"label": "tissue", "channel": "T1", "synthetic": 0.11, "real": None}],
        "ms_ssim": {"synthetic": figure, "real": figure, "scales": 3, "window_voxels": 7},
        "mmd": {"squared": -0.001, "null_95": 0.02, "p_value": 0.5, "permutations": 2000},
        "counts": {"training_patients": 40, "test_patients": n, "synthetic_scans": 64},
        "synthetic_sha256": SHA,
    }


def encoded(*tables: dict[str, Any]) -> list[bytes]:
    return [json.dumps(table).encode() for table in tables]


def test_means_and_intervals_of_every_protocol_become_rows_of_one_table() -> None:
    extract = evaluation_extract(encoded(arms(), shin(22), fidelity(31)), SHA)
    assert extract.test_patients == 22
    found = {(r.protocol, r.measure, r.of, r.region, r.channel): (r.value, r.interval) for r in extract.figures}
    mean = (0.8, tuple(a_figure()["ci"]))
    assert found["arms", "dice", "synthetic", "whole", None] == mean
    assert found["arms", "hd95_mm", "synthetic", "whole", None] == (3.25, (2.5, 4.0))
    assert found["arms", "dice_ratio_to_real", "synthetic", "whole", None] == (0.97, (0.95, 0.99))
    assert found["shin", "hd95_mm", "real", "whole", None] == (3.25, (2.5, 4.0))
    assert found["fidelity", "refinding_dice", "real", "whole", None] == (0.9, (0.88, 0.92))
    assert found["fidelity", "wasserstein_1", "synthetic", "tissue", "T1"] == (0.11, None)
    assert found["fidelity", "mmd_squared", "synthetic", None, None] == (-0.001, None)
    assert extract.claim().protocols == ("arms", "shin", "fidelity")
    assert parse_evaluation(extract.encode()) == extract


def test_nothing_else_of_the_files_leaves() -> None:
    odd = shin() | {"patients": {"sub-0042": 0.5}}
    odd["arms"][0]["each"] = {"sub-0042": 0.5}
    text = evaluation_extract(encoded(odd), SHA).encode().decode()
    assert "sub-0042" not in text
    assert "0.81" not in text  # a seed's own mean
    assert "one_empty" not in text


@pytest.mark.parametrize("table", [arms(19), shin(19), fidelity(19)], ids=["arms", "shin", "fidelity"])
def test_figures_about_fewer_than_twenty_patients_do_not_leave(table: dict[str, Any]) -> None:
    with pytest.raises(PolicyRefused, match="fewer than 20 test patients"):
        evaluation_extract(encoded(table), SHA)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"protocol": "other", "arms": []}', *encoded(arms() | {"arms": [{"name": "x"}]})],
)
def test_other_files_are_no_evaluations(content: bytes) -> None:
    with pytest.raises(DataError, match="no table of figures"):
        evaluation_extract([content], SHA)


def test_two_results_of_one_protocol_and_figures_that_are_none_are_refused() -> None:
    with pytest.raises(DataError, match="two of one protocol"):
        evaluation_extract(encoded(arms(), arms()), SHA)
    nan = arms()
    nan["arms"][0]["per_label"]["whole"]["mean"] = float("nan")
    with pytest.raises(DataError):
        evaluation_extract(encoded(nan), SHA)


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "a Dice above 1": {"mean": 3.7, "ci": [3.6, 3.8], "n_test": 25},
    "ends in the wrong order": {"mean": 0.8, "ci": [0.9, 0.7], "n_test": 25},
    "a mean far outside its interval": {"mean": 0.2, "ci": [0.7, 0.9], "n_test": 25},
    "an interval that leaves the scale": {"mean": 0.8, "ci": [-0.1, 0.9], "n_test": 25},
}


@pytest.mark.parametrize("figure", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_impossible_figures_are_not_signed(figure: dict[str, Any]) -> None:
    table = arms()
    table["arms"][0]["per_label"]["whole"] = figure
    with pytest.raises(DataError):
        evaluation_extract(encoded(table), SHA)


def test_an_arms_name_cannot_carry_words() -> None:
    table = arms()
    table["arms"][0]["name"] = "real patient Smith"
    with pytest.raises(DataError):
        evaluation_extract(encoded(table), SHA)
    table["arms"][0]["name"] = "synthetic, then 10 % real, no augmentation"
    assert evaluation_extract(encoded(table), SHA)


@pytest.mark.parametrize("name", ["real+13 synthetic", "13", "real+3x synthetic", "real, 13", "13 synthetic"])
def test_an_arms_name_cannot_carry_a_count(name: str) -> None:
    table = arms()
    table["arms"][0]["name"] = name
    with pytest.raises(DataError):
        evaluation_extract(encoded(table), SHA)


def test_a_sweep_leaves_without_the_number_of_training_scans() -> None:
    options = ShinOptions(steps=5, seeds=(0,), real_patients=4, sweep=True)
    plan = shin_plan(tiny_scans(13), tiny_scans(60, seed=3, prefix="s"), options)
    made = shin()
    swept = made | {"arms": [made["arms"][0] | {"name": arm.name} for arm in plan.arms]}
    told = {row.of for row in evaluation_extract(encoded(swept), SHA).figures}
    assert told >= {name for _, name in plan.sweep} >= {"real+0.5x synthetic", "real+4x synthetic"}
    assert set(re.findall(r"[0-9.]+", " ".join(told))) == {"4", "10", "0.5", "1", "2"}
    page = ReportEvaluation.read({"arms": [{"name": arm.name, "dice": a_figure()} for arm in plan.arms]}).over_enough()
    assert page
    assert not {"6", "13", "26", "52"} & set(re.findall(r"[0-9.]+", " ".join(arm.name for arm in page.arms)))


def test_persons_are_counted_and_procedural_patients_only_where_there_is_nobody_else() -> None:
    mixed = arms(43) | {"procedural_test_patients": 20}
    extract = evaluation_extract(encoded(mixed), SHA)
    assert (extract.test_patients, extract.procedural) == (23, False)
    with pytest.raises(PolicyRefused, match="fewer than 20 test patients"):
        evaluation_extract(encoded(arms(23) | {"procedural_test_patients": 20}), SHA)
    nobody = evaluation_extract(encoded(arms(23) | {"procedural_test_patients": 23}), SHA)
    assert (nobody.test_patients, nobody.procedural) == (23, True)


def test_figures_of_other_volumes_are_refused() -> None:
    with pytest.raises(VerificationFailed, match="another synthetic cohort"):
        evaluation_extract(encoded(arms(sha256="b" * 64)), SHA)


@pytest.fixture
def evaluated(releasable: Releasable, tmp_path: Path) -> Path:
    """A release with figures of its own volumes."""
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps(arms(sha256=synthetic_digest(releasable.synthetic))))
    releasable.pack(evaluations=[file])
    return releasable.release


def test_a_release_holds_signs_and_tells_of_them(evaluated: Path) -> None:
    verify_release(evaluated, TRUSTED)
    assert statement_of(evaluated)["predicate"]["evaluation"] == CLAIM
    text = " ".join((evaluated / "README.md").read_text().split())
    assert "what the volumes are worth for training segmenters, in means over at least 25 real patients" in text
    assert parse_evaluation((evaluated / FILE).read_bytes()).figures


def test_a_release_without_them_says_nothing_of_them(volumes_release: Path) -> None:
    assert not (volumes_release / FILE).exists()
    assert "usefulness" not in (volumes_release / "README.md").read_text()
    assert statement_of(volumes_release)["predicate"]["evaluation"] is None


def test_a_claim_without_the_file_and_a_file_without_the_claim_are_no_release(
    evaluated: Path, volumes_release: Path, tmp_path: Path
) -> None:
    content = (evaluated / FILE).read_bytes()
    (evaluated / FILE).unlink()
    sign_again(evaluated)
    assert_refused(evaluated)
    (volumes_release / FILE).write_bytes(content)
    sign_again(volumes_release)
    assert_refused(volumes_release, "no place in such a release")


def test_figures_changed_by_the_signer_must_still_be_what_the_statement_says(evaluated: Path) -> None:
    kept = (evaluated / FILE).read_bytes()
    edit_json(evaluated / FILE, lambda content: content.update(patients=["sub-0042"]))
    sign_again(evaluated)
    assert_refused(evaluated, "no table of figures")
    (evaluated / FILE).write_bytes(kept)
    more = in_predicate(evaluation=CLAIM | {"test_patients": 99})
    sign_again(evaluated, more)
    predicate = ReleasePredicate.model_validate_json(json.dumps(statement_of(evaluated)["predicate"]))
    readme = (evaluated / "README.md").read_bytes()
    (evaluated / "README.md").write_text(render_readme(predicate))  # or it would be the README that is refused
    sign_again(evaluated, more)
    assert_refused(evaluated, "an evaluation other than the signed statement says")
    (evaluated / "README.md").write_bytes(readme)
    extract = parse_evaluation(kept)
    (evaluated / FILE).write_bytes(extract.model_copy(update={"synthetic_sha256": "b" * 64}).encode())
    sign_again(evaluated, in_predicate(evaluation=extract.claim().model_dump(mode="json")))
    assert_refused(evaluated, "an evaluation of other volumes")
