"""Usefulness: arms that resume, structures that patients lack, test patients that nothing was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_cohorts import tiny_scans, tiny_study, write_tiny_cohort

from fedphantom.cli import run as fedphantom
from fedphantom.client.evaluation import segmenters
from fedphantom.client.evaluation.arms import Arm, Evaluation, evaluate_arms
from fedphantom.client.evaluation.carriers import carriers
from fedphantom.client.evaluation.material import Sources
from fedphantom.client.evaluation.report import RESULTS, EvaluationOptions, Protocol, Report, print_evaluation
from fedphantom.client.evaluation.report import evaluate as evaluate_by
from fedphantom.client.evaluation.scores import Scores, region_members
from fedphantom.client.evaluation.tested import examined
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.cohorts.preparation import PreparedScans, joined
from fedphantom.common.cohorts.roles import load_roles
from fedphantom.common.device import choose_device
from fedphantom.common.errors import ConfigError, DataError, OutputTaken, PolicyRefused
from fedphantom.common.gan.generation import numpy_parameters
from fedphantom.common.gan.networks import make_generator
from fedphantom.common.gan.parameters import ParameterSpec
from fedphantom.common.segmentation import SegmenterPlan
from fedphantom.common.study import PatchTable, RolesTable
from fedphantom.common.study_template import to_toml
from fedphantom.privacy.release.evaluation import evaluation_extract
from fedphantom.privacy.synthetic_digest import synthetic_digest

CPU = choose_device("cpu")
STUDY = tiny_study()
PATCH = PatchTable(shape=(16, 16, 16))
PLAN = SegmenterPlan(steps=1, batch=1)
REAL, SYNTHETIC, TEST = tiny_scans(2), tiny_scans(2, seed=1, prefix="s"), tiny_scans(3, seed=2, prefix="t")
OPTIONS = EvaluationOptions(
    steps=1, seed=1, device="cpu", out=None, progress=lambda done, total: None, say=lambda text: None
)
ARMS = {"real": REAL, "synthetic": SYNTHETIC, "real+synthetic": joined([REAL, SYNTHETIC])}


class Counted:
    """Stands where the U-Net's training is called, and lists the arms (by number of scans) trained."""

    def __init__(self) -> None:
        self.trained: list[int] = []
        self._train = segmenters.train_segmenter

    def __call__(self, scans: PreparedScans, *arguments: object, **options: object) -> object:
        self.trained.append(len(scans))
        return self._train(scans, *arguments, **options)  # type: ignore[arg-type]  # handed on as they came


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted()
    monkeypatch.setattr(segmenters, "train_segmenter", counted)
    return counted


def evaluate(
    arms: Mapping[str, PreparedScans] = ARMS, test: PreparedScans = TEST, folder: Path | None = None, seed: int = 1
) -> Evaluation:
    return evaluate_arms(arms, test, STUDY, seed=seed, device=CPU, plan=PLAN, folder=folder)


# Arms


def test_the_json_has_the_agreed_keys() -> None:
    content = json.loads(json.dumps(evaluate().to_json()))
    assert [entry["name"] for entry in content["arms"]] == ["real", "synthetic", "real+synthetic"]
    assert [entry["scans"] for entry in content["arms"]] == [2, 2, 4]
    for entry in content["arms"]:
        assert entry["hd95_mm"].keys() == entry["per_label"].keys()
        assert all(0 <= figure["mean"] <= 4 * 15 * 3**0.5 for figure in entry["hd95_mm"].values())
        assert entry["per_label"].keys() == {"brain", "tumour", "whole", "foreground"}
        for figure in (entry["dice"], *entry["per_label"].values()):
            assert figure.keys() == {"mean", "ci", "ci_kind", "n_test"}
            assert figure["n_test"] == 3
            assert 0 <= figure["ci"][0] <= figure["mean"] <= figure["ci"][1] <= 1
        assert entry["dice"] == entry["per_label"]["whole"]
    assert content["region"] == "whole"
    assert content["ratio_to_real"].keys() == {"synthetic", "real+synthetic"}
    assert content["segmenter"] == {"steps": 1, "batch": 1, "seed": 1}
    assert not any(patient in json.dumps(content) for patient in TEST.patients)


TUMOUR = region_members(STUDY)["tumour"][0]


def without_tumour(rows: list[int]) -> PreparedScans:
    """The test patients, of whom these have brain alone."""
    classes = np.array(TEST.classes)
    classes[rows] = np.where(classes[rows] == TUMOUR, 1, classes[rows])
    return replace(TEST, classes=classes)


