"""What a hospital's drawn labels mean to a network's study: told by a table or by names, never guessed."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from made_anatomy import (
    LPS,
    SECRET,
    STUDY,
    command,
    write_scan,
)
from real_patients import FOLDER, SCHEMES

from fedphantom.common.anatomy.cohort import InferenceReport, infer_cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.errors import DataError
from fedphantom.common.gan.generation import LoadedGenerator
from fedphantom.common.labels.remapping import read_remapping
from fedphantom.common.study import parse_study


def named_cohort(root: Path, lookup: str, drawn: int = 4) -> Path:
    """A BIDS cohort of one scan with a drawn tumour, and what it says of its values; an empty text for nothing."""
    voxels = write_scan(root / "made", drawn=False)
    labels = np.where(voxels > 0, 1, 0).astype(np.uint8)
    labels[8:12, 18:22, 13:17] = drawn
    anat = root / "c" / "sub-01" / "anat"
    anat.mkdir(parents=True)
    for array, name in ((voxels, "T1w"), (voxels, "FLAIR"), (labels, "dseg")):
        nib.save(nib.Nifti1Image(array, LPS), anat / f"sub-01_{name}.nii.gz")
    if lookup:
        (root / "c" / "dseg.tsv").write_text(f"index\tname\n0\tbackground\n{lookup}")
    return root / "c"


def infer_untold(cohort: Path, network: LoadedGenerator, out: Path) -> InferenceReport:
    return infer_cohort(read_cohort(cohort), network, out, secret=SECRET, threshold=0)


def test_values_that_no_name_and_no_table_explains_are_refused_even_where_the_study_has_the_same_numbers(
    tmp_path: Path, network: LoadedGenerator
) -> None:
    write_scan(tmp_path / "brats" / "one")
    for cohort in (tmp_path / "brats", named_cohort(tmp_path, "", drawn=STUDY.labels["tumour"])):
        with pytest.raises(DataError, match="does not name their values") as refused:
            infer_untold(cohort, network, tmp_path / "out")
        assert refused.value.exit_code == 3
        assert "--remapping" in refused.value.remedy
        assert not (tmp_path / "out").exists()


def test_the_table_in_the_refusal_is_whole_and_can_be_used_as_it_stands(
    tmp_path: Path, network: LoadedGenerator
) -> None:
    with pytest.raises(DataError) as refused:
        infer_untold(named_cohort(tmp_path, ""), network, tmp_path / "out")
    table = tmp_path / "table.toml"
    table.write_text("\n".join(re.findall(r"'([^']+ = \[[^']+\])'", refused.value.remedy)))
    assert read_remapping(table, STUDY.labels) == {"background": (0,), "tumour": (4,)}


def test_values_that_the_cohort_names_as_the_study_does_need_no_table(tmp_path: Path, network: LoadedGenerator) -> None:
    report = infer_untold(named_cohort(tmp_path, "1\tBrain\n4\tTUMOUR\n"), network, tmp_path / "out")
    assert (report.written, report.with_drawn, report.drawn) == (1, 1, {"tumour": 1})


@pytest.mark.parametrize(
    ("lookup", "said"),
    [
        ("1\tbrain\n4\tventricle\n", "value 4 'ventricle', which means 'tumour'"),
        ("1\ttumour\n4\tbrain\n", "value 1 'tumour', which means 'brain'"),
        ("1\tbrain\n4\ttumour\n7\tcavity\n", "value 7 'cavity', which means nothing"),
    ],
)
def test_values_that_the_cohort_names_otherwise_are_refused(
    lookup: str, said: str, tmp_path: Path, network: LoadedGenerator
) -> None:
    with pytest.raises(DataError) as refused:
        infer_untold(named_cohort(tmp_path, lookup), network, tmp_path / "out")
    assert said in refused.value.found
    assert "--remapping" in refused.value.expected


def test_a_decathlons_names_are_compared_too(tmp_path: Path, network: LoadedGenerator) -> None:
    voxels = write_scan(tmp_path / "made", drawn=False)
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "c" / folder).mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.stack([voxels, voxels], -1), LPS), tmp_path / "c" / "imagesTr" / "one.nii.gz")
    labels = np.where(voxels > 0, 4, 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(labels, LPS), tmp_path / "c" / "labelsTr" / "one.nii.gz")
    says = {"modality": {"0": "T1", "1": "FLAIR"}, "labels": {"0": "background", "4": "tumour"}}
    (tmp_path / "c" / "dataset.json").write_text(json.dumps(says))
    assert infer_untold(tmp_path / "c", network, tmp_path / "out").drawn == {"tumour": 1}
    (tmp_path / "c" / "dataset.json").write_text(json.dumps(says | {"labels": {"0": "background", "4": "edema"}}))
    with pytest.raises(DataError, match="'edema'"):
        infer_untold(tmp_path / "c", network, tmp_path / "again")


def test_a_value_beside_those_that_the_cohort_names_leaves_its_scan_out(
    tmp_path: Path, network: LoadedGenerator
) -> None:
    cohort = named_cohort(tmp_path, "1\tbrain\n", drawn=4)
    with pytest.raises(DataError, match="label-outside-study") as refused:
        infer_untold(cohort, network, tmp_path / "out")
    assert refused.value.found.endswith("; values without a meaning: 4")
    assert "Say with --remapping" in refused.value.remedy


def test_values_that_a_table_lacks_are_named_beside_those_that_it_has(tmp_path: Path, network: LoadedGenerator) -> None:
    cohort, table = read_cohort(named_cohort(tmp_path, "", drawn=7)), {"background": (0,), "tumour": (4,)}
    with pytest.raises(DataError) as refused:
        infer_cohort(cohort, network, tmp_path / "out", secret=SECRET, threshold=0, remapping=table)
    assert refused.value.found.endswith("label-outside-study (1); values outside the table of --remapping: 1, 7")
    assert refused.value.expected == "values that the table names: 0, 4"
    assert "Say with --remapping" not in refused.value.remedy
    assert "Add these values to the file" in refused.value.remedy


def test_a_cohort_without_label_maps_needs_neither_names_nor_a_table(tmp_path: Path, network: LoadedGenerator) -> None:
    write_scan(tmp_path / "c" / "one", drawn=False)
    report = infer_untold(tmp_path / "c", network, tmp_path / "out")
    assert (report.written, report.with_drawn, report.drawn) == (1, 0, {"tumour": 0})


def test_the_command_says_how_many_scans_kept_what_was_drawn(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan(tmp_path / "c" / "one")
    write_scan(tmp_path / "c" / "two", drawn=False)
    assert command(tmp_path / "c", tmp_path / "out", weights, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["written"], content["with_drawn_labels"], content["drawn_labels"]) == (2, 1, {"tumour": 1})
    assert command(tmp_path / "c", tmp_path / "again", weights) == 0
    assert "1 of them with labels that the hospital drew (tumour 1) on top" in capsys.readouterr().out


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the two real patients are not beside this checkout")
def test_real_patients_of_two_schemes_are_refused_together_and_keep_their_tumours_apart(
    tmp_path: Path, network: LoadedGenerator
) -> None:
    patients = read_cohort(FOLDER)
    with pytest.raises(DataError, match="does not name their values"):
        infer_cohort(patients, network, tmp_path / "out", secret=SECRET, threshold=0)
    for name, scheme in SCHEMES.items():
        table = {"background": tuple({0, 1, 2, 3, 4} - scheme.keys()), "tumour": tuple(scheme)}
        one = patients.only([name])
        report = infer_cohort(one, network, tmp_path / name, secret=SECRET, threshold=0, remapping=table)
        assert report.drawn == {"tumour": 1}


def test_the_documents_table_fits_the_anatomy_template() -> None:
    study = parse_study((files("fedphantom.server") / "study_templates" / "anatomy.toml").read_text())
    table = read_remapping(Path(__file__).parents[1] / "docs" / "remappings" / "brats.toml", study.labels)
    assert set(study.network.overlay) == table.keys() - {"background"}
