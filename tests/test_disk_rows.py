"""Rows on disk: chosen, joined and read as an array in memory would be, without reading more than is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedphantom.common.cohorts.disk_rows import DiskRows, chosen, let_go
from fedphantom.common.cohorts.preparation import PreparedScans, joined

ONE = np.arange(5 * 6, dtype=np.float32).reshape(5, 2, 3)
OTHER = -ONE[:3]
BOTH = np.concatenate([ONE, OTHER])


def mapped(folder: Path, array: NDArray[np.float32]) -> np.memmap:
    path = folder / f"{array.sum()}.npy"
    np.save(path, array)
    return np.load(path, mmap_mode="r")


@pytest.fixture
def rows(tmp_path: Path) -> DiskRows[np.float32]:
    return DiskRows.of([mapped(tmp_path, ONE), mapped(tmp_path, OTHER)])


def test_rows_of_several_arrays_are_one_array(rows: DiskRows[np.float32]) -> None:
    assert (rows.shape, len(rows), rows.dtype) == (BOTH.shape, len(BOTH), BOTH.dtype)
    np.testing.assert_array_equal(rows, BOTH)
    np.testing.assert_array_equal(list(rows), BOTH)


WAYS: dict[str, Callable[[NDArray[np.float32] | DiskRows[np.float32]], NDArray[np.float32]]] = {
    "a number": lambda a: a[6],
    "numpy's number": lambda a: a[np.int64(2)],
    "from the end": lambda a: a[-1],
    "a slice": lambda a: a[1:7:2],
    "an empty slice": lambda a: a[3:3],
    "a list": lambda a: a[[7, 0, 7]],
    "an array": lambda a: a[np.array([4, 5])],
}


@pytest.mark.parametrize("read", WAYS.values(), ids=WAYS.keys())
def test_reading_is_that_of_an_array(
    rows: DiskRows[np.float32], read: Callable[[NDArray[np.float32] | DiskRows[np.float32]], NDArray[np.float32]]
) -> None:
    assert type(read(rows)).__mro__[-2] is np.ndarray
    np.testing.assert_array_equal(read(rows), read(BOTH))


@given(st.lists(st.integers(0, 7)), st.data())
def test_chosen_rows_of_chosen_rows_are_those_of_the_whole(first: list[int], data: st.DataObject) -> None:
    second = data.draw(st.lists(st.integers(0, len(first) - 1)) if first else st.just([]))
    rows = chosen(DiskRows.of([ONE, OTHER]).only(first), second)
    assert rows.shape == (len(second), 2, 3)
    np.testing.assert_array_equal(rows, BOTH[first][second])


def test_a_row_beyond_the_last_is_an_index_error(rows: DiskRows[np.float32]) -> None:
    for beyond in (8, -9):
        with pytest.raises(IndexError):
            rows[beyond]


def test_nothing_of_a_mapped_cohort_is_read_by_choosing_and_joining(tmp_path: Path) -> None:
    # Sparse files far larger than any memory: reading them would not end, copying them would fail.
    volumes = np.memmap(tmp_path / "volumes", np.float32, "w+", shape=(100, 4, 512, 512, 512))
    classes = np.memmap(tmp_path / "classes", np.uint8, "w+", shape=(100, 512, 512, 512))
    names = tuple(f"p{i}" for i in range(100))
    scans = PreparedScans(volumes, classes, names, ("a",) * 100, np.zeros((100, 0)))
    half = joined([scans, scans.only(range(50))]).named_by_site().only([3, 120])
    assert half.patients == ("a/p3", "a/p20")
    assert half.volumes.shape == (2, 4, 512, 512, 512)
    assert float(half.volumes[1][3, 511, 511, 511]) == 0


def test_rows_in_memory_stay_in_memory() -> None:
    kept = chosen(ONE, [1, 3])
    assert type(kept) is np.ndarray
    np.testing.assert_array_equal(kept, ONE[[1, 3]])


def test_rows_on_disk_are_no_array_without_a_copy(rows: DiskRows[np.float32]) -> None:
    with pytest.raises(ValueError, match="copy"):
        np.asarray(rows, copy=False)
    assert np.asarray(rows, dtype=np.float64).dtype == np.float64


def resident_file_kib(path: Path) -> int:
    """How much of a file's mapping this process holds in memory."""
    parts = Path("/proc/self/smaps").read_text().split("VmFlags:")
    return sum(int(part.split("Rss:")[1].split()[0]) for part in parts if str(path) in part)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="memory is looked up where Linux tells it")
@pytest.mark.parametrize("view", [lambda array: array, lambda array: np.asarray(array).reshape(8, -1)[1:]])
def test_what_was_read_of_a_file_is_let_go_and_read_again(
    tmp_path: Path, view: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> None:
    path = tmp_path / "volumes.npy"
    np.save(path, np.ones((4, 2, 100_000), np.float32))
    array = np.load(path, mmap_mode="r")
    assert array.sum() == 800_000
    assert resident_file_kib(path) > 3000
    let_go(view(array))
    assert resident_file_kib(path) < 100
    assert array.sum() == 800_000


@pytest.mark.parametrize("mode", ["w+", "r+", "c"])
def test_letting_go_loses_nothing_that_was_written(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "volumes.npy"
    np.save(path, ONE)
    if mode == "w+":
        array = np.lib.format.open_memmap(path, "w+", np.float32, ONE.shape)
    else:
        array = np.load(path, mmap_mode="r+" if mode == "r+" else "c")
    array[:] = OTHER[0]
    let_go(array)
    assert np.array_equal(array, np.broadcast_to(OTHER[0], ONE.shape))


def test_an_array_in_memory_stays_there() -> None:
    array = ONE.copy()
    let_go(array[1:])
    assert np.array_equal(array, ONE)