def test_a_structure_that_no_test_patient_has_gets_no_figure_and_is_said_to_be_absent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = evaluate(test=without_tumour([0, 1, 2])).to_json()
    assert content["test_patients_with"] == {"brain": 3, "tumour": 0, "whole": 3, "foreground": 3}
    for entry in content["arms"]:
        for table in ("per_label", "hd95_mm", "hd95_missed"):
            assert entry[table].keys() == {"brain", "whole", "foreground"}
    print_evaluation(content, examined(("a", "b", "c"), ("d",), frozenset()))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "tumour" in line] == ["No figures of 'tumour': no test patient has it."]


def test_a_structure_that_some_patients_lack_says_how_many_have_it(capsys: pytest.CaptureFixture[str]) -> None:
    content = evaluate(test=without_tumour([1])).to_json()
    assert content["test_patients_with"]["tumour"] == 2
    assert content["arms"][0]["per_label"]["tumour"]["n_test"] == 3
    print_evaluation(content, examined(("a", "b", "c"), ("d",), frozenset()))
    lines = capsys.readouterr().out.splitlines()
    assert {"tumour (2 of 3 have it)", "whole", "brain"} <= set(lines)


def test_a_patient_has_a_structure_who_has_it_in_one_scan_of_several() -> None:
    twice = replace(without_tumour([0]), patients=("t", "t", "u"))
    assert carriers(twice, STUDY) == {"brain": 2, "tumour": 2, "whole": 2, "foreground": 2}


def test_label_maps_with_nothing_in_them_are_refused() -> None:
    with pytest.raises(DataError, match="nothing but background"):
        evaluate(test=replace(TEST, classes=np.zeros_like(np.array(TEST.classes))))


def test_an_evaluation_says_the_same_twice_and_is_independent_of_the_other_arms() -> None:
    whole, one = evaluate(), evaluate({"synthetic": SYNTHETIC})
    np.testing.assert_array_equal(whole.arms[1].scores.dice["whole"], one.arms[0].scores.dice["whole"])


@pytest.mark.parametrize("name", ["real", "synthetic", "public"])
def test_a_test_patients_scan_in_any_arm_is_refused(name: str) -> None:
    leaked = tiny_scans(1, seed=2, prefix="renamed")  # the first test patient under another name
    with pytest.raises(DataError, match=f"training scans of arm '{name}'"):
        evaluate({"real": REAL, "synthetic": SYNTHETIC, name: joined([SYNTHETIC, leaked])})


def test_finished_arms_are_not_trained_again(counted: Counted, tmp_path: Path) -> None:
    first = evaluate(folder=tmp_path)
    assert sorted(counted.trained) == [2, 2, 4]
    (tmp_path / "arm-real-synthetic.json").unlink()  # as if stopped before its end
    counted.trained.clear()
    second = evaluate(folder=tmp_path)
    assert counted.trained == [4]
    assert second.to_json() == first.to_json()


