"""The prepared cache: per-scan normalisation, written once, named by its content, whole or absent."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import nibabel as nib
import numpy as np
import pytest
from tiny_cohorts import SHAPE, tiny_study, write_tiny_cohort

from fedphantom.common.cohort import Cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import content_key, joined, normalise, prepare
from fedphantom.common.errors import DataError, StorageError
from fedphantom.common.volumes.nifti import read_label_map, read_volume
from fedphantom.common.volumes.nifti_writer import write_label_map, write_volume

STUDY = tiny_study()


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return read_cohort(write_tiny_cohort(tmp_path / "cohort", 3))


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Name to (inode, time of change) of every file."""
    found = {str(p.relative_to(folder)): p.stat() for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


# What is prepared


def test_scans_come_in_the_cohorts_order_with_class_indices(cohort: Cohort, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    scans = prepare(cohort, STUDY, tmp_path / "cache", lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert len(scans) == 3
    assert scans.patients == tuple(p.patient_id for p in cohort.patients)
    assert (scans.volumes.shape, scans.volumes.dtype) == ((3, 2, *SHAPE), np.float32)
    assert (scans.classes.shape, scans.classes.dtype) == ((3, *SHAPE), np.uint8)
    assert isinstance(scans.volumes, np.memmap)
    for row, scan in enumerate(cohort.scans):
        assert scan.label is not None
        stored, _ = read_label_map(scan.label)
        np.testing.assert_array_equal(np.asarray(STUDY.label_values)[scans.classes[row]], stored)
        for channel, name in enumerate(STUDY.channels):
            voxels, _ = read_volume(scan.channels[name])
            np.testing.assert_allclose(scans.volumes[row, channel], normalise(voxels), atol=1e-5)
            assert (scans.volumes[row, channel][stored == 0] == -1).all()


def test_another_patient_does_not_change_a_scans_arrays(cohort: Cohort, tmp_path: Path) -> None:
    alone = prepare(cohort.only([cohort.patients[1].patient_id]), STUDY, tmp_path / "alone")
    together = prepare(cohort, STUDY, tmp_path / "together")
    np.testing.assert_array_equal(alone.volumes[0], together.volumes[1])
    np.testing.assert_array_equal(alone.classes[0], together.classes[1])


def test_two_hospitals_patients_of_one_name_stay_two_people(cohort: Cohort, tmp_path: Path) -> None:
    scans = prepare(cohort, STUDY, tmp_path)
    both = joined([scans.named_site("a"), scans.named_site("b")]).named_by_site()
    assert len(set(both.patients)) == 2 * len(set(scans.patients))
    assert both.patients[0] == f"a/{scans.patients[0]}"


def test_rows_are_chosen_and_joined_by_patient(cohort: Cohort, tmp_path: Path) -> None:
    scans = prepare(cohort, STUDY, tmp_path / "cache").named_site("north")
    last = scans.only(scans.rows_of({scans.patients[2]}))
    assert (last.patients, last.sites) == ((scans.patients[2],), ("north",))
    np.testing.assert_array_equal(last.volumes[0], scans.volumes[2])
    both = joined([last, scans])
    assert both.patients == (scans.patients[2], *scans.patients)
    np.testing.assert_array_equal(both.classes[0], scans.classes[2])


# What the files say beside their voxels


def rewritten(path: Path, change: Callable[[Any], None], dtype: type = np.float32) -> None:
    """The same file with another header; nibabel writes it, as other people's tools do."""
    image = nib.load(path)  # type: ignore[attr-defined]  # nibabel types little
    new = nib.Nifti1Image(np.asarray(image.dataobj).astype(dtype), image.affine)  # type: ignore[attr-defined]
    change(new)
    nib.save(new, path)  # type: ignore[attr-defined]


def set_affine(factor: float = 1.0, flip: bool = False, offset: float = 0.0) -> Callable[[Any], None]:
    def change(image: Any) -> None:
        affine = image.affine.copy()
        affine[:3, :3] *= factor
        affine[0, :3] *= -1 if flip else 1
        affine[:3, 3] += offset
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)

    return change


def set_text(image: Any) -> None:
    image.header["descrip"] = b"TE=4.2;Time=101112"


def keep(image: Any) -> None:
    pass


OTHER_FILES: dict[str, tuple[Callable[[Any], None], type]] = {
    "voxel size": (set_affine(factor=1.005), np.float32),
    "orientation": (set_affine(flip=True), np.float32),
    "place": (set_affine(offset=7.0), np.float32),
    "stored type": (keep, np.float64),
    "free text": (set_text, np.float32),
}


@pytest.mark.parametrize(("change", "dtype"), OTHER_FILES.values(), ids=OTHER_FILES.keys())
def test_what_preparation_makes_alike_is_remembered(
    cohort: Cohort, tmp_path: Path, change: Callable[[Any], None], dtype: type
) -> None:
    for channel in cohort.scans[0].channels.values():
        rewritten(channel.path, keep)
    before = prepare(cohort, STUDY, tmp_path / "cache")
    for channel in cohort.scans[0].channels.values():
        rewritten(channel.path, change, dtype)
    after = prepare(cohort, STUDY, tmp_path / "cache")
    assert np.isfinite(after.headers).all()
    assert not np.array_equal(after.headers[0], before.headers[0])
    np.testing.assert_array_equal(after.headers[1:], before.headers[1:])
    if change is not OTHER_FILES["orientation"][0]:
        np.testing.assert_array_equal(after.volumes, before.volumes)


def test_the_matrix_and_the_intensity_scale_before_normalisation_are_remembered(cohort: Cohort, tmp_path: Path) -> None:
    before = prepare(cohort, STUDY, tmp_path / "cache")
    source = cohort.scans[0].channels["T1"]
    voxels, _ = read_volume(source)
    write_volume(source.path, voxels * 10, STUDY.volume_grid())
    brighter = prepare(cohort, STUDY, tmp_path / "cache")
    np.testing.assert_allclose(brighter.volumes, before.volumes, atol=1e-5)
    changed = np.flatnonzero(brighter.headers[0] != before.headers[0])
    assert (brighter.headers[0] - before.headers[0])[changed] == pytest.approx([np.log(10)] * 2, abs=1e-3)

    # Two voxels of nothing more on every side: cropped away again, but another matrix.
    for channel in cohort.scans[1].channels.values():
        padded = np.pad(read_volume(channel)[0], 2)
        write_volume(channel.path, padded, replace(STUDY.volume_grid(), shape=padded.shape))
    larger = prepare(cohort, STUDY, tmp_path / "cache")
    np.testing.assert_array_equal(larger.volumes[1], before.volumes[1])
    assert not np.array_equal(larger.headers[1], before.headers[1])


def test_headers_follow_their_scans(cohort: Cohort, tmp_path: Path) -> None:
    scans = prepare(cohort, STUDY, tmp_path / "cache").named_site("north")
    last = scans.only(scans.rows_of({scans.patients[2]}))
    np.testing.assert_array_equal(joined([last, scans]).headers, np.stack([scans.headers[2], *scans.headers]))


# The cache


def test_a_second_call_reads_the_cache_without_writing(cohort: Cohort, tmp_path: Path) -> None:
    first = prepare(cohort, STUDY, tmp_path / "cache")
    before = snapshot(tmp_path / "cache")

    def never(done: int, total: int) -> NoReturn:
        raise AssertionError

    second = prepare(cohort, STUDY, tmp_path / "cache", never)
    assert snapshot(tmp_path / "cache") == before
    np.testing.assert_array_equal(first.volumes, second.volumes)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a voxel flipped": lambda target: flipped(target / "volumes.npy"),
    "a label flipped": lambda target: flipped(target / "classes.npy"),
    "cut short": lambda target: (target / "volumes.npy").write_bytes((target / "volumes.npy").read_bytes()[:-99]),
    "a file gone": lambda target: (target / "headers.npy").unlink(),
    "its hashes gone": lambda target: (target / "hashes.json").unlink(),
    "its hashes damaged": lambda target: (target / "hashes.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_cache_is_not_believed_and_made_again(
    cohort: Cohort, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    first = prepare(cohort, STUDY, tmp_path / "cache")
    volumes, classes = np.array(first.volumes), np.array(first.classes)
    (target,) = (tmp_path / "cache").iterdir()
    damage(target)
    again = prepare(cohort, STUDY, tmp_path / "cache")
    np.testing.assert_array_equal(again.volumes, volumes)
    np.testing.assert_array_equal(again.classes, classes)
    np.testing.assert_array_equal(again.headers, first.headers)


def test_prepared_scans_are_for_their_owner_alone(cohort: Cohort, tmp_path: Path) -> None:
    prepare(cohort, STUDY, tmp_path / "cache")
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_the_key_changes_with_any_files_bytes(cohort: Cohort) -> None:
    before = content_key(cohort, STUDY)
    assert content_key(cohort, STUDY) == before
    seen = {before}
    for path in [cohort.scans[1].channels["FLAIR"].path, cohort.scans[2].label]:
        assert path is not None
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        seen.add(content_key(cohort, STUDY))
        path.write_bytes(whole)
    assert len(seen) == 3
    assert content_key(cohort, STUDY) == before


def test_the_key_changes_with_what_the_study_makes_of_the_files(cohort: Cohort) -> None:
    other_grid = STUDY.grid.model_copy(update={"spacing_mm": (4.0, 4.0, 3.0)})
    keys = {
        content_key(cohort, study)
        for study in (
            STUDY,
            STUDY.model_copy(update={"channels": tuple(reversed(STUDY.channels))}),
            STUDY.model_copy(update={"labels": {**STUDY.labels, "other": 5}}),
            STUDY.model_copy(update={"grid": other_grid}),
        )
    }
    assert len(keys) == 4
    assert content_key(cohort, STUDY.model_copy(update={"name": "another", "seed": 9})) in keys


def test_a_changed_scan_is_prepared_anew(cohort: Cohort, tmp_path: Path) -> None:
    before = np.array(prepare(cohort, STUDY, tmp_path / "cache").volumes)
    path = cohort.scans[0].channels["T1"].path
    voxels, _ = read_volume(cohort.scans[0].channels["T1"])
    write_volume(path, voxels[::-1].copy(), STUDY.volume_grid())
    after = prepare(cohort, STUDY, tmp_path / "cache").volumes
    assert not np.array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1:], before[1:])


# What goes wrong

KILLED_IN_THE_MIDDLE = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tiny_cohorts import tiny_study
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import prepare
def stop(done, total):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
prepare(read_cohort(Path(sys.argv[1])), tiny_study(), Path(sys.argv[2]), stop)
"""


def test_a_write_killed_in_the_middle_leaves_nothing_that_is_believed(cohort: Cohort, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    program = [sys.executable, "-c", KILLED_IN_THE_MIDDLE]
    arguments = [str(cohort.root), str(cache), str(Path(__file__).parent / "fakes")]
    assert subprocess.run([*program, *arguments], check=False).returncode == -signal.SIGKILL
    assert cache.is_dir()
    assert not (cache / content_key(cohort, STUDY)).exists()
    told: list[int] = []
    scans = prepare(cohort, STUDY, cache, lambda done, _: told.append(done))
    assert told == [1, 2, 3]
    np.testing.assert_array_equal(scans.volumes, prepare(cohort, STUDY, tmp_path / "other").volumes)


def test_two_who_prepare_the_same_scans_at_once_both_get_them(cohort: Cohort, tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def another_is_faster(done: int, _: int) -> None:
        if done == 2:
            prepare(cohort, STUDY, cache)

    scans = prepare(cohort, STUDY, cache, another_is_faster)
    np.testing.assert_array_equal(scans.volumes, prepare(cohort, STUDY, tmp_path / "other").volumes)
    assert [folder.name for folder in cache.iterdir()] == [content_key(cohort, STUDY)]


def test_a_disk_that_is_full_is_an_error_that_leaves_nothing(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fedphantom.common.cohorts.preparation._write_header", full)
    with pytest.raises(StorageError, match="no space is left"):
        prepare(cohort, STUDY, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 100 KiB; three tiny scans need 108."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() or not mount:
        pytest.skip("mounting a small tmpfs needs root")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=100k", "none", folder], check=False).returncode:
        pytest.skip("this container may not mount a tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_really_full_disk_is_an_error_that_leaves_nothing(cohort: Cohort, small_disk: Path) -> None:
    # In a process of its own: a memory-mapped write would not raise but die of SIGBUS.
    code = KILLED_IN_THE_MIDDLE.replace("if done == 2", "if False")
    arguments = [str(cohort.root), str(small_disk / "cache"), str(Path(__file__).parent / "fakes")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "StorageError: no space is left on the disk" in done.stderr
    assert list((small_disk / "cache").iterdir()) == []


def test_scans_that_do_not_fit_the_study_are_refused_without_naming_a_patient(cohort: Cohort, tmp_path: Path) -> None:
    first = cohort.patients[0]
    unlabelled = replace(first, scans=(replace(first.scans[0], label=None),))
    no_flair = replace(first, scans=(replace(first.scans[0], channels={"T1": first.scans[0].channels["T1"]}),))
    for patients, found in (((unlabelled,), "label map"), ((no_flair,), "channel FLAIR"), ((), "without a usable")):
        with pytest.raises(DataError, match=found) as refused:
            prepare(replace(cohort, patients=patients), STUDY, tmp_path / "cache")
        assert first.patient_id not in str(refused.value)


def test_a_label_value_that_the_study_does_not_name_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    scan = cohort.scans[0]
    assert scan.label is not None
    labels, _ = read_label_map(scan.label)
    odd = np.where(labels == 4, 3, labels).astype(np.uint8)
    write_label_map(scan.label, odd, STUDY.volume_grid())
    with pytest.raises(DataError, match="outside the study's labels"):
        prepare(cohort, STUDY, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_unreadable_file_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    cohort.scans[0].channels["T1"].path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        prepare(cohort, STUDY, tmp_path / "cache")


def test_the_cache_names_no_patient(cohort: Cohort, tmp_path: Path) -> None:
    prepare(cohort, STUDY, tmp_path / "cache")
    names = json.dumps(sorted(snapshot(tmp_path / "cache")))
    assert not any(patient.patient_id in names for patient in cohort.patients)
