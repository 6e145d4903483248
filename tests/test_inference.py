"""A network from images to labels: how sure it is, and its windows."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_anatomy import (
    CPU,
    LPS,
    STUDY,
    TABLE,
    write_scan,
)

from fedphantom.common.anatomy.scan import head_box, infer_scan
from fedphantom.common.cohort import Scan
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import ABSENT
from fedphantom.common.errors import GeometryError
from fedphantom.common.gan.generation import LoadedGenerator
from fedphantom.common.gan.inference import expected_dice, infer
from fedphantom.common.gan.networks import make_generator

# Confidence as a figure.


@given(st.integers(0, 2**32), st.floats(0.05, 3.0))
@settings(max_examples=30, deadline=None)
def test_confidence_is_the_dice_to_expect_where_the_probabilities_are_true(seed: int, sharpness: float) -> None:
    random = np.random.default_rng(seed)
    raw = np.exp(sharpness * random.normal(size=(3, 12, 12, 12)))
    p = (raw / raw.sum(axis=0)).astype(np.float32)
    truth = (random.random((12, 12, 12)) > np.cumsum(p, axis=0)).sum(axis=0).clip(0, 2)
    chosen = p.argmax(axis=0)
    got = [2 * ((chosen == c) & (truth == c)).sum() / ((chosen == c).sum() + (truth == c).sum()) for c in (1, 2)]
    expected = expected_dice(p, np.ones((12, 12, 12), bool))
    assert 0 <= expected <= 1
    assert expected == pytest.approx(np.mean(got), abs=0.09)


def test_a_certain_answer_has_confidence_one_and_an_empty_head_none() -> None:
    p = np.zeros((2, 4, 4, 4), np.float32)
    p[1] = 1
    everywhere = np.ones((4, 4, 4), bool)
    assert expected_dice(p, everywhere) == 1
    assert expected_dice(p, ~everywhere) == 0


def test_a_label_that_is_probable_everywhere_and_chosen_nowhere_costs_confidence() -> None:
    p = np.stack([np.full((4, 4, 4), share, np.float32) for share in (0.05, 0.5, 0.45)])
    assert expected_dice(p, np.ones((4, 4, 4), bool)) < 0.5


# Windows.


def test_a_volume_larger_than_the_window_is_read_in_windows_to_the_same_answer(network: LoadedGenerator) -> None:
    random = np.random.default_rng(3)
    images = random.uniform(-1, 1, (2, 37, 20, 50)).astype(np.float32)
    shares = infer(network.network, images, STUDY, CPU)
    brain = 1 / (1 + np.exp(40.0 * (-0.9 - images[0])))
    np.testing.assert_allclose(shares[1], brain, atol=2e-3)
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-5)


def test_a_volume_smaller_than_the_window_is_padded_with_background(network: LoadedGenerator) -> None:
    images = np.random.default_rng(3).uniform(-1, 1, (2, 9, 5, 11)).astype(np.float32)
    assert infer(network.network, images, STUDY, CPU).shape == (2, 9, 5, 11)


def test_the_answer_is_the_same_for_a_scan_and_its_mirror_image() -> None:
    study_network = make_generator(STUDY, 4).eval()
    images = np.random.default_rng(3).uniform(-1, 1, (2, 16, 16, 16)).astype(np.float32)
    straight = infer(study_network, images, STUDY, CPU)
    mirrored = infer(study_network, images[:, ::-1].copy(), STUDY, CPU)
    np.testing.assert_allclose(straight[:, ::-1], mirrored, atol=1e-5)


def test_the_head_is_found_whatever_specks_lie_beside_it() -> None:
    images = np.full((2, 20, 20, 20), ABSENT, np.float32)
    images[1, 6:12, 7:11, 3:9] = 0.4
    images[0, 0, 0, 0] = images[1, 19, 19, 19] = 0.9
    assert head_box(images) == (slice(4, 14), slice(5, 13), slice(1, 11))
    assert head_box(images * 0 + ABSENT) == (slice(0, 20),) * 3


def test_channels_of_different_shapes_are_refused(tmp_path: Path, network: LoadedGenerator) -> None:
    write_scan(tmp_path / "c" / "one")
    (scan,) = read_cohort(tmp_path / "c").scans
    nib.save(nib.Nifti1Image(np.ones((30, 36, 27), np.float32), LPS), tmp_path / "c" / "one" / "flair.nii.gz")
    with pytest.raises(GeometryError):
        infer_scan(scan, network, TABLE)
    with pytest.raises(GeometryError, match="without any channel"):
        infer_scan(Scan("s", "p", {}, None), network, TABLE)
