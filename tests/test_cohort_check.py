"""."""

import gzip
import hashlib
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from fedphantom.common.cohorts.check import PROBLEMS, CohortReport, check_cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.report import print_report
from fedphantom.common.commands import cohort_app
from fedphantom.common.study import Study, parse_study

SHAPE = (6, 5, 4)


CHANNELS = ("T1w", "FLAIR")


STUDY = """
name = "test"
seed = 1
channels = ["T1", "FLAIR"]
labels = { background = 0, core = 1, oedema = 2 }
grid = { shape = [16, 8, 8], spacing_mm = [1.0, 1.0, 1.0] }
public_labels = { source = "atlas" }
"""


def anat(root: Path, patient: str, key: str) -> Path:
    return root / f"sub-{patient}" / "anat" / f"sub-{patient}_{key}.nii.gz"


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None, **fields: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, np.eye(4) if affine is None else affine)
    for name, value in fields.items():
        image.header[name] = value
    nib.save(image, path)


def intensities(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 100, shape).astype(np.float32)


def label_map(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 3).reshape(shape).astype(np.uint8)


@pytest.fixture
def cohort_folder(tmp_path: Path) -> Path:
    """A clean BIDS cohort of four patients."""
    root = tmp_path / "cohort"
    for number, patient in enumerate(("p1", "p2", "p3", "p4")):
        for position, key in enumerate(CHANNELS):
            save(anat(root, patient, key), intensities(10 * number + position))
        save(anat(root, patient, "dseg"), label_map())
    return root


@pytest.fixture
def study() -> Study:
    return parse_study(STUDY)


def check(root: Path, study: Study | None = None) -> CohortReport:
    return check_cohort(read_cohort(root), study)


def hashes(root: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*")) if p.is_file()}


def patch_header(path: Path, offset: int, form: str, *values: float) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into(form, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content)))


def with_value(value: float) -> np.ndarray:
    data = intensities(99)
    data[1, 2, 3] = value
    return data


def truncate(root: Path) -> None:
    path = anat(root, "p2", "T1w")
    path.write_bytes(path.read_bytes()[:-200])


def add_extension(root: Path) -> None:
    image = nib.Nifti1Image(intensities(5), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"ward 3"))
    nib.save(image, anat(root, "p2", "T1w"))


def rename_session(root: Path) -> None:
    for key in (*CHANNELS, "dseg"):
        target = root / "sub-p2" / "ses-20190421" / "anat" / f"sub-p2_ses-20190421_{key}.nii.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        anat(root, "p2", key).rename(target)


def t1(data: np.ndarray, affine: np.ndarray | None = None, **fields: object) -> Callable[[Path], None]:
    return lambda root: save(anat(root, "p2", "T1w"), data, affine, **fields)


def dseg(data: np.ndarray, affine: np.ndarray | None = None) -> Callable[[Path], None]:
    return lambda root: save(anat(root, "p2", "dseg"), data, affine)


def all_files(spacing: float) -> Callable[[Path], None]:
    def resample(root: Path) -> None:
        affine = np.diag([spacing, 1, 1, 1])
        for position, key in enumerate(CHANNELS):
            save(anat(root, "p2", key), intensities(70 + position), affine)
        save(anat(root, "p2", "dseg"), label_map(), affine)

    return resample


SHIFTED = np.eye(4) + np.array([[0, 0, 0, 0.3], [0] * 4, [0] * 4, [0] * 4])


FAULTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "truncated file": ("unreadable-file", truncate),
    "not a NIfTI": ("unreadable-file", lambda root: anat(root, "p2", "dseg").write_bytes(b"no image")),
    "dangling link": (
        "unreadable-file",
        lambda root: (anat(root, "p2", "T1w").unlink(), anat(root, "p2", "T1w").symlink_to("/nowhere"))[1],
    ),
    "a series": ("not-a-volume", t1(np.stack([intensities(5)] * 3, axis=-1))),
    "a label map of complex numbers": ("not-a-volume", dseg(label_map().astype(np.complex64))),
    "colours": ("not-a-volume", t1(np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])))),
    "missing channel": ("missing-channel", lambda root: anat(root, "p2", "FLAIR").unlink()),
    "missing label map": ("missing-label", lambda root: anat(root, "p2", "dseg").unlink()),
    "channel of another shape": ("geometry-mismatch", t1(intensities(5, (6, 5, 5)))),
    "label map of another shape": ("geometry-mismatch", dseg(label_map((6, 5, 3)))),
    "channel elsewhere": ("affine-mismatch", t1(intensities(5), SHIFTED)),
    "label map elsewhere": ("affine-mismatch", dseg(label_map(), np.diag([1.1, 1, 1, 1]))),
    "singular affine": ("singular-affine", lambda root: patch_header(anat(root, "p2", "T1w"), 280, "<f", 0)),
    "zero spacing": ("singular-affine", lambda root: patch_header(anat(root, "p2", "T1w"), 84, "<f", 0)),
    "NaN": ("non-finite", t1(with_value(np.nan))),
    "infinity": ("non-finite", t1(with_value(np.inf))),
    "constant volume": ("constant-volume", t1(np.full(SHAPE, 7, np.float32))),
    "label outside": ("label-outside-study", dseg(label_map() + 1)),
    "negative label": ("label-outside-study", dseg(label_map().astype(np.int16) - 1)),
    "fractional label": ("non-integer-label", dseg(label_map() / np.float32(2))),
    "NaN label": ("non-integer-label", dseg(np.where(label_map() == 2, np.nan, label_map()).astype(np.float32))),
    "empty label map": ("empty-label", dseg(np.zeros(SHAPE, np.uint8))),
    "voxels of p1": ("duplicate-voxels", t1(intensities(0).astype(np.float64))),
    "another spacing": ("mixed-spacing", all_files(1.5)),
    "another scale": ("intensity-scale", t1(intensities(5) * 1000)),
    "free text": ("identifying-header", t1(intensities(5), descrip=b"DOE^JOHN")),
    "auxiliary file": ("identifying-header", t1(intensities(5), aux_file=b"/home/x")),
    "data base name": ("identifying-header", t1(intensities(5), db_name=b"ward 3")),
    "header extension": ("identifying-header", add_extension),
    "date in a name": ("identifying-filename", rename_session),
}


def test_a_clean_cohort_has_no_problem(cohort_folder: Path, study: Study) -> None:
    report = check(cohort_folder, study)
    assert report.problems == ()
    assert report.ok
    assert (report.patients, report.scans) == (4, 4)
    assert report.channels == ("T1", "FLAIR")
    assert report.labels == (0, 1, 2)
    assert report.usable == read_cohort(cohort_folder)


@pytest.mark.parametrize("fault", FAULTS)
def test_one_bad_scan_is_named_by_code_and_the_rest_goes_on(cohort_folder: Path, study: Study, fault: str) -> None:
    code, spoil = FAULTS[fault]
    spoil(cohort_folder)
    before = hashes(cohort_folder)
    report = check(cohort_folder, study)
    assert [(p.code, p.scans) for p in report.problems] == [(code, 1)]
    problem = report.problems[0]
    assert all(name.startswith("sub-p2") for name in problem.identifiers)
    assert problem.message
    assert problem.remedy
    severity = PROBLEMS[code][0]
    assert problem.severity == severity
    assert report.ok == (severity == "warning")
    left = ["p1", "p2", "p3", "p4"] if severity == "warning" else ["p1", "p3", "p4"]
    assert [p.patient_id for p in report.usable.patients] == left
    assert hashes(cohort_folder) == before


@pytest.mark.parametrize("fault", FAULTS)
def test_the_file_at_fault_is_named_on_request_and_never_else(cohort_folder: Path, study: Study, fault: str) -> None:
    code, spoil = FAULTS[fault]
    spoil(cohort_folder)
    report = check(cohort_folder, study)
    shown, hidden = io.StringIO(), io.StringIO()
    print_report(report, Console(file=shown, width=200), show_identifiers=True)
    print_report(report, Console(file=hidden, width=200))
    named = json.dumps(report.to_json(show_identifiers=True)["problems"])
    for text in (shown.getvalue(), named):
        assert "sub-p2" in text
        assert ".nii.gz" in text
    if code == "duplicate-voxels":
        assert "of patient p2 is" in named
        assert "of patient p1" in named
    for text in (hidden.getvalue(), json.dumps(report.to_json()), repr(report), report.left_out):
        assert "p2" not in text
        assert ".nii" not in text


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("a series", "× 3 float32"), ("a label map of complex numbers", "complex64"), ("colours", "RGB colours")],
)
def test_what_a_file_is_that_is_no_volume_is_told(cohort_folder: Path, study: Study, fault: str, kind: str) -> None:
    FAULTS[fault][1](cohort_folder)
    (problem,) = check(cohort_folder, study).problems
    assert kind in problem.words
    assert "damaged" not in problem.words


def test_every_problem_code_is_tried() -> None:
    elsewhere = {"duplicate-patient", "unplaced-file", "no-scan"}
    assert {code for code, _ in FAULTS.values()} | elsewhere == set(PROBLEMS)


