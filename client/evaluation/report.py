"""``evaluate`` from where the scans lie to a table or JSON, by any of its protocols."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ...common.atomic import write_atomic
from ...common.cohorts.preparation import PreparedScans, joined
from ...common.device import choose_device
from ...common.errors import about
from ...common.output_place import refuse_used
from ...common.segmentation import SegmenterPlan
from ...common.study import Study
from ...privacy.report.people import arm_name
from .arms import evaluate_arms
from .carriers import absent_in_words, how_many_have_it
from .kept import refuse_other_settings
from .material import Material, Sources
from .segmenters import KEPT
from .tested import Examined

RESULTS = {"arms": "evaluation.json", "shin": "shin.json", "fidelity": "fidelity.json"}
"""The file that each protocol writes last."""

_MISSED, _EXACT = "†", "‡"
_EXACTLY = "all score the same, and it is what so many patients rule out"

Progress = Callable[[int, int], None]
Protocol = Literal["arms", "shin", "fidelity"]


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How the U-Nets are trained, and where what is finished is kept.

    Attributes:
        steps: Of every U-Net.
        seed: Of every U-Net; the first of several.
        device: As :func:`~fedphantom.common.device.choose_device`.
        out: Folder for finished arms and the result; None to keep nothing, which the Shin protocol does not allow.
        progress: Called during training.
        say: Told a line for a person: what a cohort check left out, how long it will take, what is done.
        seeds: Training seeds of the Shin protocol, counted up from ``seed``.
        real_patients: The Shin protocol's arms with so many real patients; None for none.
        sweep: Whether the Shin protocol sweeps the share of synthetic scans.
    """

    steps: int
    seed: int
    device: str
    out: Path | None
    progress: Progress
    say: Callable[[str], None]
    seeds: int = 3
    real_patients: int | None = None
    sweep: bool = False

    def check(self, protocol: Protocol) -> None:
        """Find that the device and the folder can be used, before any cohort is read.

        Raises:
            ConfigError: no such device.
            OutputTaken: the folder is a file, or holds something else, or what other settings gave.
        """
        choose_device(self.device)
        if self.out:
            kept = {KEPT, *(arm.name for arm in self.out.glob("arm-*.json"))}
            with about("--out"):
                refuse_used(self.out, RESULTS[protocol], {"cache", *RESULTS.values(), *kept})
            files = {"arms": self.out.glob("arm-*.json"), "shin": (self.out / KEPT).glob("arm-*.json")}
            refuse_other_settings(
                files.get(protocol, ()),
                self.out / RESULTS[protocol],
                steps=self.steps,
                seeds=self.training_seeds if protocol == "shin" else (self.seed,),
                seed_in_name=protocol == "shin",
            )

    @property
    def training_seeds(self) -> tuple[int, ...]:
        """Of the Shin protocol."""
        return tuple(range(self.seed, self.seed + self.seeds))

    @contextmanager
    def cache(self) -> Iterator[Path]:
        """Where prepared scans stand meanwhile."""
        if self.out:
            yield self.out / "cache"
        else:
            with tempfile.TemporaryDirectory(prefix="fedphantom-evaluate-") as scratch:
                yield Path(scratch)


@dataclass(frozen=True)
class Report:
    """What ``evaluate`` found.

    Attributes:
        content: What ``--json`` prints, DESIGN §5.
        show: Prints it for a person.
    """

    content: Mapping[str, Any]
    show: Callable[[], None] = field(compare=False)

    def print(self, *, as_json: bool) -> None:
        """To stdout: one JSON object, or text."""
        if as_json:
            print(json.dumps(self.content, indent=1))
        else:
            self.show()


def evaluate(protocol: Protocol, sources: Sources, options: EvaluationOptions) -> Report:
    """Train, score and write, by one protocol.

    Raises:
        FedPhantomError: a cohort, a coin record, the study or the device cannot be used, or a test patient was trained
            on.
    """
    options.check(protocol)
    with options.cache() as cache:
        material = sources.material(cache, options.say)
        match protocol:
            case "arms":
                return _arms(material, options)
            case "shin":
                return _shin(material, options)
            case "fidelity":
                return _fidelity(material, options)


