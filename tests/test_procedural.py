"""Who is procedural is read beside every file; whoever is not known to be is a real person."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_cohorts import CHANNELS, draw_labels, render, tiny_study, write_tiny_cohort

from fedphantom.common.cohorts.bids_writer import BidsWriter
from fedphantom.common.cohorts.layouts import read_cohort, write_table
from fedphantom.common.cohorts.procedural import procedural_patients
from fedphantom.common.phantom.patients import write_phantom_cohort


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom") / "cohort"
    write_phantom_cohort(root, 2, spacing_mm=12)
    return root


def test_what_cohort_phantom_made_is_procedural_wherever_it_is_viewed_from(phantoms: Path, tmp_path: Path) -> None:
    cohort = read_cohort(phantoms)
    assert procedural_patients(cohort) == {"phantom0001", "phantom0002"}
    write_table(tmp_path / "site.tsv", cohort)
    assert procedural_patients(read_cohort(tmp_path / "site.tsv")) == {"phantom0001", "phantom0002"}


def test_scans_without_sidecars_and_cohorts_of_no_phantom_are_real(tmp_path: Path) -> None:
    assert procedural_patients(read_cohort(write_tiny_cohort(tmp_path / "plain", 2))) == frozenset()
    study, random = tiny_study(), np.random.default_rng(0)
    with BidsWriter(tmp_path / "made", study.volume_grid(), CHANNELS, study.labels, "made", synthetic=True) as writer:
        labels = draw_labels(random)
        writer.add("g1", render(labels, random), labels, {"GeneratorSha256": "ab" * 32})
    assert procedural_patients(read_cohort(tmp_path / "made")) == frozenset(), (
        "a generator may have learnt from persons"
    )


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


SPOILED: dict[str, Callable[[Path], object]] = {
    "a channel without its sidecar": lambda anat: next(anat.glob("*_T2w.json")).unlink(),
    "a label map without its sidecar": lambda anat: next(anat.glob("*_dseg.json")).unlink(),
    "a damaged sidecar": lambda anat: next(anat.glob("*_FLAIR.json")).write_text("{"),
    "a sidecar that is a list": lambda anat: next(anat.glob("*_FLAIR.json")).write_text("[]"),
    "not synthetic": lambda anat: edit(next(anat.glob("*_T1w.json")), lambda c: c.update(Synthetic=False)),
    "synthetic in other words": lambda anat: edit(next(anat.glob("*_T1w.json")), lambda c: c.update(Synthetic="yes")),
    "no draw": lambda anat: edit(next(anat.glob("*_T1w.json")), lambda c: c.pop("Phantom")),
    "half a draw": lambda anat: edit(next(anat.glob("*_T1w.json")), lambda c: c["Phantom"].pop("patient")),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_one_file_that_does_not_say_so_makes_its_patient_a_real_one(
    spoil: Callable[[Path], object], tmp_path: Path
) -> None:
    write_phantom_cohort(tmp_path / "cohort", 2, spacing_mm=12)
    spoil(tmp_path / "cohort" / "sub-phantom0001" / "anat")
    assert procedural_patients(read_cohort(tmp_path / "cohort")) == {"phantom0002"}


def test_a_patient_without_a_single_file_is_real(phantoms: Path) -> None:
    cohort = read_cohort(phantoms)
    emptied = replace(cohort, patients=tuple(replace(p, scans=()) for p in cohort.patients))
    assert procedural_patients(emptied) == frozenset()
