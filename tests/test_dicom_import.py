"""``cohort import-dicom``: a folder of series becomes a cohort of voxels, geometry and channels, and no more."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_series import Made, noise, turned, write_enhanced, write_series
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    EnhancedMRColorImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from fedphantom.cli import run
from fedphantom.common.cohorts.check import check_cohort
from fedphantom.common.cohorts.layouts import read_cohort

OBLIQUE = turned(12, -7, 21)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "src"


def imported(source: Path, *options: str, code: int = 0, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run the command; its JSON, or what it said on stderr."""
    capsys.readouterr()
    out = source.parent / "out"
    assert run(["cohort", "import-dicom", str(source), str(out), "--json", *options]) == code
    said = capsys.readouterr()
    if code:
        assert not out.exists()
        assert said.out == ""
        return {"said": said.err}
    found: dict[str, Any] = json.loads(said.out)
    return found | {"said": said.err}


def volumes(source: Path) -> dict[str, Path]:
    """File key to file, of an import of one study."""
    return {path.name.split("_", 2)[2][: -len(".nii.gz")]: path for path in (source.parent / "out").rglob("*.nii.gz")}


def codes(found: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {one["code"]: (one["series"], one["files"]) for one in found["not_taken"]}


def test_voxels_and_geometry_of_an_oblique_series_arrive_and_slices_are_sorted_by_place(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(stored=noise(), directions=OBLIQUE, spacing=(1.2, 0.9, 3.3), slope=(1.5,) * 7 + (2.5,), intercept=-7.0)
    write_series(source / "deep" / "er", made)
    found = imported(source, capsys=capsys)
    assert (found["patients"], found["scans"], found["channels"], found["files"]) == (1, 1, {"T1": 1}, 8)
    image = nib.load(volumes(source)["T1w"])
    np.testing.assert_allclose(image.affine, made.affine(), atol=1e-4)
    np.testing.assert_array_equal(np.asarray(image.dataobj), made.intensities())


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless], ids=lambda uid: uid.name)
def test_every_readable_transfer_syntax_gives_the_same_voxels(
    source: Path, syntax: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(stored=noise() - 450, syntax=syntax)
    write_series(source, made)
    imported(source, capsys=capsys)
    np.testing.assert_array_equal(nib.load(volumes(source)["T1w"]).dataobj, made.intensities())


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless], ids=lambda uid: uid.name)
@pytest.mark.parametrize("signed", [0, 1])
def test_what_old_files_hide_in_unused_bits_is_cut_off(
    source: Path, signed: int, syntax: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = noise() - (450 if signed else 0)
    overlaid = (stored & 0x0FFF) | np.int16(0x5000)
    tags = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": signed}
    write_series(source, Made(stored=overlaid, syntax=syntax, tags=tags))
    imported(source, capsys=capsys)
    np.testing.assert_array_equal(nib.load(volumes(source)["T1w"]).dataobj, stored)


@pytest.mark.parametrize("syntax", [None, RLELossless], ids=["native", "RLE"])
def test_an_enhanced_multi_frame_image_is_read_whatever_the_order_of_its_frames(
    source: Path, syntax: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    slopes = tuple(np.linspace(1, 2, 8).round(4).tolist())
    how = {"syntax": syntax} if syntax else {}
    made = Made(stored=noise(), directions=OBLIQUE, slope=slopes, description="sag", **how)
    write_enhanced(source / "a", made, order=[3, 1, 7, 0, 2, 6, 5, 4])
    found = imported(source, capsys=capsys)
    assert found["channels"] == {"T1": 1}  # by its times: the description says nothing
    image = nib.load(volumes(source)["T1w"])
    np.testing.assert_allclose(image.affine, made.affine(), atol=1e-4)
    np.testing.assert_allclose(image.dataobj, made.intensities(), rtol=1e-6)


def session(source: Path, patient: str = "MRN-4711", study: str = "1.2.3.1", seed: int = 0) -> None:
    """Four channels of one study."""
    for number, description in enumerate(("T1 SE tra", "T1 SE tra +C", "T2 TSE", "T2 FLAIR dark-fluid")):
        tags = {"EchoTime": None, "RepetitionTime": None, "ScanningSequence": None}
        made = Made(
            stored=noise(seed=10 * seed + number),
            patient=patient,
            study=study,
            series=f"{study}.{number + 1}",
            description=description,
            tags=tags,
        )
        write_series(source / patient / study / f"{number}", made)


def test_a_written_cohort_is_read_back_and_lacks_nothing_but_label_maps(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session(source)
    session(source, "MRN-4712", "1.2.4.1", seed=1)
    session(source, "MRN-4712", "1.2.4.2", seed=2)
    found = imported(source, capsys=capsys)
    assert (found["patients"], found["scans"]) == (2, 3)
    assert found["faces"] == {"too small for a head": 12}
    cohort = read_cohort(source.parent / "out")
    assert cohort.channels == ("T1", "T1c", "T2", "FLAIR")
    assert sorted(len(patient.scans) for patient in cohort.patients) == [1, 2]
    assert {problem.code for problem in check_cohort(cohort).problems} == {"missing-label"}
    assert (source.parent / "out").stat().st_mode & 0o077 == 0


def test_the_cohort_says_how_it_was_made_in_numbers(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session(source)
    (source / "notes.txt").write_text("Roe, Jane")
    imported(source, capsys=capsys)
    description = json.loads((source.parent / "out" / "dataset_description.json").read_text())
    assert description["Synthetic"] is False
    assert description["Import"] == {
        "source": "DICOM",
        "files": 33,
        "patients": 1,
        "scans": 1,
        "channels": {"T1": 1, "T1c": 1, "T2": 1, "FLAIR": 1},
        "faces": {"too small for a head": 4},
        "not_taken": [{"code": "not-dicom", "detail": "", "series": 0, "files": 1}],
    }


def names(source: Path, capsys: pytest.CaptureFixture[str], *options: str) -> set[str]:
    imported(source, *options, capsys=capsys)
    out = source.parent / "out"
    found = {str(path.relative_to(out)) for path in out.rglob("*.nii.gz")}
    shutil.rmtree(out)
    return found


def test_pseudonyms_hold_for_one_secret_and_no_other(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session(source)
    first = names(source, capsys)
    assert (source.parent / "out.secret").stat().st_mode & 0o077 == 0
    assert names(source, capsys) == first
    assert not first & names(source, capsys, "--site-secret", str(source.parent / "other"))
    session(source, "MRN-4712", "1.2.4.1")
    assert first < names(source, capsys)
    shutil.rmtree(source / "MRN-4711")
    assert not first & names(source, capsys)


NATURES: dict[str, dict[str, Any]] = {
    "localiser": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    "derived": {"ImageType": ["DERIVED", "PRIMARY", "MPR"]},
    "not-magnitude": {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
    "not-an-mr-image": {"SOPClassUID": SecondaryCaptureImageStorage},
    "excluded": {"SeriesDescription": "survey"},
    "no-channel": {"SeriesDescription": "other", "EchoTime": None},
}


@pytest.mark.parametrize("code", NATURES)
def test_what_an_import_is_not_for_is_left_out_and_counted(
    source: Path, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(source / "a", Made(stored=noise()))
    write_series(source / "b", Made(stored=noise(), series="1.2.3.1.2", tags=NATURES[code]))
    found = imported(source, capsys=capsys)
    assert codes(found) == {code: (1, 8)}
    assert found["channels"] == {"T1": 1}


def test_secondary_captures_are_left_out_whatever_else_is_wrong_with_them(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(source / "a", Made(stored=noise()))
    tags = {"ImageType": ["DERIVED", "SECONDARY"], "BurnedInAnnotation": "YES", "PixelSpacing": None}
    write_series(source / "b", Made(stored=noise(), series="1.2.3.1.2", tags=tags))
    assert codes(imported(source, capsys=capsys)) == {"derived": (1, 8)}


def test_a_series_that_nobody_wants_may_be_as_it_is(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(source / "a", Made(stored=noise()))
    tags = {"PixelSpacing": None, "BurnedInAnnotation": "YES"}
    write_series(source / "b", Made(stored=noise(), series="1.2.3.1.2", description="survey", tags=tags))
    assert codes(imported(source, capsys=capsys)) == {"excluded": (1, 8)}


FAULTS: dict[str, tuple[dict[str, Any], int, str]] = {
    "burned-in": ({"BurnedInAnnotation": "YES"}, 4, "burned into the image"),
    "features that the header calls recognisable": (
        {"RecognizableVisualFeatures": "YES"},
        4,
        "neither skull-stripped nor defaced",
    ),
    "no position": ({"ImagePositionPatient": None}, 3, "no-geometry"),
    "no orientation": ({"ImageOrientationPatient": None}, 3, "no-geometry"),
    "no pixel spacing": ({"PixelSpacing": None}, 3, "no-geometry"),
    "no patient": ({"PatientID": ""}, 3, "incomplete"),
    "no image type": ({"ImageType": None}, 3, "incomplete"),
    "colour": ({"SamplesPerPixel": 3}, 3, "pixel-kind"),
    "inverted grey": ({"PhotometricInterpretation": "MONOCHROME1"}, 3, "pixel-kind"),
    "no slope": ({"RescaleSlope": "0"}, 3, "pixel-kind"),
    "a table instead of a slope": ({"ModalityLUTSequence": [Dataset()]}, 3, "pixel-kind"),
    "an infinite intercept": ({"RescaleIntercept": "1e400"}, 3, "unreadable"),
    "more rows than pixels": ({"Rows": 11}, 3, "unreadable"),
    "fewer rows than pixels": ({"Rows": 9}, 3, "unreadable"),
    "more rows than memory": ({"Rows": 65535, "Columns": 65535}, 3, "unreadable"),
    "frames in a kind of one": ({"NumberOfFrames": 2}, 3, "MR Image Storage with several frames"),
    "an unread multi-frame kind": (
        {"SOPClassUID": EnhancedMRColorImageStorage},
        3,
        "multi-frame.*Enhanced MR Color Image Storage",
    ),
    "all slices at one place": ({"ImagePositionPatient": [0, 0, 0]}, 3, "doubled-slice"),
    "a description for two channels": ({"SeriesDescription": "T1 and T2", "EchoTime": None}, 3, r"\(T1 or T2\)"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_cannot_be_taken_stops_the_import_by_name_and_can_be_left_out(
    source: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tags, code, said = FAULTS[case]
    write_series(source / "JaneRoe", Made(stored=noise(), series="1.2.3.1.2", tags=tags))
    session(source, "MRN-4712", "1.2.4.1")
    message = imported(source, code=code, capsys=capsys)["said"]
    assert re.search(said, message)
    assert "JaneRoe" not in message
    assert "JaneRoe" in imported(source, "--show-files", code=code, capsys=capsys)["said"]
    found = imported(source, "--leave-out", capsys=capsys)
    assert found["patients"] == 1
    assert [one["files"] for one in found["not_taken"]] == [8]


def encapsulate_as_jpeg2000(path: Path) -> None:
    dataset = dcmread(path)
    dataset.PixelData = encapsulate([b"not decoded"])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(path)


def test_compressed_pixels_are_refused_by_the_name_of_their_transfer_syntax(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in write_series(source, Made(stored=noise())):
        encapsulate_as_jpeg2000(path)
    assert "JPEG 2000 Image Compression (Lossless Only)" in imported(source, code=3, capsys=capsys)["said"]


def test_two_series_of_one_channel_in_a_study_are_never_chosen_from(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session(source)
    write_series(source / "again", Made(stored=noise(seed=9), series="1.2.3.1.9"))
    assert "channel-twice" in imported(source, code=3, capsys=capsys)["said"]
    found = imported(source, "--leave-out", capsys=capsys)
    assert codes(found) == {"channel-twice": (2, 16)}
    assert set(found["channels"]) == {"T1c", "T2", "FLAIR"}
    shutil.rmtree(source.parent / "out")
    rules = source.parent / "rules.toml"
    rules.write_text("exclude = ['c', 't2', 'flair']\n[channel.T1]\ndescription = ['t1 se']\n")
    assert "channel-twice" in imported(source, "--channels", str(rules), code=3, capsys=capsys)["said"]


def test_one_id_with_two_birth_dates_is_not_taken_for_one_person(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session(source)
    other = Made(stored=noise(seed=5), study="1.2.9", series="1.2.9.1", tags={"PatientBirthDate": "19800101"})
    write_series(source / "b", other)
    said = imported(source, code=3, capsys=capsys)["said"]
    assert "two-people" in said
    assert "1980" not in said


def test_all_that_is_wrong_is_told_at_once_and_a_refusal_goes_before_a_fault(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(source / "a", Made(stored=noise(), tags={"BurnedInAnnotation": "YES"}))
    write_series(source / "b", Made(stored=noise(), series="1.2.3.1.2", tags={"Rows": 9}))
    said = imported(source, code=4, capsys=capsys)["said"]
    assert "burned-in" in said
    assert "unreadable" in said


def test_a_folder_without_a_wanted_series_gives_no_cohort(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source.mkdir()
    assert "the folder is empty" in imported(source, code=3, capsys=capsys)["said"]
    write_series(source, Made(stored=noise(), description="survey"))
    assert "excluded" in imported(source, code=3, capsys=capsys)["said"]
    assert not (source.parent / "out.secret").exists()


def test_a_person_who_reads_gets_the_same_numbers(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session(source)
    (source / "README").write_text("export")
    assert run(["cohort", "import-dicom", str(source), str(source.parent / "out")]) == 0
    said = capsys.readouterr().out
    assert "1 patient, 1 scan of 33 files" in said
    assert "T1 (1), T1c (1), T2 (1), FLAIR (1)" in said
    assert "not-dicom: files that are not DICOM: 1 file" in said