def test_a_tenth_of_a_voxel_is_tolerated(cohort_folder: Path, study: Study) -> None:
    moved = np.eye(4)
    moved[0, 3] = 0.05
    save(anat(cohort_folder, "p2", "dseg"), label_map(), moved)
    assert check(cohort_folder, study).problems == ()


def test_a_small_rotation_that_moves_the_far_corner_is_found(cohort_folder: Path, study: Study) -> None:
    turned = np.eye(4)
    turned[0, 1] = 0.05  # the axis lengths hardly change, the far corner moves a fifth of a voxel
    save(anat(cohort_folder, "p2", "dseg"), label_map(), turned)
    assert [p.code for p in check(cohort_folder, study).problems] == ["affine-mismatch"]


def test_several_faults_of_one_scan_are_all_told(cohort_folder: Path, study: Study) -> None:
    anat(cohort_folder, "p2", "FLAIR").unlink()
    save(anat(cohort_folder, "p2", "T1w"), with_value(np.nan), descrip=b"DOE^JOHN")
    codes = [p.code for p in check(cohort_folder, study).problems]
    assert codes == ["missing-channel", "non-finite", "identifying-header"]


def test_the_study_decides_which_channels_are_needed(cohort_folder: Path) -> None:
    for patient in ("p1", "p2", "p3"):
        anat(cohort_folder, patient, "FLAIR").unlink()
    only_t1 = parse_study(STUDY.replace('["T1", "FLAIR"]', '["T1"]'))
    assert check(cohort_folder, only_t1).ok
    assert [p.scans for p in check(cohort_folder).problems] == [3]


def test_without_a_study_labels_are_judged_by_the_cohorts_own_list(cohort_folder: Path) -> None:
    assert check(cohort_folder).ok
    (cohort_folder / "dseg.tsv").write_text("index\tname\n1\tcore\n")
    assert [(p.code, p.scans) for p in check(cohort_folder).problems] == [("label-outside-study", 4)]


def test_the_same_scan_twice_is_kept_once(tmp_path: Path) -> None:
    for number in (1, 2):
        for part in ("t1", "t2"):
            save(tmp_path / f"set{number}" / "P1" / f"{part}.nii.gz", intensities(number + 10 * (part == "t2")))
        save(tmp_path / f"set{number}" / "P1" / "seg.nii.gz", label_map())
    report = check(tmp_path)
    assert [(p.code, p.severity, p.scans) for p in report.problems] == [("duplicate-patient", "error", 1)]
    assert len(report.usable.scans) == 1


