"""Nothing of a header but geometry and a channel's name leaves the importer: not in files, names, logs, errors."""

from __future__ import annotations

import gzip
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_series import Made, noise, save, write_series
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from fedphantom.cli import run
from fedphantom.common.volumes.nifti import read_header

MARK = "ZZMARK"
TEXT_VRS = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")
DATED = {"AS": "061Y", "DA": "20240229", "DS": "471108", "DT": "20240229101112", "IS": "471108", "TM": "101112"}
"""Values of kinds that hold no letters; each is looked for as it is."""
TAGS = {  # one standard element of each kind, none of which we read
    "AE": 0x00080054, "AS": 0x00101010, "CS": 0x00080064, "DA": 0x00080020, "DS": 0x00101020, "DT": 0x0008002A,
    "IS": 0x00080082, "LO": 0x00080080, "LT": 0x001021B0, "PN": 0x00080090, "SH": 0x00081010, "ST": 0x00080081,
    "TM": 0x00080030, "UC": 0x00080119, "UI": 0x00080014, "UR": 0x00080120, "UT": 0x0040DB07,
}  # fmt: skip
READ = {
    "PatientID": f"{MARK}01",
    "PatientName": f"{MARK}02^{MARK}03",
    "PatientBirthDate": "19610503",
    "AccessionNumber": f"{MARK}04",
    "StudyID": f"{MARK}05",
    "SeriesDescription": f"T1 {MARK}06 tra",
    "ProtocolName": f"{MARK}07",
    "ContrastBolusAgent": "none",
    "StudyInstanceUID": "1.2.471108.1",
    "SeriesInstanceUID": "1.2.471108.2",
}
LOOKED_FOR = (MARK, MARK.lower(), "19610503", "471108", *{value for value in DATED.values() if len(value) > 4})


def planted(source: Path, *, faulty: bool = False) -> None:
    """A series that carries a mark wherever a header can hold one, in files and folders that carry one too."""
    made = Made(stored=noise(), tags=READ)
    folder = source / f"{MARK}08^Jane" / "20240229"
    paths = write_series(folder, made, names=[f"{MARK}09_{n}.dcm" for n in range(8)])
    for path in paths:
        dataset = dcmread(path)
        for number, vr in enumerate(TEXT_VRS):
            text = DATED.get(vr, f"{MARK}{10 + number}")
            if vr == "UI":
                text = "1.2.471108.9"
            dataset.add_new(TAGS[vr], vr, text)
            private = dataset.private_block(0x0011, f"{MARK} PRIVATE", create=True)
            private.add_new(number, vr, text)
        item = Dataset()
        item.PatientName = f"{MARK}40"
        dataset.RequestAttributesSequence = Sequence([item])
        dataset.private_block(0x0013, MARK, create=True).add_new(1, "OB", f"{MARK}41".encode())
        dataset.preamble = f"{MARK}42".encode().ljust(128, b"\0")
        dataset.file_meta.SourceApplicationEntityTitle = f"{MARK}43"
        if faulty:  # lengths, kinds and characters that pydicom would warn of, with the value in its warning
            dataset.ImageComments = MARK * 200
            dataset.EchoTime = None
            dataset.PixelSpacing = None
        save(dataset, path, Made(stored=noise()))
        if faulty:
            content = path.read_bytes().replace(b"T1 ZZMARK06 tra", b"T1 ZZMARK06\xff tr")
            path.write_bytes(content.replace(b"1.2.471108.2", b"1.2.ZZMARK-2"))
    (source / f"{MARK}44.txt").write_text(MARK)


def everything(out: Path) -> bytes:
    """Every byte of a folder: names, contents, and what is compressed in them."""
    parts = []
    for path in sorted(out.rglob("*")):
        parts.append(str(path.relative_to(out)).encode())
        if path.is_file():
            content = path.read_bytes()
            parts += [content, gzip.decompress(content) if path.name.endswith(".gz") else b""]
    return b"\0".join(parts)


