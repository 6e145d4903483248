"""Remapping tables: what foreign label values mean, and that an unknown one is named and never guessed."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_cohorts import tiny_study, tiny_text

from fedphantom.cli import run
from fedphantom.common.cohorts.check import check_cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import content_key, prepare
from fedphantom.common.edits.inputs import InputFiles, PublicMaps, read_inputs
from fedphantom.common.errors import ConfigError, DataError
from fedphantom.common.labels.remapping import read_remapping, remap, remapping_problem
from fedphantom.common.study import Study, parse_study
from fedphantom.common.volumes.nifti_writer import write_label_map

LABELS = {"background": 0, "brain": 1, "tumour": 4}
TABLE = {"background": (0, 24), "brain": (2, 41, 1035), "tumour": (7,)}

# FreeSurferColorLUT.txt: what aseg.mgz holds, and the range of the cortex in aparc+aseg.mgz.
ASEG = [0, 2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 24, 26, 28, 30, 31, 41, 42, 43, 44, 46, 47, 49, 50]
ASEG += [51, 52, 53, 54, 58, 60, 62, 63, 72, 77, 78, 79, 80, 81, 82, 85, 192, 251, 252, 253, 254, 255]
CORTEX = [*range(1000, 1036), *range(2000, 2036)]


def foreign_cohort(root: Path, values: list[int]) -> Path:
    """One BIDS scan whose label map holds these values, one after the other."""
    anat = root / "sub-01" / "anat"
    anat.mkdir(parents=True)
    voxels = np.random.default_rng(0).uniform(1, 9, (16, 16, 16)).astype(np.float32)
    labels = np.resize(np.array(values, np.int32), (16, 16, 16))
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    for name, array in (("T1w", voxels), ("FLAIR", voxels + 1), ("dseg", labels)):
        nib.save(nib.Nifti1Image(array, affine), anat / f"sub-01_{name}.nii.gz")
    return root


def foreign_study() -> Study:
    table = json.dumps({name: list(values) for name, values in TABLE.items()})
    lines = table.replace(":", " =").strip("{}")
    return parse_study(tiny_text() + f"\n[remapping]\n{lines.replace('], ', ']' + chr(10))}\n")


@pytest.fixture(scope="module")
def freesurfer() -> Study:
    return parse_study((files("fedphantom.server") / "study_templates" / "anatomy-freesurfer.toml").read_text())


@given(st.lists(st.sampled_from([0, 24, 2, 41, 1035, 7]), min_size=1, max_size=30))
def test_every_voxel_gets_the_label_that_its_own_value_means(stored: list[int]) -> None:
    array = np.array(stored)
    new = remap(array, TABLE, LABELS)
    assert new.dtype == np.uint8
    names = {value: name for name, members in TABLE.items() for value in members}
    assert new.tolist() == [LABELS[names[value]] for value in stored]


@given(st.lists(st.integers(-5, 3000), min_size=1, max_size=30))
def test_a_value_that_no_line_names_is_refused_and_named(stored: list[int]) -> None:
    known = {value for members in TABLE.values() for value in members}
    unknown = sorted(set(stored) - known)
    if not unknown:
        return
    with pytest.raises(DataError) as refused:
        remap(np.array(stored), TABLE, LABELS)
    assert str(unknown[0]) in refused.value.found


def test_without_a_table_the_values_are_the_studys_own() -> None:
    assert remap(np.array([[0, 1], [4, 4]]), {}, LABELS).tolist() == [[0, 1], [4, 4]]
    with pytest.raises(DataError, match="outside the study's labels: 2"):
        remap(np.array([0, 2]), {}, LABELS)


def test_a_fraction_is_no_label() -> None:
    with pytest.raises(DataError, match=r"0\.5"):
        remap(np.array([0.0, 0.5, 7.0]), TABLE, LABELS)


def test_values_far_above_a_byte_do_not_wrap_around() -> None:
    assert remap(np.array([2, 1035]), TABLE, LABELS).tolist() == [1, 1]
    with pytest.raises(DataError, match="258"):
        remap(np.array([258]), TABLE, LABELS)  # 258 is 2 in eight bits


@pytest.mark.parametrize(
    ("table", "problem"),
    {
        "a label that the study lacks": ({"background": (0,), "bone": (3,)}, "'bone' is not one of"),
        "a value with two meanings": ({"background": (0,), "brain": (2,), "tumour": (2,)}, "2 is given twice"),
        "no background": ({"brain": (2,)}, "0 under background"),
        "a negative value": ({"background": (0, -1)}, "whole numbers"),
    }.values(),
)
def test_a_table_that_cannot_be_used_is_refused(table: dict[str, tuple[int, ...]], problem: str) -> None:
    assert problem in str(remapping_problem(table, LABELS))
    lines = "\n".join(f"{name} = {list(values)}" for name, values in table.items())
    with pytest.raises(ConfigError, match="remapping"):
        parse_study(tiny_text() + f"\n[remapping]\n{lines}\n")


def test_a_good_table_has_no_problem() -> None:
    assert remapping_problem(TABLE, LABELS) is None


@pytest.mark.parametrize(
    "text",
    [
        "brain = 2",
        "brain = [2.5]",
        "brain = [true]",
        "brain = [",
        "[brain]\nx = 1",
        "bone = [1]",
        "",
        "brain = " + "[" * 200_000,
    ],
)
def test_a_file_that_is_no_table_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "table.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="remapping"):
        read_remapping(file, LABELS)


def test_the_table_in_a_refusal_is_whole_and_can_be_used_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "table.toml"
    file.write_text("tumour = [2]\n")
    with pytest.raises(ConfigError, match="0 under background") as refused:
        read_remapping(file, LABELS)
    file.write_text("\n".join(re.findall(r"'([^']+ = \[[^']+\])'", refused.value.remedy)))
    assert read_remapping(file, LABELS) == {name: (value,) for name, value in LABELS.items()}


def test_a_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "table.toml"
    file.write_text("background = [0, 24]\nbrain = [2, 41, 1035]\ntumour = [7]\n")
    assert read_remapping(file, LABELS) == TABLE
    with pytest.raises(ConfigError, match="remapping"):
        read_remapping(tmp_path / "absent.toml", LABELS)


# In a study.


def test_a_cohort_is_checked_and_prepared_through_the_studys_table(tmp_path: Path) -> None:
    cohort, study = read_cohort(foreign_cohort(tmp_path / "c", [0, 24, 2, 1035, 7])), foreign_study()
    assert check_cohort(cohort, study).ok
    scans = prepare(cohort, study, tmp_path / "cache")
    stored = np.resize(np.array([0, 24, 2, 1035, 7]), (16, 16, 16))
    by_value = {0: 0, 24: 0, 2: 1, 1035: 1, 7: 2}
    expected = np.vectorize(by_value.__getitem__)(stored)
    np.testing.assert_array_equal(scans.classes[0], expected)


def test_edits_read_a_cohort_through_the_table_and_what_they_wrote_as_it_is(tmp_path: Path) -> None:
    cohort, study = read_cohort(foreign_cohort(tmp_path / "c", [0, 24, 2, 1035, 7])), foreign_study()
    maps = InputFiles.of(tmp_path / "c", study)
    (found,) = read_inputs(maps, study, PublicMaps(study, None), lambda: bytes(32))
    values = np.asarray(study.label_values)
    np.testing.assert_array_equal(found.labels, values[prepare(cohort, study, tmp_path / "cache").classes[0]])
    anat = tmp_path / "c" / "sub-01" / "anat"
    write_label_map(anat / "sub-01_dseg.nii.gz", found.labels, study.volume_grid())
    own = prepare(read_cohort(tmp_path / "c"), study.without_remapping(), tmp_path / "cache")
    np.testing.assert_array_equal(values[own.classes[0]], found.labels)


def test_the_check_names_the_values_that_the_table_lacks(tmp_path: Path) -> None:
    cohort = read_cohort(foreign_cohort(tmp_path / "c", [0, 2, 99, 1999]))
    report = check_cohort(cohort, foreign_study())
    (problem,) = [p for p in report.problems if p.code == "label-outside-study"]
    assert problem.words.endswith(": 99 in 1 scan, 1999 in 1 scan")
    assert not report.usable.patients


def test_another_table_is_another_cache(tmp_path: Path) -> None:
    cohort, study = read_cohort(foreign_cohort(tmp_path / "c", [0, 2, 7])), foreign_study()
    other = study.model_copy(update={"remapping": {"background": (0,), "brain": (7,), "tumour": (2,)}})
    assert content_key(cohort, study) != content_key(cohort, other)
    plain = tiny_study()
    assert plain.stored_values == {0, 1, 4}


# FreeSurfer's table.


def test_the_freesurfer_table_covers_aseg_and_the_cortex_of_aparc(freesurfer: Study) -> None:
    assert freesurfer.stored_values == set(ASEG) | set(CORTEX)


@pytest.mark.parametrize(
    ("value", "label"),
    {
        "Left-Cerebral-White-Matter": (2, "white"),
        "Right-Cerebral-Cortex": (42, "grey"),
        "Right-Lateral-Ventricle": (43, "csf"),
        "Brain-Stem": (16, "white"),
        "Left-Thalamus": (10, "grey"),
        "CC_Central": (253, "white"),
        "ctx-lh-corpuscallosum": (1004, "white"),
        "ctx-rh-insula": (2035, "grey"),
        "Left-choroid-plexus": (31, "csf"),
        "Unknown": (0, "background"),
    }.values(),
)
def test_known_structures_have_their_tissue(freesurfer: Study, value: int, label: str) -> None:
    assert remap(np.array([value]), freesurfer.remapping, freesurfer.labels)[0] == freesurfer.labels[label]


def test_left_and_right_mean_the_same_tissue(freesurfer: Study) -> None:
    pairs = [(2, 41), (3, 42), (4, 43), (5, 44), (7, 46), (8, 47), (10, 49), (11, 50), (12, 51), (13, 52), (17, 53)]
    pairs += [(18, 54), (26, 58), (28, 60), (30, 62), (31, 63), (78, 79), (81, 82)]
    pairs += [(n, n + 1000) for n in range(1000, 1036)]
    for left, right in pairs:
        one, two = remap(np.array([left, right]), freesurfer.remapping, freesurfer.labels)
        assert one == two, (left, right)


def test_a_value_of_another_freesurfer_file_is_refused_by_its_number(freesurfer: Study) -> None:
    with pytest.raises(DataError, match="3001"):  # wm-lh-bankssts of wmparc.mgz
        remap(np.array([0, 2, 3001]), freesurfer.remapping, freesurfer.labels)


def test_the_freesurfer_template_can_be_written_and_checked(tmp_path: Path) -> None:
    study = str(tmp_path / "study.toml")
    assert run(["study", "new", study, "--template", "anatomy-freesurfer"]) == 0
    assert run(["study", "check", study]) == 0
