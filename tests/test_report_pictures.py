"""The HTML page's pictures: slices of any study, and curves."""

from __future__ import annotations

import re

import numpy as np
import pytest
from report_content import (
    SHAPE,
    a_sample,
    a_study,
    an_attack,
    content,
    images_in,
    rounds,
)

from fedphantom.privacy.report.content import (
    RocCurve,
    SyntheticSample,
    read_roc,
)
from fedphantom.privacy.report.page import render_report
from fedphantom.privacy.report.slices import show_volumes


@pytest.mark.parametrize("channels", [("T1",), ("T1", "T1c", "T2", "FLAIR")])
@pytest.mark.parametrize("labels", [("tumour",), ("a", "b", "c", "d", "e", "f", "g", "h", "i")])
def test_any_number_of_channels_and_labels_is_drawn_in_three_planes(
    channels: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    study = a_study(channels, labels)
    page = render_report(content(study, synthetic=a_sample(study, n=1, real=False)), "shareable")
    assert len(images_in(page)) == 3 * len(channels)
    for plane, size in (("axial", 8), ("coronal", 24), ("sagittal", 16)):
        assert re.search(rf"{channels[-1]} of synthetic volume 1, {plane} slice \d+ of {size}", page)
    assert all(f"line of {label}" in page for label in labels)


def test_slices_hang_as_radiologists_hang_films() -> None:
    study = a_study(labels=("one",))
    labels = np.ones((1, *SHAPE), np.uint8)
    volume = np.zeros((1, 1, *SHAPE), np.float32)
    volume[0, 0, -1, -1, :] = 1  # the rightmost and most anterior column
    axial = show_volumes(study, SyntheticSample(volume, labels))[0].planes[0]
    (image,) = images_in(str(axial.plain[0].svg))
    assert image.shape == (SHAPE[1], SHAPE[0])
    assert np.argwhere(image).tolist() == [[0, 0]], "patient's right at the left, front at the top"


def test_a_slice_is_cut_where_most_structures_show() -> None:
    study = a_study()
    labels = np.zeros((1, *SHAPE), np.uint8)
    labels[0, :, :, 2] = 1
    labels[0, 3:5, 3:5, 6] = 1
    labels[0, 5:7, 3:5, 6] = 2
    planes = show_volumes(study, SyntheticSample(np.zeros((1, 1, *SHAPE), np.float32), labels))[0].planes
    assert planes[0].name == "axial slice 7 of 8"


def test_a_volume_without_any_label_is_still_drawn() -> None:
    sample = SyntheticSample(np.zeros((1, 1, *SHAPE), np.float32), np.zeros((1, *SHAPE), np.uint8))
    page = render_report(content(synthetic=sample), "shareable")
    assert "structures: none" in page


@pytest.mark.parametrize("n", [1, 80])
def test_one_round_or_very_many_are_drawn(n: int) -> None:
    assert "nan" not in render_report(content(rounds=rounds(n)), "shareable").lower()


def test_curves_with_ties_and_perfect_attacks_are_drawn() -> None:
    perfect = RocCurve("A1", np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]), 500, 500)
    useless = RocCurve("A3", np.array([0.0, 1.0]), np.array([0.0, 1.0]), 25, 24)
    page = render_report(content(roc=(perfect, useless)), "internal")
    assert page.count("ROC curves on everybody: A1, A3") == 1
    assert "A1: 500 members, 500 holdout" in page


def test_curves_are_read_from_the_audit_file() -> None:
    (curve,) = read_roc({"attacks": [an_attack("A1", "G", 0.5)]})
    assert (curve.name, curve.n_member, curve.n_holdout) == ("A1", 25, 24)
    assert curve.tpr.tolist() == [0.0, 0.5, 1.0]
