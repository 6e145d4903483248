"""Files that are broken, lie, or lead elsewhere: refused by name, quickly, and without allocating what they claim."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from dicom_series import Made, noise, write_enhanced, write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from fedphantom.cli import run
from fedphantom.common.dicom.channels import read_channel_rules
from fedphantom.common.dicom.instance import read_instance
from fedphantom.common.dicom.pixels import read_voxels
from fedphantom.common.dicom.reasons import REASONS, Faulty
from fedphantom.common.dicom.stack import Stack
from fedphantom.common.dicom.survey import counts, look_through
from fedphantom.common.errors import DataError

RULES = read_channel_rules()


def found_in(source: Path) -> dict[str, int]:
    survey = look_through(source, RULES, lambda done, total: None)
    return {one.code: one.files for one in counts(survey.findings)}


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    return write_series(tmp_path / "src", Made(stored=noise()))


@pytest.mark.parametrize("content", [b"", b"DICM", bytes(128) + b"DIC", b"\x1f\x8b" * 99, b"%PDF-1.7" * 50])
def test_files_of_other_kinds_are_counted_and_nothing_else(series: list[Path], content: bytes) -> None:
    (series[0].parent / "other").write_bytes(content)
    assert found_in(series[0].parent) == {"not-dicom": 1}


@pytest.mark.parametrize("keep", [133, 150, 400, -200, -1])
def test_a_truncated_file_is_found_and_its_series_is_not_taken(series: list[Path], keep: int) -> None:
    whole = series[3].read_bytes()
    series[3].write_bytes(whole[: keep if keep > 0 else len(whole) + keep])
    found = found_in(series[0].parent)
    assert found.keys() <= {"unreadable", "incomplete", "missing-slice", "not-an-mr-image"}
    assert sum(found.values()) >= 8


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0x7FFFFFFF, 0xFFFFFFFF, 100_000_000])
@pytest.mark.parametrize("element", [b"\xe0\x7f\x10\x00OW\0\0", b"\x08\x00\x19\x01UC\0\0"], ids=["pixels", "text"])
def test_a_length_that_lies_allocates_nothing(series: list[Path], element: bytes, length: int) -> None:
    content = series[0].read_bytes()
    if element not in content:
        content = content.replace(
            b"\x08\x00\x3e\x10LO", element + struct.pack("<I", 4) + b"abcd" + b"\x08\x00\x3e\x10LO"
        )
    at = content.index(element) + len(element)
    series[0].write_bytes(content[:at] + struct.pack("<I", length) + content[at + 4 :])
    tracemalloc.start()
    try:
        found = found_in(series[0].parent)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert found


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0x7FFFFFFF, 100_000_000])
@pytest.mark.parametrize("element", [b"\x10\x00\x20\x00", b"\x08\x00\x3e\x10"], ids=["patient", "description"])
def test_a_length_that_lies_of_what_is_read_allocates_nothing(tmp_path: Path, element: bytes, length: int) -> None:
    paths = write_series(tmp_path / "src", Made(stored=noise(), syntax=ImplicitVRLittleEndian))
    content = paths[0].read_bytes()
    at = content.index(element, 400) + 4
    paths[0].write_bytes(content[:at] + struct.pack("<I", length) + content[at + 4 :])
    tracemalloc.start()
    try:
        assert found_in(paths[0].parent)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_deflated_file_is_not_inflated(tmp_path: Path) -> None:
    made = Made(stored=noise(), syntax=DeflatedExplicitVRLittleEndian)
    paths = write_series(tmp_path / "src", made)
    head = paths[0].read_bytes()[:300]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(bytes(1 << 28)) + packer.flush()
    paths[0].write_bytes(head + bomb)
    tracemalloc.start()
    try:
        with pytest.raises(Faulty, match="compressed") as caught:
            read_instance(paths[0])
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert caught.value.detail == "Deflated Explicit VR Little Endian"


def test_pixels_that_claim_more_than_run_lengths_can_give_are_not_decoded(tmp_path: Path) -> None:
    made = Made(stored=noise(), syntax=RLELossless, tags={"Rows": 20_000, "Columns": 20_000})
    sound = Made(stored=noise(), syntax=RLELossless)
    for path in write_series(tmp_path / "src", sound):
        content = path.read_bytes()
        for element in (b"\x28\x00\x10\x00US", b"\x28\x00\x11\x00US"):
            at = content.index(element) + 8
            content = content[:at] + struct.pack("<H", made.tags["Rows"]) + content[at + 2 :]
        path.write_bytes(content)
    assert found_in(tmp_path / "src") == {"unreadable": 8}


def test_a_file_exchanged_between_looking_and_reading_is_not_taken(series: list[Path]) -> None:
    survey = look_through(series[0].parent, RULES, lambda done, total: None)
    write_series(series[0].parent, Made(stored=noise((6, 5, 8))))
    with pytest.raises(Faulty, match="unreadable"):
        read_voxels(survey.series[0].stack)


def test_pipes_and_devices_are_not_waited_for(series: list[Path]) -> None:
    os.mkfifo(series[0].parent / "pipe")
    assert found_in(series[0].parent) == {"not-dicom": 1}


def test_a_file_that_may_not_be_read_is_not_taken_for_another_kind(
    series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def forbidden(path: Path, *arguments: int) -> int:
        if path == series[2]:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", forbidden)
    assert found_in(series[0].parent) == {"unreadable": 1, "missing-slice": 7}


def test_a_link_that_leads_outside_is_refused_and_one_that_leads_inside_is_no_second_copy(
    series: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = series[0].parent
    (source / "again").symlink_to(series[0].name)
    (source / "folder").symlink_to(".")
    assert found_in(source) == {}
    elsewhere = tmp_path / "JaneRoe"
    elsewhere.mkdir()
    for kind in (elsewhere, elsewhere / "absent"):
        (source / "out").symlink_to(kind)
        with pytest.raises(DataError, match="link that leads outside"):
            found_in(source)
        assert run(["cohort", "import-dicom", str(source), str(tmp_path / "out")]) == 3
        assert "JaneRoe" not in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
        (source / "out").unlink()


def test_a_source_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for source in (tmp_path / "file", tmp_path / "absent"):
        assert run(["cohort", "import-dicom", str(source), str(tmp_path / "out")]) == 3


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), enhanced=st.booleans())
def test_a_file_spoilt_anywhere_ends_in_a_reason_or_in_voxels(
    tmp_path: Path, data: st.DataObject, enhanced: bool
) -> None:
    made = Made(stored=noise((4, 4, 3)))
    path = tmp_path / "a"
    whole = tmp_path / f"whole{enhanced}"
    if not whole.exists():
        (write_enhanced(whole, made) if enhanced else write_series(tmp_path, made)[0].rename(whole))
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(128, len(content) - 1))
        piece = data.draw(st.binary(max_size=6))
        content[at : at + data.draw(st.integers(0, 6))] = piece
    path.write_bytes(content)
    try:
        instance = read_instance(path)
        if instance.problem:
            raise instance.problem
        volume = read_voxels(Stack(instance.slices, made.affine()))
        assert volume.shape[2] == len(instance.slices)
        return
    except Faulty as found:
        code = found.code
    assert code in REASONS