def called(source: Path, out: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, where warnings and logs end where a person would read them."""
    command = [sys.executable, "-W", "default", "-m", "fedphantom", "cohort", "import-dicom", source, out, *options]
    return subprocess.run(command, capture_output=True, check=False, env=os.environ | {"NO_COLOR": "1"})


@pytest.mark.parametrize("leave_out", [False, True])
@pytest.mark.parametrize("faulty", [False, True])
def test_no_mark_of_any_header_or_file_name_is_in_any_byte_written_or_said(
    tmp_path: Path, faulty: bool, leave_out: bool
) -> None:
    source, out = tmp_path / "src", tmp_path / "out"
    planted(source, faulty=faulty)
    whole = Made(stored=noise(seed=4), patient="P2", study="1.2.5", series="1.2.5.1")
    write_series(source / "sound", whole)
    done = called(source, out, *(["--leave-out"] if leave_out else []))
    assert done.returncode == (3 if faulty and not leave_out else 0), done.stderr
    said = done.stdout + done.stderr + (everything(out) if out.exists() else b"")
    assert len(said) > 100
    for mark in LOOKED_FOR:
        assert mark.encode() not in said
    dates = re.compile(rb"(?<!\d)(19|20)\d\d-?[01]\d-?[0-3]\d(?!\d)")
    texts = [path.read_bytes() for path in out.rglob("*") if path.suffix in (".json", ".tsv")]
    assert not any(dates.search(text) for text in [done.stdout, done.stderr, *texts])


def test_the_marks_are_where_they_would_be_found(tmp_path: Path) -> None:
    planted(tmp_path / "src")
    content = everything(tmp_path / "src")
    assert all(mark.encode() in content for mark in LOOKED_FOR if mark != MARK.lower())
    for number in itertools.chain(range(1, 10), range(40, 45)):
        assert f"{MARK}{number:02d}".encode() in content


def test_written_headers_are_clean_and_names_hold_no_patient(tmp_path: Path) -> None:
    planted(tmp_path / "src")
    assert run(["cohort", "import-dicom", str(tmp_path / "src"), str(tmp_path / "out")]) == 0
    (image,) = (tmp_path / "out").rglob("*.nii.gz")
    header = read_header(image)
    assert header.text == {}
    assert header.extensions == ()
    assert re.fullmatch(r"sub-[a-z2-7]{16}_ses-[a-z2-7]{8}_T1w\.nii\.gz", image.name)


def test_equal_files_and_secret_give_equal_bytes(tmp_path: Path) -> None:
    planted(tmp_path / "src")
    for name in ("one", "two"):
        secret = ["--site-secret", str(tmp_path / "secret")]
        assert run(["cohort", "import-dicom", str(tmp_path / "src"), str(tmp_path / name), *secret]) == 0
    assert everything(tmp_path / "one") == everything(tmp_path / "two")


@pytest.mark.parametrize(
    "reason",
    [
        f"as {MARK}01 agreed",
        f"{MARK.lower()}03 is a volunteer",
        "approved on 2024-02-29",
        "record 12345678",
        "born 19610503",
        " ",
        "two\nlines",
        "x" * 301,
    ],
)
def test_a_reason_that_could_name_a_patient_is_not_written(
    tmp_path: Path, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(tmp_path / "src")
    out = tmp_path / "out"
    assert run(["cohort", "import-dicom", str(tmp_path / "src"), str(out), "--allow-faces", reason]) == 3
    said = capsys.readouterr().err
    assert "--allow-faces" in said
    assert MARK not in said
    assert not out.exists()


def test_a_failure_while_writing_leaves_nothing_but_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(tmp_path / "src")
    before = everything(tmp_path / "src")

    def broken(*_: object) -> None:
        raise ValueError(MARK)

    monkeypatch.setattr("fedphantom.common.dicom.run.face_finding", broken)
    assert run(["cohort", "import-dicom", str(tmp_path / "src"), str(tmp_path / "out")]) == 1
    assert MARK not in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"src", "out.secret"}
    assert everything(tmp_path / "src") == before


def test_the_source_is_not_touched_and_out_may_not_lie_in_it(tmp_path: Path) -> None:
    planted(tmp_path / "src")
    before = everything(tmp_path / "src")
    assert run(["cohort", "import-dicom", str(tmp_path / "src"), str(tmp_path / "src" / "out")]) == 3
    assert run(["cohort", "import-dicom", str(tmp_path / "src"), str(tmp_path / "out")]) == 0
    assert everything(tmp_path / "src") == before
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    assert run(["cohort", "import-dicom", str(tmp_path / "src"), str(tmp_path / "out")]) == 3
    assert np.array_equal([path.name for path in (tmp_path / "out").iterdir()], ["mine"])