def test_scans_that_each_patient_numbers_alike_are_no_duplicates_and_a_scan_given_twice_is(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.nii.gz", intensities(number))
    save(tmp_path / "l.nii.gz", label_map())
    rows = ["patient_id,scan_id,label,T1", "a,s1,l.nii.gz,0.nii.gz", "b,s1,l.nii.gz,1.nii.gz", "b,s2,l.nii.gz,2.nii.gz"]
    (tmp_path / "c.csv").write_text("\n".join(rows))
    report = check(tmp_path / "c.csv")
    assert report.problems == ()
    assert len(report.usable.scans) == 3
    (tmp_path / "c.csv").write_text("\n".join([*rows, "b,s2,l.nii.gz,2.nii.gz"]))
    assert next((p.code, p.scans) for p in check(tmp_path / "c.csv").problems) == ("duplicate-patient", 1)


def test_identifiers_that_differ_only_in_case_are_suspected(tmp_path: Path) -> None:
    for number, patient in enumerate(("Pat_1", "pat-1", "pat2")):
        save(tmp_path / patient / "t1.nii.gz", intensities(number))
        save(tmp_path / patient / "seg.nii.gz", label_map())
    report = check(tmp_path)
    assert [(p.code, p.severity, p.scans) for p in report.problems] == [("duplicate-patient", "warning", 2)]
    assert len(report.usable.patients) == 3


def test_under_a_promise_the_first_of_those_suspected_takes_part_and_nobody_twice(tmp_path: Path) -> None:
    for number, patient in enumerate(("Pat_1", "pat-1", "pat2")):
        save(tmp_path / patient / "t1.nii.gz", intensities(number))
        save(tmp_path / patient / "flair.nii.gz", intensities(10 + number))
        save(tmp_path / patient / "seg.nii.gz", label_map())
    promise = 'objective = "adversarial"\nstart = "' + "0" * 64 + '"\n[privacy]\ndp = "patient-level"\n'
    promised = parse_study(f"{STUDY}[training]\n{promise}[privacy.promise]\nepsilon = 8.0\ndelta = 0.005\n")
    report = check(tmp_path, promised)
    assert [(p.code, p.severity, p.scans) for p in report.problems] == [("duplicate-patient", "error", 1)]
    assert [patient.patient_id for patient in report.usable.patients] == ["Pat_1", "pat2"]
    assert "half as much" in report.left_out
    assert not report.ok

    (tmp_path / "Pat_1" / "seg.nii.gz").unlink()  # the other one is then the only one
    assert [patient.patient_id for patient in check(tmp_path, promised).usable.patients] == ["pat-1", "pat2"]


def test_a_readers_strays_are_reported_as_warnings(cohort_folder: Path, study: Study) -> None:
    (cohort_folder / "participants.tsv").write_text("participant_id\tsite\nsub-p1\tA\nsub-p1\tB\n")
    save(cohort_folder / "sub-p1" / "anat" / "doe.nii.gz", intensities(50))
    report = check(cohort_folder, study)
    assert {(p.code, p.severity, p.scans) for p in report.problems} == {
        ("duplicate-patient", "warning", 1),
        ("unplaced-file", "warning", 1),
    }


def test_equal_constant_volumes_are_not_called_duplicates(cohort_folder: Path, study: Study) -> None:
    for patient in ("p1", "p2"):
        save(anat(cohort_folder, patient, "T1w"), np.zeros(SHAPE, np.float32))
    assert [p.code for p in check(cohort_folder, study).problems] == ["constant-volume"]


def test_a_missing_index_of_a_4d_file_is_a_missing_channel(tmp_path: Path) -> None:
    save(tmp_path / "imagesTr" / "c1.nii.gz", np.stack([intensities(1), intensities(2)], axis=-1))
    save(tmp_path / "imagesTr" / "c2.nii.gz", intensities(3))
    for case in ("c1", "c2"):
        save(tmp_path / "labelsTr" / f"{case}.nii.gz", label_map())
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": {"0": "T1w", "1": "T2w"}}))
    report = check(tmp_path)
    assert [(p.code, p.identifiers) for p in report.problems] == [("missing-channel", ("c2",))]


@pytest.mark.parametrize("stamp", [b"", b"none", b"5.0.10", b"FSL5.0", b"6.0.4:ddd0a010"])
def test_a_tools_version_stamp_identifies_nobody(cohort_folder: Path, study: Study, stamp: bytes) -> None:
    save(anat(cohort_folder, "p2", "T1w"), intensities(5), descrip=stamp)
    assert check(cohort_folder, study).problems == ()


def test_progress_is_told_for_every_scan(cohort_folder: Path) -> None:
    told: list[tuple[int, int]] = []
    check_cohort(read_cohort(cohort_folder), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


# The command.


def run(*arguments: str | Path) -> tuple[int, str, str]:
    app = typer.Typer()
    app.add_typer(cohort_app, name="cohort")
    result = CliRunner().invoke(app, ["cohort", "check", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def spoil_two(root: Path) -> None:
    anat(root, "p2", "FLAIR").unlink()
    save(anat(root, "p3", "T1w"), intensities(5), descrip=b"DOE^JOHN")


def test_the_command_prints_one_json_object_of_the_agreed_shape(cohort_folder: Path, tmp_path: Path) -> None:
    spoil_two(cohort_folder)
    (tmp_path / "study.toml").write_text(STUDY)
    code, out, _ = run(cohort_folder, "--study", tmp_path / "study.toml", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["ok"] is False
    assert (report["patients"], report["scans"]) == (4, 4)
    assert report["channels"] == ["T1", "FLAIR"]
    assert report["labels"] == [0, 1, 2]
    assert [(p["code"], p["severity"], p["scans"]) for p in report["problems"]] == [
        ("missing-channel", "error", 1),
        ("identifying-header", "warning", 1),
    ]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_identifiers_are_printed_only_when_asked(cohort_folder: Path, form: list[str]) -> None:
    spoil_two(cohort_folder)
    silent = run(cohort_folder, *form)
    for secret in ("p2", "p3", "DOE", str(cohort_folder)):
        assert secret not in silent[1] + silent[2]
    asked = run(cohort_folder, "--show-identifiers", *form)
    assert "sub-p2" in asked[1].replace("\n", "")


def test_the_report_does_not_show_identifiers_by_accident(cohort_folder: Path) -> None:
    spoil_two(cohort_folder)
    assert "p2" not in repr(check(cohort_folder))


def test_the_command_ends_in_3_when_nothing_usable_is_left(cohort_folder: Path) -> None:
    for path in cohort_folder.rglob("*.nii.gz"):
        path.write_bytes(b"broken")
    code, out, _ = run(cohort_folder, "--json")
    assert code == 3
    assert json.loads(out)["ok"] is False
    assert run(cohort_folder)[0] == 3
