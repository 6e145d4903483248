"""Montages: what is in them, where, and which way up."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray
from tiny_cohorts import SHAPE, draw_labels, tiny_study, write_tiny_cohort

from fedphantom.common.montage import Pictured, column_titles, montage, write_cohort_montage
from fedphantom.common.volumes.slices import PLANES, busiest_slice, cut

STUDY = tiny_study()
CHANNELS = len(STUDY.channels)


def pixels(png: bytes) -> NDArray[np.float64]:
    return np.asarray(imread(BytesIO(png)), dtype=np.float64)[..., :3]


def a_map() -> NDArray[np.uint8]:
    labels = draw_labels(np.random.default_rng(0))
    return np.where(labels == 4, 2, labels).astype(np.uint8)


def dark() -> NDArray[np.float32]:
    return np.full((CHANNELS, *SHAPE), -1, np.float32)


def cell(picture: NDArray[np.float64], row: int, column: int, of_columns: int) -> NDArray[np.float64]:
    """The middle of a cell, captions around it left out."""
    side, top, size = 75, 30, 125
    assert picture.shape[1] == side + of_columns * size
    edge = 6
    down, across = top + row * size, side + column * size
    return picture[down + edge : down + size - edge, across + edge : across + size - edge]


def test_the_same_volumes_give_the_same_bytes_and_no_word_of_the_program() -> None:
    one, two = (montage(STUDY, [Pictured("map 1", a_map(), dark())]) for _ in range(2))
    assert one == two
    assert b"matplotlib" not in one.lower()


def test_a_bright_voxel_on_the_patients_right_is_at_the_left_of_an_axial_slice() -> None:
    classes, volume = a_map(), dark()
    name, axis, letter = PLANES[0]
    assert (name, axis, letter) == ("axial", 2, "R")
    volume[0, 13:15, 7:9, busiest_slice(classes, 2)] = 1  # X grows to the right of the patient
    shown = cell(pixels(montage(STUDY, [Pictured("map 1", classes, volume)])), 0, 1, 1 + CHANNELS)
    bright = np.argwhere(shown.min(axis=-1) > 0.95)
    assert len(bright)
    middle = shown.shape[1] / 2
    assert bright[:, 1].mean() < middle - 20
    # The other channel holds no such voxel: only its letter is white, at the very edge.
    other = cell(pixels(montage(STUDY, [Pictured("map 1", classes, volume)])), 0, 2, 1 + CHANNELS)
    assert not (other[:, 12:].min(axis=-1) > 0.95).any()


def test_one_window_serves_all_so_that_a_flat_grey_volume_stays_grey() -> None:
    volume = np.zeros((CHANNELS, *SHAPE), np.float32)
    shown = cell(pixels(montage(STUDY, [Pictured("map 1", a_map(), volume)])), 1, 1, 1 + CHANNELS)
    middle = shown[40:70, 40:70]
    np.testing.assert_allclose(middle, 0.5, atol=0.01)


def test_labels_differ_in_brightness_not_in_hue_alone() -> None:
    classes = np.zeros(SHAPE, np.uint8)
    classes[2:8], classes[8:14] = 1, 2
    shown = cell(pixels(montage(STUDY, [Pictured("map 1", classes, dark())])), 0, 0, 1 + CHANNELS)
    brightness = sorted({round(float(value), 2) for value in shown[55:60, 15:].mean(axis=-1).ravel()})
    levels = [value for value in brightness if value < 0.99]
    assert len(levels) >= 3
    assert min(np.diff(levels)) > 0.05


def test_real_scans_stand_beside_synthetic_ones_only_where_they_are_given() -> None:
    without = pixels(montage(STUDY, [Pictured("a", a_map(), dark())]))
    both = pixels(montage(STUDY, [Pictured("a", a_map(), dark(), dark()), Pictured("b", a_map(), dark())]))
    assert both.shape[1] - without.shape[1] == 125 * CHANNELS
    assert both.shape[0] - without.shape[0] == 125 * len(PLANES)
    assert cell(both, 0, 1 + CHANNELS, 1 + 2 * CHANNELS)[40:70, 40:70].max() < 0.01  # a dark real scan
    assert cell(both, 3, 1 + CHANNELS, 1 + 2 * CHANNELS).min() > 0.99  # none: the paper shows


def test_columns_are_called_what_they_are_where_painted_scans_stand_beside_a_patients() -> None:
    painted, real = Pictured("a", a_map(), dark()), Pictured("a", a_map(), dark(), dark())
    procedural = Pictured("b", a_map(), dark(), dark(), procedural=True)
    assert column_titles(STUDY, [painted]) == ["label map", "T1", "FLAIR"]
    for shown, whose in (
        ([painted, real], "real"),
        ([procedural], "procedural"),
        ([real, procedural], "patient"),
    ):
        titles = ["T1, synthetic", "FLAIR, synthetic", f"T1, {whose}", f"FLAIR, {whose}"]
        assert column_titles(STUDY, shown) == ["label map", *titles]


def test_the_first_scans_of_a_cohort_are_pictured_from_its_files(tmp_path: Path) -> None:
    cohort = write_tiny_cohort(tmp_path / "cohort", 3)
    write_cohort_montage(tmp_path / "out.png", cohort, STUDY)
    picture = pixels((tmp_path / "out.png").read_bytes())
    assert picture.shape[0] == 30 + 2 * 3 * 125 + 40
    assert cell(picture, 0, 1, 1 + CHANNELS).std() > 0.1


@pytest.mark.parametrize(("axis", "expected"), [(2, 9), (1, 4), (0, 12)])
def test_the_slice_shown_is_the_one_with_most_structures(axis: int, expected: int) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, :, :8] = 1
    labels[12, 4, 9], labels[:, :, 9] = 2, 1
    labels[12, 4, 9] = 2
    assert busiest_slice(labels, axis) == expected


def test_a_cut_puts_superior_and_anterior_up() -> None:
    voxels = np.zeros((2, 3, 4), np.uint8)
    voxels[1, 2, 3] = 1  # right, anterior, superior
    assert [np.argwhere(cut(voxels, axis, at))[0].tolist() for axis, at in ((2, 3), (1, 2), (0, 1))] == [[0, 0]] * 3
