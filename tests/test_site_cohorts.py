"""Whose patients each site of a simulation has, and that no scan is at two of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from linear_run import linear_simulation
from tiny_cohorts import write_tiny_cohort

from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.errors import ConfigError, DataError, PolicyRefused
from fedphantom.common.site_folder import SiteFolder
from fedphantom.server.site_cohorts import own_cohorts, view_in_place


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """One cohort of four patients: p00 and p02 at A, p01 at B, p03 at none."""
    cohort = write_tiny_cohort(tmp_path / "cohort", 4)
    rows = ["sub-p00\tA", "sub-p01\tB", "sub-p02\tA", "sub-p03\tn/a"]
    (cohort / "participants.tsv").write_text("\n".join(["participant_id\tsite", *rows]) + "\n")
    return cohort


def placed(sites: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Site to the path it trains on, its table in ``folder``."""
    return {name: own.placed(folder / name / "cohort.tsv") for name, own in own_cohorts(sites).items()}


def patients(cohort: Path) -> list[str]:
    return [patient.patient_id for patient in read_cohort(cohort).patients]


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_of_a_cohort_of_several_sites_each_site_takes_its_own_patients(shared: Path, tmp_path: Path) -> None:
    own = placed({"A": shared, "B": shared}, tmp_path)
    assert {name: patients(path) for name, path in own.items()} == {"A": ["p00", "p02"], "B": ["p01"]}
    assert read_cohort(own["A"]).label_names == read_cohort(shared).label_names


def test_a_simulation_gives_each_site_its_own_patients_and_goes_on_with_them(shared: Path, tmp_path: Path) -> None:
    first = linear_simulation(tmp_path / "out", {"A": shared, "B": shared})
    found = {name: patients(SiteFolder.open(first.folder.site(name)).cohort) for name in ("A", "B")}
    assert found == {"A": ["p00", "p02"], "B": ["p01"]}
    assert linear_simulation(tmp_path / "out", {"A": shared, "B": shared}).rounds == first.rounds


def test_a_site_that_the_cohort_does_not_name_is_refused_with_those_it_has(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none of them 'C'; expected one of its sites: A, B"):
        own_cohorts({"A": shared, "C": shared})


def test_a_cohort_of_one_site_is_taken_whole_from_where_it_lies(tmp_path: Path) -> None:
    sites = {name: write_tiny_cohort(tmp_path / name, 2, seed) for seed, name in enumerate(("one", "two"))}
    assert placed(sites, tmp_path / "out") == sites
    assert not (tmp_path / "out").exists()


def test_a_cohort_that_cannot_be_read_is_left_to_its_site(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "empty").mkdir()
    own = placed({"A": shared, "other": tmp_path / "empty"}, tmp_path)
    assert own["other"] == tmp_path / "empty"


def test_the_same_cohort_at_two_sites_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    cohort = write_tiny_cohort(tmp_path / "cohort", 2)
    with pytest.raises(DataError, match="the same scan at sites one and two") as refused:
        linear_simulation(tmp_path / "out", {"one": cohort, "two": cohort})
    assert "p00" not in str(refused.value)
    assert str(tmp_path) not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_one_copied_file_under_another_name_is_enough_to_be_refused(tmp_path: Path) -> None:
    sites = {name: write_tiny_cohort(tmp_path / name, 3, seed) for seed, name in enumerate(("one", "two"))}
    source = next(iter(read_cohort(sites["one"]).scans[0].channels.values())).path
    target = next(iter(read_cohort(sites["two"]).scans[2].channels.values())).path
    shutil.copyfile(source, target)
    with pytest.raises(DataError, match="the same scan"):
        own_cohorts(sites)


def test_empty_files_and_the_same_label_map_are_no_shared_scan(tmp_path: Path) -> None:
    sites = {name: write_tiny_cohort(tmp_path / name, 2, seed) for seed, name in enumerate(("one", "two"))}
    scans = {name: read_cohort(path).scans[0] for name, path in sites.items()}
    assert scans["one"].label is not None
    assert scans["two"].label is not None
    shutil.copyfile(scans["one"].label, scans["two"].label)
    for scan in scans.values():
        next(iter(scan.channels.values())).path.write_bytes(b"")
    assert placed(sites, tmp_path) == sites


def test_a_table_of_other_patients_is_neither_used_nor_overwritten(shared: Path, tmp_path: Path) -> None:
    own = placed({"A": shared}, tmp_path / "out")
    before = everything(tmp_path / "out")
    with pytest.raises(PolicyRefused, match=r"a cohort that changed .* what was spent stays spent"):
        view_in_place(own["A"], read_cohort(shared).by_site()["B"])
    assert everything(tmp_path / "out") == before
