import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedphantom.common.cohort import ChannelSource, Cohort
from fedphantom.common.cohorts.layouts import read_cohort, write_table
from fedphantom.common.cohorts.layouts.channel_names import CANONICAL, canonical_channel, in_order, known_channel
from fedphantom.common.errors import DataError


def touch(root: Path, *names: str) -> None:
    """Files with nothing in them: a reader that opens one of these fails."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def volume(path: Path, shape: tuple[int, ...] = (2, 2, 2)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), path)


def shown(cohort: Cohort) -> dict[str, dict[str, tuple[tuple[str, ...], str | None]]]:
    """Patient, scan, then channels and the label map's file name."""
    return {
        p.patient_id: {s.scan_id: (tuple(s.channels), s.label.name if s.label else None) for s in p.scans}
        for p in cohort.patients
    }


# Channel names.


@pytest.mark.parametrize(
    ("canonical", "aliases"),
    {
        "T1": ["t1", "T1", "t1n", "T1w", "T1-weighted", "t1_native"],
        "T1c": ["t1c", "t1ce", "T1Gd", "t1-ce", "T1wCE", "T1_post"],
        "T2": ["t2", "T2w", "t2_weighted"],
        "FLAIR": ["flair", "FLAIR", "t2f", "T2-FLAIR", "T2w_FLAIR"],
    }.items(),
)
def test_aliases_of_a_channel_become_its_canonical_name(canonical: str, aliases: list[str]) -> None:
    assert {canonical_channel(alias) for alias in aliases} == {canonical}


@given(st.text(max_size=60))
def test_any_channel_name_becomes_one_that_a_study_allows_and_stays_so(name: str) -> None:
    once = canonical_channel(name)
    assert canonical_channel(once) == once
    assert 1 <= len(once) <= 32
    assert once[0].isalnum()
    assert all(c.isascii() and (c.isalnum() or c in "-_") for c in once)


def test_a_t2_star_image_is_not_taken_for_t2() -> None:
    assert known_channel("T2star") is None
    assert known_channel("T1map") is None


def test_channels_are_listed_canonical_first_then_by_number() -> None:
    names = ["channel-10", "FLAIR", "channel-2", "T1", "DWI", "T1"]
    assert in_order(names) == ("T1", "FLAIR", "DWI", "channel-2", "channel-10")
    assert in_order(reversed(CANONICAL)) == CANONICAL


# BIDS.


def test_bids_sessions_are_scans_of_one_patient(tmp_path: Path) -> None:
    for session in ("ses-2", "ses-1"):
        stem = f"sub-01/{session}/anat/sub-01_{session}"
        touch(tmp_path, f"{stem}_T1w.nii.gz", f"{stem}_ce-gadolinium_T1w.nii.gz", f"{stem}_dseg.nii.gz")
    touch(tmp_path, "sub-02/anat/sub-02_T1w.nii", "sub-02/anat/sub-02_FLAIR.nii.gz", "sub-02/anat/sub-02_T1w.json")
    cohort = read_cohort(tmp_path)
    assert cohort.layout == "bids"
    assert cohort.channels == ("T1", "T1c", "FLAIR")
    found = shown(cohort)
    assert list(found["01"]) == ["sub-01_ses-1", "sub-01_ses-2"]
    assert found["01"]["sub-01_ses-1"][0] == ("T1", "T1c")
    assert found["01"]["sub-01_ses-2"][1] == "sub-01_ses-2_dseg.nii.gz"
    assert found["02"]["sub-02"] == (("T1", "FLAIR"), None)


def test_bids_label_maps_are_found_under_derivatives_and_beside_the_image_first(tmp_path: Path) -> None:
    touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz")
    touch(tmp_path, "derivatives/manual/sub-01/anat/sub-01_desc-expert_label-lesion_dseg.nii.gz")
    touch(tmp_path, "derivatives/atlas/sub-01/anat/sub-01_space-MNI152_dseg.nii.gz")
    touch(tmp_path, "derivatives/manual/sub-02/anat/sub-02_dseg.nii.gz", "sub-02/anat/sub-02_dseg.nii.gz")
    touch(tmp_path, "derivatives/manual/sub-02/anat/sub-02_space-MNI152_dseg.nii.gz")
    labels = [scan.label for scan in read_cohort(tmp_path).scans]
    assert labels[0] == tmp_path / "derivatives/manual/sub-01/anat/sub-01_desc-expert_label-lesion_dseg.nii.gz"
    assert labels[1] == tmp_path / "sub-02/anat/sub-02_dseg.nii.gz"