CHANGES = {
    "another seed": lambda folder: evaluate({"real": REAL}, folder=folder, seed=2),
    "other training scans": lambda folder: evaluate({"real": SYNTHETIC}, folder=folder),
    "other test patients": lambda folder: evaluate({"real": REAL}, TEST.only([0, 1]), folder),
    "other grouping of test scans": lambda folder: evaluate(
        {"real": REAL}, replace(TEST, patients=("t00", "t00", "t02")), folder
    ),
    "another meaning of a region": lambda folder: evaluate_arms(
        {"real": REAL},
        TEST,
        STUDY.model_copy(update={"regions": {"whole": (4,)}}),
        seed=1,
        device=CPU,
        plan=PLAN,
        folder=folder,
    ),
    "patches instead of whole scans": lambda folder: evaluate_arms(
        {"real": REAL},
        TEST,
        STUDY.model_copy(update={"training": STUDY.training.model_copy(update={"patch": PATCH})}),
        seed=1,
        device=CPU,
        plan=PLAN,
        folder=folder,
    ),
    "a damaged file": lambda folder: (
        (folder / "arm-real.json").write_text("{"),
        evaluate({"real": REAL}, folder=folder),
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_an_arm_kept_from_other_circumstances_is_trained_again(change, counted: Counted, tmp_path: Path) -> None:
    evaluate({"real": REAL}, folder=tmp_path)
    change(tmp_path)
    assert counted.trained == [2, 2]


def test_progress_names_the_arm() -> None:
    told: list[tuple[str, int, int]] = []
    evaluate_arms(
        {"real": REAL},
        TEST,
        STUDY,
        seed=1,
        device=CPU,
        plan=replace(PLAN, steps=2),
        progress=lambda name, done, total: told.append((name, done, total)),
    )
    assert told == [("real", 1, 2), ("real", 2, 2)]


# From cohorts


def run(folder: Path, public: Path | None = None, out: Path | None = None, test: str = "test") -> Report:
    sources = Sources(real_train=folder / "train", real_test=folder / test, synthetic=folder / "made", public=public)
    return evaluate_by("arms", sources, replace(OPTIONS, out=out))


@pytest.fixture
def cohorts(tmp_path: Path) -> Path:
    write_tiny_cohort(tmp_path / "train", 2)
    write_tiny_cohort(tmp_path / "test", 2, seed=2, prefix="t")
    write_tiny_cohort(tmp_path / "made", 2, seed=1, prefix="synthetic")
    write_tiny_cohort(tmp_path / "public", 2, seed=4, prefix="open")
    return tmp_path


@pytest.mark.parametrize("protocol", ["arms", "fidelity"])
def test_a_result_of_other_settings_is_not_overwritten(protocol: Protocol, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    result = out / RESULTS[protocol]
    result.write_text(json.dumps({"segmenter": {"steps": 2, "seed": 1}}))
    options = replace(OPTIONS, out=out, steps=2, seed=1)
    options.check(protocol)
    with pytest.raises(OutputTaken, match="segmenters of 2 steps"):
        replace(options, steps=3).check(protocol)
    with pytest.raises(OutputTaken, match="what seed 1 gave"):
        replace(options, seed=2).check(protocol)
    result.write_text("{")
    replace(options, steps=3).check(protocol)  # a damaged file is nothing to keep


def test_arms_of_a_call_that_was_broken_off_are_not_overwritten_by_another_seeds(cohorts: Path, tmp_path: Path) -> None:
    run(cohorts, out=tmp_path / "out")
    (tmp_path / "out" / RESULTS["arms"]).unlink()
    with pytest.raises(OutputTaken, match=f"what seed {OPTIONS.seed} gave"):
        replace(OPTIONS, out=tmp_path / "out", seed=OPTIONS.seed + 1).check("arms")


def test_cohorts_are_evaluated_and_the_result_kept_for_its_owner_alone(
    cohorts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(cohorts, cohorts / "public", tmp_path / "out")
    kept = tmp_path / "out" / "evaluation.json"
    assert json.loads(kept.read_text()) == report.content
    with pytest.raises(PolicyRefused, match="fewer than 20 test patients"):  # and nothing else in it is amiss
        evaluation_extract([kept.read_bytes()], synthetic_digest(cohorts / "made"))
    assert kept.stat().st_mode & 0o777 == 0o600
    names = [entry["name"] for entry in json.loads(json.dumps(report.content))["arms"]]
    assert names == ["real", "synthetic", "real+synthetic", "public", "public+synthetic"]
    report.print(as_json=True)
    assert json.loads(capsys.readouterr().out) == report.content
    report.print(as_json=False)
    assert "2 real test patients" in capsys.readouterr().out


def test_procedural_test_patients_are_not_called_real(
    cohorts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = {"Synthetic": True, "Phantom": {"atlas": {}, "patient": {}, "scanner": {}}}
    for cohort in ("train", "test"):
        for sidecar in (cohorts / cohort).rglob("sub-*/anat/*.json"):
            sidecar.write_text(json.dumps(drawn))
    report = run(cohorts)
    assert report.content["procedural_test_patients"] == 2
    assert report.content["procedural_training_patients"] == 2
    report.print(as_json=False)
    said = capsys.readouterr().out
    assert "Dice on 2 procedural test patients" in said
    assert "real" not in said  # no arm is called so, either
    assert "  procedural+synthetic" in said
    assert report.content["arms"][0]["name"] == "real"  # in JSON arms keep their names


@pytest.mark.parametrize(
    ("test", "training", "said", "told"),
    [
        ("ab", "cd", "", "2 real test patients"),
        ("ab", "cd", "abcd", "2 procedural test patients"),
        ("ab", "cd", "a", "2 test patients, some real and some procedural"),
    ],
)
def test_whom_figures_are_computed_on_is_told_as_cohorts_say(test: str, training: str, said: str, told: str) -> None:
    whom = examined(tuple(test), tuple(training), frozenset(said))
    assert whom.test_patients(2) == told
    assert ("real patients" in whom.notice) == (said != "abcd")


def test_a_missed_structure_and_an_exact_bound_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    regions = ("whole", "foreground")
    dice = {"missed": np.array([0.0, 0.8, 0.7]), "alike": np.full(3, 0.5)}
    arms = tuple(
        Arm(
            name,
            4,
            Scores(
                dict.fromkeys(regions, values),
                dict.fromkeys(regions, np.array([99.0, 3.0, 4.0])),
                dict.fromkeys(regions, np.array([1.0, 0, 0]) if name == "missed" else np.zeros(3)),
            ),
        )
        for name, values in dice.items()
    )
    content = Evaluation(arms, "whole", SegmenterPlan(), 0, 99.0, dict.fromkeys(regions, 3)).to_json()
    by_name = {arm["name"]: arm for arm in content["arms"]}
    assert by_name["missed"]["hd95_missed"] == {"whole": 1, "foreground": 1}
    assert by_name["alike"]["hd95_missed"] == {"whole": 0, "foreground": 0}
    assert by_name["missed"]["dice"]["ci_kind"] == "bootstrap"
    assert by_name["alike"]["dice"]["ci_kind"] == "exact bound"
    print_evaluation(content, examined(("a", "b", "c"), ("d",), frozenset()))
    lines = capsys.readouterr().out.splitlines()
    missed = [line for line in lines if line.startswith("  missed")]
    alike = [line for line in lines if line.startswith("  alike")]
    assert all("mm†" in line and "‡" not in line for line in missed)
    assert all("]‡" in line and "†" not in line for line in alike)
    assert sum(line.startswith("†") for line in lines) == 1
    assert any("99.0 mm, the grid's diagonal" in line for line in lines)
    assert "bootstrap interval" not in " ".join(lines)


def test_a_patient_in_both_cohorts_is_refused_without_a_name(cohorts: Path) -> None:
    write_tiny_cohort(cohorts / "again", 1, seed=9)  # another scan of patient p00
    with pytest.raises(DataError, match="--real-test is also in --real-train") as refused:
        run(cohorts, test="again")
    assert "p00" not in str(refused.value)


def test_an_unknown_device_is_said_before_any_cohort_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not available"):
        evaluate_by("arms", Sources(synthetic=tmp_path, run=tmp_path), replace(OPTIONS, device="abacus"))


def test_a_runs_coin_records_say_who_trains_and_who_tests(cohorts: Path) -> None:
    write_tiny_cohort(cohorts / "site", 10)
    text = to_toml(STUDY.model_copy(update={"roles": RolesTable(test=0.3, audit=0.4)}))
    parameters = ParameterSpec.of(numpy_parameters(make_generator(STUDY, 0)))
    folder = create_site_folder(cohorts / "site-a", "site-a", cohorts / "site", text, parameters)
    sources = Sources(run=folder.root, synthetic=cohorts / "made", public=cohorts / "public")
    arms = {arm["name"]: arm for arm in evaluate_by("arms", sources, OPTIONS).content["arms"]}
    coins = load_roles(folder.coins)
    assert arms["real"]["scans"] == len(coins.training_patients()) < 10
    assert arms["real"]["dice"]["n_test"] == 3
    assert arms.keys() == {"real", "synthetic", "real+synthetic", "public", "public+synthetic"}


MISUSED = {
    "neither a run nor two cohorts": ([], "either the run or both cohorts"),
    "one cohort": (["--real-train", "a"], "either the run or both cohorts"),
    "a run and a cohort": (["--run", "r", "--real-test", "b"], "either the run or both cohorts"),
    "a run and two cohorts": (["--run", "r", "--real-train", "a", "--real-test", "b"], "either the run or both"),
    "a run and a study": (["--run", "r", "--study", "study.toml"], "either the run or both cohorts"),
    "seeds without shin": (["--run", "r", "--seeds", "2"], "only with --protocol shin"),
    "a sweep without shin": (["--run", "r", "--protocol", "fidelity", "--sweep"], "only with --protocol shin"),
    "few patients without shin": (["--run", "r", "--real-patients", "4"], "only with --protocol shin"),
    "shin without a folder": (["--run", "r", "--protocol", "shin"], "give it a folder"),
    "fidelity with public scans": (["--run", "r", "--protocol", "fidelity", "--public", "p"], "protocol fidelity"),
}


@pytest.mark.parametrize(("arguments", "told"), MISUSED.values(), ids=MISUSED.keys())
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fedphantom(["evaluate", "--synthetic", "s", *arguments]) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())  # typer wraps in a frame
    assert told in said