def _arms(material: Material, options: EvaluationOptions) -> Report:
    train, made = material.train, material.synthetic
    arms = {"real": train, "synthetic": made, "real+synthetic": joined([train, made])}
    if material.public:
        arms["public"] = material.public
        arms["public+synthetic"] = joined([arms["public"], made])
    evaluation = evaluate_scans(
        arms,
        material.test,
        material.study,
        steps=options.steps,
        seed=options.seed,
        folder=options.out,
        device=options.device,
        progress=options.progress,
    )
    evaluation["synthetic_sha256"] = material.synthetic_sha256
    whom = material.examined
    evaluation |= whom.to_json()
    if options.out:
        write_atomic(options.out / RESULTS["arms"], (json.dumps(evaluation, indent=1) + "\n").encode(), mode=0o600)
    return Report(evaluation, partial(print_evaluation, evaluation, whom))


def _shin(material: Material, options: EvaluationOptions) -> Report:
    from .shin import ShinOptions  # matplotlib and rich's tables only where they are needed
    from .shin_run import run_shin
    from .shin_table import print_table

    if options.out is None:
        raise ValueError("the Shin protocol takes hours: it needs a folder to go on in")
    how = ShinOptions(
        steps=options.steps,
        seeds=options.training_seeds,
        real_patients=options.real_patients,
        sweep=options.sweep,
    )
    device = choose_device(options.device)
    result = run_shin(material, how, options.out, device, options.say, options.progress)
    return Report(result.to_json(), partial(print_table, result))


def _fidelity(material: Material, options: EvaluationOptions) -> Report:
    from .fidelity import measure_fidelity
    from .fidelity_text import print_fidelity

    plan = SegmenterPlan(steps=options.steps)
    fidelity = measure_fidelity(
        material, plan, options.seed, choose_device(options.device), options.say, options.progress
    )
    if options.out:
        text = json.dumps(fidelity.to_json(), indent=1) + "\n"
        write_atomic(options.out / RESULTS["fidelity"], text.encode(), mode=0o600)
    return Report(fidelity.to_json(), partial(print_fidelity, fidelity))


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
    """The protocol ``arms`` from prepared scans; what ``--json`` prints."""
    done_steps = dict.fromkeys(arms, 0)

    def report(arm: str, step: int, total: int) -> None:
        done_steps[arm] = step
        progress(sum(done_steps.values()), total * len(arms))

    plan = SegmenterPlan(steps=steps)
    evaluation = evaluate_arms(
        arms, test, study, seed=seed, device=choose_device(device), plan=plan, folder=folder, progress=report
    )
    return evaluation.to_json()


def print_evaluation(evaluation: Mapping[str, Any], whom: Examined) -> None:
    """A line an arm to stdout, the study's region first, narrow enough for any terminal."""
    arms, primary = evaluation["arms"], evaluation["region"]
    names = {arm["name"]: arm_name(arm["name"], whom.training.kind) for arm in arms}
    wide = max(map(len, names.values()))
    marks = set()
    patients, having = arms[0]["dice"]["n_test"], evaluation["test_patients_with"]
    print(f"Dice on {whom.test_patients(patients)}: mean [95 % interval], by training scans")
    for region in dict.fromkeys([primary, *arms[0]["per_label"]]):
        some = how_many_have_it(having[region], patients)
        print(f"{region} ({some})" if some else region)
        for arm in arms:
            dice, hd95, missed = arm["per_label"][region], arm["hd95_mm"][region], arm["hd95_missed"][region]
            ratio = evaluation["ratio_to_real"].get(arm["name"]) if region == primary else None
            of_real = f"  {ratio['mean']:.3f} of {names['real']}" if ratio else ""
            low, high = dice["ci"]
            exact = _EXACT if dice["ci_kind"] != "bootstrap" else ""
            distance = f"  HD95 {hd95['mean']:.1f} mm{_MISSED if missed else ''}"
            marks |= {exact, _MISSED if missed else ""}
            print(
                f"  {names[arm['name']]:<{wide}} {arm['scans']:>5}  {dice['mean']:.3f} [{low:.3f}, {high:.3f}]{exact}"
                f"{distance}{of_real}"
            )
    print("Intervals: bootstrap over patients" + (f"; {_EXACT} {_EXACTLY}" if _EXACT in marks else ""))
    if _MISSED in marks:
        diagonal = evaluation["hd95_mm_where_missed"]
        print(f"{_MISSED} missed in a patient, or found where there is none: {diagonal:.1f} mm, the grid's diagonal")
    if absent := absent_in_words(having):
        print(absent)
