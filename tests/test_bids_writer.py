import errno
import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fedphantom.common.cohorts import bids_writer
from fedphantom.common.cohorts.bids_writer import BidsWriter
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.errors import DataError, GeometryError, StorageError
from fedphantom.common.volumes.grid import Grid
from fedphantom.common.volumes.nifti import read_label_map, read_volume
from fedphantom.common.volumes.nifti_writer import write_volume

GRID = Grid((4, 6, 5), (1.0, 1.5, 2.0))
LABELS = {"background": 0, "core": 4, "oedema": 2}


def writer(root: Path, channels: tuple[str, ...] = ("T1", "T1c", "T2", "FLAIR"), synthetic: bool = True) -> BidsWriter:
    return BidsWriter(root, GRID, channels, LABELS, "A test cohort", synthetic)


def volumes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *GRID.shape)).astype(np.float32)


def labels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice([0, 2, 4], size=GRID.shape).astype(np.uint8)


@pytest.mark.parametrize(
    "channels", [("T1", "T1c", "T2", "FLAIR"), ("MRI",), ("channel-0", "channel-1"), ("FLAIR", "DWI_b0", "PD")]
)
def test_a_written_cohort_is_read_back_whole(tmp_path: Path, channels: tuple[str, ...]) -> None:
    written = volumes(len(channels))
    with writer(tmp_path / "out", channels) as out:
        out.add("p2", written, labels(2), {}, site="B")
        out.add("p1", written + 1, labels(1), {}, site="A", session="1")
        out.add("p1", written + 2, labels(3), {}, site="A", session="2")
    cohort = read_cohort(tmp_path / "out")
    assert cohort.layout == "bids"
    assert set(cohort.channels) == set(channels)
    assert cohort.label_names == {0: "background", 2: "oedema", 4: "core"}
    assert [(p.patient_id, p.site, len(p.scans)) for p in cohort.patients] == [("p1", "A", 2), ("p2", "B", 1)]
    assert cohort.stray == ()
    scan = cohort.patients[1].scans[0]
    for name, expected in zip(channels, written, strict=True):
        read, affine = read_volume(scan.channels[name])
        np.testing.assert_array_equal(read, expected)
        np.testing.assert_allclose(affine, GRID.affine())
    assert scan.label is not None
    np.testing.assert_array_equal(read_label_map(scan.label)[0], labels(2))


@pytest.mark.parametrize("synthetic", [True, False])
def test_every_volume_has_a_sidecar_that_says_whether_it_is_synthetic(tmp_path: Path, synthetic: bool) -> None:
    with writer(tmp_path / "out", synthetic=synthetic) as out:
        out.add("p1", volumes(4), labels(), {"NoiseSeed": 7, "Synthetic": not synthetic})
    images = sorted((tmp_path / "out").rglob("*.nii.gz"))
    assert len(images) == 5
    for image in images:
        sidecar = json.loads(image.with_name(image.name.replace(".nii.gz", ".json")).read_text())
        assert sidecar == {"NoiseSeed": 7, "Synthetic": synthetic}


def test_the_description_says_who_wrote_it(tmp_path: Path) -> None:
    with writer(tmp_path / "out") as out:
        out.add("p1", volumes(4), labels(), {})
    description = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert description["Name"] == "A test cohort"
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "FedPhantom"
    assert description["Synthetic"] is True


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with writer(tmp_path / name) as out:
            out.add("p1", volumes(4), labels(), {"b": 1, "a": 2})
    files = [p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file()]
    assert len(files) == 13
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_cohort_is_absent_until_it_is_whole(tmp_path: Path) -> None:
    out = writer(tmp_path / "out")
    out.add("p1", volumes(4), labels(), {})
    assert not (tmp_path / "out").exists()
    out.close()
    out.close()
    assert (tmp_path / "out" / "dataset_description.json").exists()


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with writer(tmp_path / "out") as out:
            out.add("p1", volumes(4), labels(), {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = writer(tmp_path / "out")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="no space"), out:
        out.add("p1", volumes(4), labels(), {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(StorageError, match="there already"):
        writer(tmp_path)


@pytest.mark.parametrize("patient", ["", "sub-1", "doe_john", "a/b", "../x", "ä"])
def test_a_name_that_bids_does_not_allow_is_refused_without_quoting_it(tmp_path: Path, patient: str) -> None:
    with pytest.raises(DataError) as caught, writer(tmp_path / "out") as out:
        out.add(patient, volumes(4), labels(), {})
    assert "john" not in str(caught.value)


def test_a_scan_added_twice_or_under_two_sites_is_refused(tmp_path: Path) -> None:
    with writer(tmp_path / "out") as out:
        out.add("p1", volumes(4), labels(), {}, site="A")
        with pytest.raises(DataError, match="twice"):
            out.add("p1", volumes(4), labels(), {}, site="A")
        with pytest.raises(DataError, match="two sites"):
            out.add("p1", volumes(4), labels(), {}, site="B", session="2")
    assert len(read_cohort(tmp_path / "out").scans) == 1


def test_wrong_shapes_and_unnamed_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GeometryError), writer(tmp_path / "out") as out:
        out.add("p1", volumes(3), labels(), {})
    with pytest.raises(DataError, match=r"\[9\]"), writer(tmp_path / "out") as out:
        out.add("p1", volumes(4), np.full(GRID.shape, 9, np.uint8), {})


@pytest.mark.parametrize("channels", [(), ("a-b", "ab"), ("T1", "T1w"), ("mask",)])
def test_channels_that_could_not_be_told_apart_on_disk_are_refused(tmp_path: Path, channels: tuple[str, ...]) -> None:
    with pytest.raises(DataError):
        writer(tmp_path / "out", channels)


def test_an_interrupt_while_volumes_are_compressed_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(path: Path, *arguments: object, **options: object) -> None:
        time.sleep(0.3)
        write_volume(path, *arguments, **options)  # type: ignore[arg-type]  # as given

    monkeypatch.setattr(bids_writer, "write_volume", slowly)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a command in this process may have left its own
    try:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt), writer(tmp_path / "out") as out:
            out.add("p1", volumes(4), labels(), {})
    finally:
        signal.signal(signal.SIGINT, before)
    time.sleep(0.5)  # whoever still wrote would have by now
    assert not [*tmp_path.iterdir()]
