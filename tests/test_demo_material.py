"""What a demo works on: a study in which no private patient has a say, and a folder that is its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedphantom.common.cohort import Patient
from fedphantom.common.cohorts.bids_writer import BidsWriter
from fedphantom.common.cohorts.layouts import read_cohort, write_table
from fedphantom.common.errors import ConfigError, DataError, OutputTaken
from fedphantom.common.labels.chain import UNSTATED
from fedphantom.common.phantom.patients import write_phantom_cohort
from fedphantom.common.study import PublicLabelsTable
from fedphantom.common.study_template import study_for
from fedphantom.common.volumes.grid import Grid
from fedphantom.server.demo_material import (
    DEMO_FILE,
    PHANTOM_SIZES,
    REAL_SIZES,
    check_data,
    claim_folder,
    derive_study,
    gather_cohorts,
)

PUBLIC = Grid((17, 33, 24), (1.0, 1.0, 2.0))
FACTS: Mapping[str, object] = {"data": None, "sites": 3, "tier": "internal"}


def patients(root: Path, site: str, grid: Grid, number: int, values: tuple[int, ...] = (1, 2)) -> tuple[Patient, ...]:
    """Patients of one site, every value in every label map."""
    names = {"background": 0} | {f"v{value}": value for value in values}
    random = np.random.default_rng(list(site.encode()))
    with BidsWriter(root / site, grid, ["T1"], names, site, synthetic=False) as writer:
        for i in range(number):
            labels = np.zeros(grid.shape, np.uint8)
            labels.reshape(-1)[100 : 100 + len(values)] = values
            writer.add(f"{site}{i}", random.uniform(1, 2, (1, *grid.shape)).astype(np.float32), labels, {}, site=site)
    return read_cohort(root / site).patients


def written(root: Path, *groups: tuple[Patient, ...]) -> Path:
    """One table cohort of all of them; it declares no label names of its own."""
    some = read_cohort(root / "public")
    cohort = replace(some, patients=tuple(p for group in groups for p in group), label_names={})
    write_table(root / "all.tsv", cohort)
    return root / "all.tsv"


def study_of(table: Path, out: Path) -> object:
    return gather_cohorts(out, table, 2, REAL_SIZES, lambda done, total: None).study


def test_no_private_patient_moves_the_studys_grid_channels_or_labels(tmp_path: Path) -> None:
    public = patients(tmp_path, "public", PUBLIC, 2)
    alike = written(tmp_path, public, patients(tmp_path, "A", PUBLIC, 3), patients(tmp_path, "B", PUBLIC, 3))
    study = study_of(alike, tmp_path / "one")
    odd = Grid((64, 40, 48), (3.0, 2.0, 1.0))
    labelled = patients(tmp_path, "D", odd, 4), patients(tmp_path, "E", odd, 1, (1, 2, 7))
    elsewhere = tuple(replace(patient, site="D") for patient in labelled[1])
    other = written(tmp_path, public, patients(tmp_path, "C", odd, 4), labelled[0] + elsewhere)
    assert study_of(other, tmp_path / "two") == study
    assert study.grid.shape == (16, 32, 24)  # type: ignore[attr-defined]
    assert study.grid.spacing_mm == (1.0, 1.0, 2.0)  # type: ignore[attr-defined]


def test_patients_whom_the_study_cannot_use_are_counted_as_left_out(tmp_path: Path) -> None:
    odd = patients(tmp_path, "B", PUBLIC, 1, (1, 2, 7))
    public, own = patients(tmp_path, "public", PUBLIC, 2), patients(tmp_path, "A", PUBLIC, 3)
    table = written(tmp_path, public, own, tuple(replace(patient, site="A") for patient in odd))
    gathered = gather_cohorts(tmp_path / "out", table, 2, REAL_SIZES, lambda done, total: None)
    assert gathered.left_out == 1
    assert [p.patient_id for p in gathered.private.patients] == ["A0", "A1", "A2"]
    assert gathered.public is not None
    assert len(gathered.public.patients) == 2
    with pytest.raises(DataError, match="no usable patient at site 'B'"):
        study_of(written(tmp_path, public, own, odd), tmp_path / "two")


def test_procedural_patients_have_no_say_either_and_fit_the_study(tmp_path: Path) -> None:
    """The demo asks nobody; a study derived from all of them is the same but for what it calls itself."""
    write_phantom_cohort(tmp_path / "cohort", 3, spacing_mm=PHANTOM_SIZES.spacing_mm)
    cohort = read_cohort(tmp_path / "cohort")
    derived = study_for(cohort, name="x", seed=0, public_labels=PublicLabelsTable(source="atlas"))
    study = derive_study(None, PHANTOM_SIZES)
    assert (study.grid, study.channels, study.labels) == (derived.grid, derived.channels, derived.labels)


def test_the_public_label_maps_carry_the_cohorts_own_licence_and_citation(tmp_path: Path) -> None:
    table = written(tmp_path, patients(tmp_path, "public", PUBLIC, 2), patients(tmp_path, "A", PUBLIC, 3))
    public = read_cohort(table).by_site()["public"]
    unstated = derive_study(public, REAL_SIZES).public_labels
    assert (unstated.licence, unstated.citation) == (UNSTATED, "")
    says = {"name": "Hippocampus", "licence": "CC-BY-SA 4.0", "reference": "Vanderbilt"}
    (tmp_path / "dataset.json").write_text(json.dumps(says))
    stated = derive_study(public, REAL_SIZES).public_labels
    assert (stated.name, stated.licence, stated.citation) == (
        "Hippocampus: patients marked public",
        "CC-BY-SA 4.0",
        "Vanderbilt",
    )


def test_data_that_cannot_be_a_demos_is_refused_by_its_tables_alone(tmp_path: Path) -> None:
    private = patients(tmp_path, "A", PUBLIC, 2)
    public = patients(tmp_path, "public", PUBLIC, 1)
    check_data(written(tmp_path, public, private), 2)
    with pytest.raises(ConfigError, match="3 sites"):
        check_data(written(tmp_path, public, private), 3)
    with pytest.raises(DataError, match="without public patients"):
        check_data(written(tmp_path, private), 2)


# --- whose folder it is


def test_a_folder_claimed_once_is_gone_on_with_by_the_same_call(tmp_path: Path) -> None:
    claim_folder(tmp_path / "out", FACTS)
    before = (tmp_path / "out" / DEMO_FILE).read_bytes()
    claim_folder(tmp_path / "out", FACTS)
    assert (tmp_path / "out" / DEMO_FILE).read_bytes() == before


CLAIMS: dict[str, tuple[str, str, str]] = {
    "other arguments": ("", '{"data": null, "sites": 2, "tier": "internal"}', "another cohort, other sites"),
    "before demos were marked": (
        '{"data": null, "sites": 3, "tier": "internal"}',
        "",
        "a demo that an earlier fedphantom began",
    ),
    "another version": (
        '{"data": null, "sites": 3, "tier": "internal", "software": "fedphantom 0.0.9", "format": 2}',
        "",
        "a demo that fedphantom 0.0.9 began",
    ),
    "another program's demo.json": ('{"demo": true}', "", "a folder whose demo.json no demo wrote"),
    "a torn demo.json": ("{", "", "a folder whose demo.json no demo wrote"),
}


@pytest.mark.parametrize(("content", "facts", "told"), CLAIMS.values(), ids=CLAIMS.keys())
def test_another_demos_folder_is_refused_untouched(content: str, facts: str, told: str, tmp_path: Path) -> None:
    if content:
        (tmp_path / DEMO_FILE).write_text(content)
    else:
        claim_folder(tmp_path, FACTS)
    before = (tmp_path / DEMO_FILE).read_bytes()
    with pytest.raises(ConfigError, match=told) as caught:
        claim_folder(tmp_path, json.loads(facts) if facts else FACTS)
    assert "--out" in caught.value.remedy
    assert (tmp_path / DEMO_FILE).read_bytes() == before


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "sub-01").mkdir()
    with pytest.raises(OutputTaken, match="holds something else"):
        claim_folder(tmp_path, FACTS)
    assert [p.name for p in tmp_path.iterdir()] == ["sub-01"]