def test_bids_repeated_runs_count_once_unless_label_maps_go_by_run(tmp_path: Path) -> None:
    for subject in ("01", "02"):
        touch(tmp_path, *[f"sub-{subject}/anat/sub-{subject}_run-{run}_T1w.nii.gz" for run in (1, 2)])
    touch(tmp_path, "sub-01/anat/sub-01_dseg.nii.gz", *[f"sub-02/anat/sub-02_run-{run}_dseg.nii.gz" for run in (1, 2)])
    cohort = read_cohort(tmp_path)
    assert list(shown(cohort)["01"]) == ["sub-01"]
    assert cohort.scans[0].channels["T1"].path.name == "sub-01_run-1_T1w.nii.gz"
    assert list(shown(cohort)["02"]) == ["sub-02_run-1", "sub-02_run-2"]
    assert cohort.stray == (("unplaced-file", 1),)


def test_bids_participants_give_sites_and_a_lookup_gives_label_names(tmp_path: Path) -> None:
    touch(tmp_path, *[f"sub-{s}/anat/sub-{s}_T1w.nii.gz" for s in ("01", "02", "03")])
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tage\tsite\nsub-01\t50\tA\nsub-02\t60\tn/a\nsub-01\t50\tB\n"
    )
    (tmp_path / "dseg.tsv").write_text("index\tname\n0\tbackground\n2\toedema\n")
    cohort = read_cohort(tmp_path)
    assert [patient.site for patient in cohort.patients] == ["A", None, None]
    assert cohort.label_names == {0: "background", 2: "oedema"}
    assert cohort.stray == (("duplicate-patient", 1),)


def test_bids_maps_and_masks_are_no_channels(tmp_path: Path) -> None:
    stem = "sub-01/anat/sub-01"
    touch(tmp_path, f"{stem}_T1w.nii.gz", f"{stem}_T1map.nii.gz", f"{stem}_desc-brain_mask.nii.gz")
    touch(tmp_path, "sub-01/func/sub-01_bold.nii.gz")
    assert read_cohort(tmp_path).channels == ("T1",)


# BraTS.


def test_brats_since_2023_groups_time_points_by_patient(tmp_path: Path) -> None:
    for scan in ("BraTS-GLI-00005-001", "BraTS-GLI-00005-000", "BraTS-GLI-00008-000"):
        touch(tmp_path, *[f"{scan}/{scan}-{part}.nii.gz" for part in ("t1n", "t1c", "t2w", "t2f", "seg")])
    cohort = read_cohort(tmp_path)
    assert cohort.layout == "brats"
    assert cohort.channels == CANONICAL
    assert {p: list(scans) for p, scans in shown(cohort).items()} == {
        "BraTS-GLI-00005": ["BraTS-GLI-00005-000", "BraTS-GLI-00005-001"],
        "BraTS-GLI-00008": ["BraTS-GLI-00008-000"],
    }
    assert all(scan.label for scan in cohort.scans)


def test_brats_until_2021_is_read_nested_or_flat(tmp_path: Path) -> None:
    parts = ("flair", "t1", "t1ce", "t2", "seg")
    touch(tmp_path, *[f"HGG/BraTS20_Training_001/BraTS20_Training_001_{part}.nii.gz" for part in parts])
    touch(tmp_path, *[f"BraTS2021_00002_{part}.nii" for part in parts[:4]])
    cohort = read_cohort(tmp_path)
    assert cohort.channels == CANONICAL
    assert list(shown(cohort)) == ["BraTS2021_00002", "BraTS20_Training_001"]
    assert [scan.label is None for scan in cohort.scans] == [True, False]


def test_plain_names_take_the_folders_name_for_the_patient(tmp_path: Path) -> None:
    touch(tmp_path, *[f"P7/{name}.nii.gz" for name in ("flair", "t1", "t1c", "t2", "seg_auto", "notes")])
    cohort = read_cohort(tmp_path)
    assert shown(cohort)["P7"]["P7"][0] == CANONICAL
    assert cohort.scans[0].label == tmp_path / "P7" / "seg_auto.nii.gz"
    assert cohort.stray == (("unplaced-file", 1),)


# Decathlon.


def test_decathlon_without_a_description_names_channels_by_the_files(tmp_path: Path) -> None:
    volume(tmp_path / "imagesTr/case_1.nii.gz")
    volume(tmp_path / "labelsTr/case_1.nii.gz")
    touch(tmp_path, "imagesTr/._case_1.nii.gz", "imagesTs/case_9.nii.gz")
    cohort = read_cohort(tmp_path)
    assert cohort.layout == "decathlon"
    assert shown(cohort) == {"case_1": {"case_1": (("MRI",), "case_1.nii.gz")}}
    assert cohort.scans[0].channels["MRI"].index is None


