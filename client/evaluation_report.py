"""``evaluate`` from cohort paths to a table or JSON."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.atomic import write_atomic
from ..common.cohort import Cohort
from ..common.cohorts.check import check_cohort
from ..common.cohorts.layouts import read_cohort, read_public
from ..common.cohorts.preparation import PreparedScans, joined, prepare
from ..common.device import choose_device
from ..common.errors import DataError, about
from ..common.output_place import refuse_used
from ..common.segmentation import SegmenterPlan
from ..common.site_folder import site_folders, site_material, training_and_test_scans
from ..common.study import PublicLabelsTable, Study, read_study
from ..common.study_template import study_for
from .evaluation import evaluate_arms

RESULT = "evaluation.json"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How every arm's U-Net is trained, and where what is finished is kept.

    Attributes:
        steps: Of every U-Net.
        seed: Of every U-Net.
        device: As :func:`~fedphantom.common.device.choose_device`.
        out: Folder for finished arms and the result; None to keep nothing.
        progress: Called during training.
        say: Told what a cohort check left out.
    """

    steps: int
    seed: int
    device: str
    out: Path | None
    progress: Progress
    say: Callable[[str], None]

    def check(self) -> None:
        """Find that the device and the folder can be used, before any cohort is read.

        Raises:
            ConfigError: no such device.
            OutputTaken: the folder is a file, or holds something else.
        """
        choose_device(self.device)
        if self.out:
            refuse_used(self.out, RESULT, {"cache", *(arm.name for arm in self.out.glob("arm-*.json"))})

    @contextmanager
    def cache(self) -> Iterator[Path]:
        """Where prepared scans stand meanwhile."""
        if self.out:
            yield self.out / "cache"
        else:
            with tempfile.TemporaryDirectory(prefix="fedphantom-evaluate-") as scratch:
                yield Path(scratch)


def evaluate_run(run: Path, synthetic: Path, public: Path | None, options: EvaluationOptions) -> dict[str, Any]:
    """Train and score every arm with the patients that a run's coin records name for training and for test.

    Args:
        run: What ``simulate`` left, or one site's folder.
        synthetic: Cohort path.
        public: Cohort path.
        options: How.

    Returns:
        What ``--json`` prints, DESIGN §5.

    Raises:
        FedPhantomError: there is no site's folder in the run, or a cohort, a coin record or the device cannot be used.
    """
    options.check()
    with about("--run"):
        folders = site_folders(run)
        study = folders[0].study()
        materials = []
        for folder in folders:
            with about(f"site '{folder.name}'"):
                materials.append(site_material(folder, study))
        train, test = training_and_test_scans(materials)
        if not len(test):
            raise DataError(
                "no patient with the role 'test' at any site",
                expected="some: roles.test above 0, and enough patients",
                remedy="Start a run with another [roles], or give --real-train and --real-test.",
            )
    with options.cache() as cache:
        return _evaluate(train, test, synthetic, public, study, cache, options)


def evaluate_cohorts(
    real_train: Path,
    real_test: Path,
    synthetic: Path,
    public: Path | None,
    study_file: Path | None,
    options: EvaluationOptions,
) -> dict[str, Any]:
    """Prepare the cohorts on one grid, train and score every arm.

    Args:
        real_train: Cohort path.
        real_test: Cohort path; no patient of it may be among the training patients.
        synthetic: Cohort path.
        public: Cohort path.
        study_file: Names grid, channels and labels; None to derive them from the synthetic cohort.
        options: How.

    Returns:
        What ``--json`` prints, DESIGN §5.

    Raises:
        FedPhantomError: a cohort, the study or the device cannot be used, or a test patient was trained on.
    """
    options.check()
    study = read_study(study_file) if study_file else _derived_study(synthetic)
    with options.cache() as cache:
        train = _prepared("--real-train", read_cohort, real_train, study, cache, options)
        test = _prepared("--real-test", read_cohort, real_test, study, cache, options)
        if not set(train.patients).isdisjoint(test.patients):
            raise DataError(
                "a patient of --real-test is also in --real-train",
                expected="test patients that nothing was trained on",
                remedy="Divide the cohort by patient; with --run the coin records do it.",
            )
        return _evaluate(train, test, synthetic, public, study, cache, options)


def _evaluate(
    train: PreparedScans,
    test: PreparedScans,
    synthetic: Path,
    public: Path | None,
    study: Study,
    cache: Path,
    options: EvaluationOptions,
) -> dict[str, Any]:
    made = _prepared("--synthetic", read_cohort, synthetic, study, cache, options)
    arms = {"real": train, "synthetic": made, "real+synthetic": joined([train, made])}
    if public:
        arms["public"] = _prepared("--public", read_public, public, study, cache, options)
        arms["public+synthetic"] = joined([arms["public"], made])
    evaluation = evaluate_scans(
        arms,
        test,
        study,
        steps=options.steps,
        seed=options.seed,
        folder=options.out,
        device=options.device,
        progress=options.progress,
    )
    if options.out:
        write_atomic(options.out / RESULT, (json.dumps(evaluation, indent=1) + "\n").encode())
    return evaluation


def evaluate_scans(
    arms: Mapping[str, PreparedScans],
    test: PreparedScans,
    study: Study,
    *,
    steps: int,
    seed: int,
    folder: Path | None,
    progress: Progress,
    device: str = "auto",
) -> dict[str, Any]:
    """As :func:`evaluate_cohorts`, from prepared scans."""
    done_steps = dict.fromkeys(arms, 0)

    def report(arm: str, step: int, total: int) -> None:
        done_steps[arm] = step
        progress(sum(done_steps.values()), total * len(arms))

    plan = SegmenterPlan(steps=steps)
    evaluation = evaluate_arms(
        arms, test, study, seed=seed, device=choose_device(device), plan=plan, folder=folder, progress=report
    )
    return evaluation.to_json()


def print_evaluation(evaluation: Mapping[str, Any], *, as_json: bool) -> None:
    """To stdout: one JSON object, or a line an arm, the study's region first, narrow enough for any terminal."""
    if as_json:
        print(json.dumps(evaluation, indent=1))
        return
    arms, primary = evaluation["arms"], evaluation["region"]
    wide = max(len(arm["name"]) for arm in arms)
    print(f"Dice on {arms[0]['dice']['n_test']} real test patients: mean [95 % bootstrap interval], by training scans")
    for region in dict.fromkeys([primary, *arms[0]["per_label"]]):
        print(f"{region}")
        for arm in arms:
            dice = arm["per_label"][region]
            ratio = evaluation["ratio_to_real"].get(arm["name"]) if region == primary else None
            of_real = f"  {ratio['mean']:.3f} of real" if ratio else ""
            low, high = dice["ci"]
            print(f"  {arm['name']:<{wide}} {arm['scans']:>5}  {dice['mean']:.3f} [{low:.3f}, {high:.3f}]{of_real}")


def _derived_study(synthetic: Path) -> Study:
    labels = PublicLabelsTable(source="atlas")
    with about("--synthetic"):
        return study_for(read_cohort(synthetic), name="evaluation", seed=0, public_labels=labels)


def _prepared(
    option: str,
    read: Callable[[Path], Cohort],
    path: Path,
    study: Study,
    cache: Path,
    options: EvaluationOptions,
) -> PreparedScans:
    """What can be used of a cohort; an error names the option that gave it, and what is left out is said."""
    with about(option):
        report = check_cohort(read(path), study)
        usable = report.usable_or_refused()
        if report.left_out:
            options.say(f"{option}: {report.left_out}")
        return prepare(usable, study, cache)