def test_decathlon_4d_files_have_one_channel_an_index(tmp_path: Path) -> None:
    volume(tmp_path / "imagesTr/case_1.nii.gz", (2, 2, 2, 2))
    touch(tmp_path, "imagesTr/case_2.nii.gz")  # unreadable: taken to be like the others
    cohort = read_cohort(tmp_path)
    assert cohort.channels == ("channel-0", "channel-1")
    for scan in cohort.scans:
        assert [source.index for source in scan.channels.values()] == [0, 1]


def test_decathlon_description_names_channels_labels_and_files_that_are_missing(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz")
    pair = {"image": "./imagesTr/BRATS_002.nii.gz", "label": "./labelsTr/BRATS_002.nii.gz"}
    description = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema"},
        "training": [pair],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    cohort = read_cohort(tmp_path)
    assert cohort.channels == CANONICAL
    assert cohort.scans[0].channels["T1c"] == ChannelSource(tmp_path / "imagesTr/BRATS_001.nii.gz", 2)
    assert cohort.label_names == {0: "background", 1: "edema"}
    assert list(shown(cohort)) == ["BRATS_001", "BRATS_002"]


def test_nnunet_files_of_one_channel_each_make_one_scan(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/case_0000.nii.gz", "imagesTr/case_0001.nii.gz", "labelsTr/case.nii.gz")
    description = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "whole": [1, 2], "core": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    cohort = read_cohort(tmp_path)
    assert shown(cohort) == {"case": {"case": (("T1", "T2"), "case.nii.gz")}}
    assert cohort.label_names == {0: "background", 1: "core"}


def test_decathlon_participants_split_by_site(tmp_path: Path) -> None:
    for name in ("h_1", "h_2", "h_3"):
        volume(tmp_path / f"imagesTr/{name}.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tsite\nh_1\tA\nh_2\tpublic\n")
    sites = read_cohort(tmp_path).by_site()
    assert {site: [p.patient_id for p in cohort.patients] for site, cohort in sites.items()} == {
        "": ["h_3"],
        "A": ["h_1"],
        "public": ["h_2"],
    }


@pytest.mark.parametrize(
    ("rows", "public"),
    [
        ("participant_id\tsite\nh_1\tA\nh_2\tpublic\n", ["h_2"]),
        ("participant_id\tage\nh_1\t60\nh_2\t61\n", ["h_1", "h_2", "h_3"]),
        ("participant_id\tsite\nh_1\tA\nh_2\tB\n", None),
    ],
)
def test_public_are_the_patients_marked_so_or_all_of_a_cohort_without_sites(
    rows: str, public: list[str] | None, tmp_path: Path
) -> None:
    for name in ("h_1", "h_2", "h_3"):
        volume(tmp_path / f"imagesTr/{name}.nii.gz")
    (tmp_path / "participants.tsv").write_text(rows)
    cohort = read_cohort(tmp_path)
    if public is None:
        with pytest.raises(DataError, match="none of them marked public"):
            cohort.public()
    else:
        assert [patient.patient_id for patient in cohort.public().patients] == public


def test_a_patient_with_a_folder_or_a_row_and_no_scan_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz")
    (tmp_path / "sub-02" / "anat").mkdir(parents=True)
    (tmp_path / "participants.tsv").write_text("participant_id\tsite\nsub-01\tA\nsub-02\tA\nsub-77\tB\n")
    assert read_cohort(tmp_path).stray == (("no-scan", 2),)


# Tables.


def test_patients_whose_scans_are_numbered_alike_are_told_apart(tmp_path: Path) -> None:
    table = tmp_path / "c.csv"
    table.write_text("patient_id,scan_id,label,T1\np1,s1,l,a\np1,s2,l,b\np2,s1,l,c\n")
    cohort = read_cohort(table)
    assert [scan.scan_id for scan in cohort.scans] == ["p1_s1", "p1_s2", "p2_s1"]
    write_table(tmp_path / "view.csv", cohort)
    assert read_cohort(tmp_path / "view.csv").scans == cohort.scans
    table.write_text("patient_id,scan_id,label,T1\np1,s1,l,a\np1,s1,l,b\n")  # twice is twice
    assert [scan.scan_id for scan in read_cohort(table).scans] == ["s1", "s1"]


@pytest.mark.parametrize(("name", "comma"), [("c.csv", ","), ("c.tsv", "\t"), ("semicolons.csv", ";")])
def test_a_table_is_read_with_relative_paths_indices_and_gaps(tmp_path: Path, name: str, comma: str) -> None:
    rows = [
        "patient_id,scan_id,label,t1w,FLAIR,site",
        "b,b1,l/b.nii.gz,img/b.nii.gz#0,img/b.nii.gz#1,A",
        "a,a1,,/x.nii,,",
    ]
    (tmp_path / name).write_text("\n".join(rows).replace(",", comma) + "\n", encoding="utf-8-sig")
    cohort = read_cohort(tmp_path / name)
    assert cohort.layout == "table"
    assert cohort.channels == ("T1", "FLAIR")
    first, second = cohort.patients
    assert (first.patient_id, first.site, first.scans[0].label) == ("a", None, None)
    assert first.scans[0].channels == {"T1": ChannelSource(Path("/x.nii"))}
    assert second.site == "A"
    assert second.scans[0].channels["FLAIR"] == ChannelSource(tmp_path / "img/b.nii.gz", 1)
    assert second.scans[0].label == tmp_path / "l/b.nii.gz"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "patient_id,scan_id,T1\na,a1,x.nii\n",
        "patient_id,scan_id,label\na,a1,x.nii\n",
        "patient_id,scan_id,label,T1,t1w\na,a1,x.nii,y.nii,z.nii\n",
        "patient_id,scan_id,label,T1\n,a1,x.nii,y.nii\n",
        "patient_id,scan_id,label,T1\na,a1,x.nii,y.nii,too,many\n",
        "patient_id,scan_id,label,T1\n",
    ],
    ids=["empty", "no label", "no channel", "one channel twice", "no patient", "long row", "no rows"],
)
def test_a_broken_table_is_refused_with_a_remedy(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        read_cohort(tmp_path / "c.csv")
    assert caught.value.remedy


def test_a_patient_under_two_sites_is_counted(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("patient_id,scan_id,label,T1,site\na,a1,l,t,A\na,a2,l,t,B\na,a3,l,t,A\n")
    cohort = read_cohort(tmp_path / "c.csv")
    assert cohort.patients[0].site == "A"
    assert cohort.stray == (("duplicate-patient", 1),)


@pytest.mark.parametrize("name", ["view.csv", "deep/er/view.tsv"])
def test_a_table_views_some_patients_of_any_cohort_in_place(tmp_path: Path, name: str) -> None:
    for case in ("c1", "c2", "c3"):
        volume(tmp_path / f"data/imagesTr/{case}.nii.gz", (2, 2, 2, 2))
        volume(tmp_path / f"data/labelsTr/{case}.nii.gz")
    (tmp_path / "data/participants.tsv").write_text("participant_id\tsite\nc1\tA\nc3\tB\n")
    cohort = replace(read_cohort(tmp_path / "data").only({"c1", "c3"}), label_names={0: "background", 1: "core"})
    write_table(tmp_path / name, cohort)
    view = read_cohort(tmp_path / name)
    assert view.patients == cohort.patients
    assert view.channels == cohort.channels
    assert view.label_names == cohort.label_names


def test_a_table_next_to_its_files_names_them_relatively(tmp_path: Path) -> None:
    volume(tmp_path / "imagesTr/c1.nii.gz")
    write_table(tmp_path / "view.csv", read_cohort(tmp_path))
    assert str(tmp_path) not in (tmp_path / "view.csv").read_text()


# What is no cohort.


@pytest.mark.parametrize("name", ["absent", "file.txt", "empty", "other"])
def test_what_is_no_cohort_is_refused_saying_what_was_looked_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "other/doe-john/scan.nii.gz")
    with pytest.raises(DataError, match="table") as caught:
        read_cohort(tmp_path / name)
    assert "doe" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_layout_without_scans_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    with pytest.raises(DataError, match="without a single scan"):
        read_cohort(tmp_path)


@pytest.mark.parametrize("name", ["dataset.json", "dataset_description.json", "participants.tsv"])
def test_a_broken_table_of_a_layout_is_refused_by_name(tmp_path: Path, name: str) -> None:
    if name == "dataset.json":
        volume(tmp_path / "imagesTr/c1.nii.gz")
    else:
        touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz")
    (tmp_path / name).write_text("{broken")
    with pytest.raises(DataError, match=name):
        read_cohort(tmp_path)
