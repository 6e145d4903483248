"""Tumours are nested, irregular, inside the brain, and made again from their parameters."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.ndimage import binary_dilation, label

from fedphantom.common.errors import ConfigError, DataError
from fedphantom.common.labels.brain import BRAIN_LABELS, BrainLabels, brain_labels
from fedphantom.common.labels.lesion import (
    PUBLIC_LESIONS,
    LesionParameters,
    LesionRanges,
    draw_lesion,
    insert_lesion,
    lesion_ranges,
)
from fedphantom.common.study import LesionTable

TISSUES = BrainLabels()
SPACING = (2.0, 2.0, 2.0)
LESION = LesionParameters(
    centre_mm=(0.0, 24.0, 0.0), radius_mm=20.0, core_share=0.6, necrosis_share=0.6, irregularity=0.2, seed=1
)


@pytest.fixture(scope="module")
def brain():
    """A ball of white matter under a grey shell, with a ventricle in the middle, 2 mm."""
    axes = [(np.arange(n) - (n - 1) / 2) * 2 for n in (48, 56, 48)]
    distance = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    labels = np.zeros((48, 56, 48), np.uint8)
    for radius, value in ((45, TISSUES.grey), (39, TISSUES.white), (12, TISSUES.csf)):
        labels[distance < radius] = value
    return labels


@pytest.mark.parametrize("seed", range(6))
def test_necrosis_lies_inside_the_rim_and_the_rim_inside_the_whole(brain, seed):
    rng = np.random.default_rng(seed)
    lesion = draw_lesion(rng, PUBLIC_LESIONS, brain, SPACING, TISSUES)
    labels = insert_lesion(brain, lesion, SPACING, TISSUES)
    necrosis, rim, oedema = (labels == v for v in (TISSUES.necrosis, TISSUES.enhancing, TISSUES.oedema))
    assert necrosis.sum() > 0
    assert rim.sum() > 0
    assert oedema.sum() > 0
    assert not (binary_dilation(necrosis) & ~(necrosis | rim)).any()
    healthy_matter = np.isin(labels, (TISSUES.white,))
    assert not (binary_dilation(necrosis | rim) & healthy_matter).any()


@pytest.mark.parametrize("seed", range(6))
def test_background_and_ventricles_stay_as_they_are(brain, seed):
    lesion = replace(LESION, centre_mm=(0.0, 34.0, 0.0) if seed % 2 else (0.0, 16.0, 0.0), seed=seed)
    labels = insert_lesion(brain, lesion, SPACING, TISSUES)
    assert (labels != brain).any()
    assert np.array_equal(labels == 0, brain == 0)
    assert np.array_equal(labels == TISSUES.csf, brain == TISSUES.csf)


def test_a_tumour_is_one_piece_and_not_a_ball(brain):
    round_one = insert_lesion(brain, replace(LESION, irregularity=0.0), SPACING, TISSUES) == TISSUES.necrosis
    rough_one = insert_lesion(brain, replace(LESION, irregularity=0.35), SPACING, TISSUES)
    core = np.isin(rough_one, (TISSUES.enhancing, TISSUES.necrosis))
    assert label(core)[1] == 1
    assert not np.array_equal(rough_one == TISSUES.necrosis, round_one)


def test_a_larger_radius_gives_a_larger_tumour(brain):
    volumes = [
        (insert_lesion(brain, replace(LESION, radius_mm=r), SPACING, TISSUES) > TISSUES.white).sum()
        for r in (10, 15, 20)
    ]
    assert volumes == sorted(volumes)
    assert volumes[2] > 3 * volumes[0]


def test_the_tumour_lies_where_its_parameters_say(brain):
    labels = insert_lesion(brain, replace(LESION, radius_mm=12.0, irregularity=0.05), SPACING, TISSUES)
    centre = (np.argwhere(labels > TISSUES.white).mean(axis=0) - (np.array(labels.shape) - 1) / 2) * 2
    assert centre == pytest.approx(LESION.centre_mm, abs=2)


def test_the_same_parameters_give_the_same_tumour_and_another_seed_another(brain):
    once, again = (insert_lesion(brain, LESION, SPACING, TISSUES) for _ in range(2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, insert_lesion(brain, replace(LESION, seed=2), SPACING, TISSUES))


def test_draws_stay_in_their_ranges(brain):
    ranges = LesionRanges(
        radius_mm=(5, 6), core_share=(0.5, 0.6), necrosis_share=(0.4, 0.5), irregularity=(0.1, 0.2), depth_mm=(20, 24)
    )
    for seed in range(20):
        lesion = draw_lesion(np.random.default_rng(seed), ranges, brain, SPACING, TISSUES)
        depth = 45 - np.linalg.norm(lesion.centre_mm)
        assert 5 <= lesion.radius_mm <= 6
        assert 0.5 <= lesion.core_share <= 0.6
        assert 0.4 <= lesion.necrosis_share <= 0.5
        assert 0.1 <= lesion.irregularity <= 0.2
        assert 20 - 4 < depth < 24 + 4  # a voxel's diagonal either side


def test_the_place_can_be_confined_to_a_box(brain):
    box = ((0.0, 20.0), (-30.0, -10.0), (-5.0, 5.0))
    ranges = replace(PUBLIC_LESIONS, depth_mm=(0.0, 200.0), centre_mm=box)
    for seed in range(20):
        centre = draw_lesion(np.random.default_rng(seed), ranges, brain, SPACING, TISSUES).centre_mm
        assert all(low - 1 <= mm <= high + 1 for mm, (low, high) in zip(centre, box, strict=True))


def test_the_study_gives_the_ranges_and_its_defaults_are_the_public_ones():
    assert lesion_ranges(LesionTable()) == PUBLIC_LESIONS
    table = LesionTable(radius_mm=(5, 9), depth_mm=(30, 40), centre_mm=((0, 90), (-90, 90), (-90, 90)))
    ranges = lesion_ranges(table)
    assert (ranges.radius_mm, ranges.depth_mm, ranges.centre_mm[0]) == ((5, 9), (30, 40), (0, 90))


@pytest.mark.parametrize(
    "change",
    [{"radius_mm": (-3, 5)}, {"radius_mm": (9, 5)}, {"core_share": (0.5, 1.5)}, {"irregularity": (-0.1, 0.2)},
     {"depth_mm": (-1, 5)}, {"centre_mm": ((5, 1), (0, 1), (0, 1))}, {"size_mm": (1, 2)},
     {"radius_mm": (float("nan"), 5)}],
    ids=str,
)  # fmt: skip
def test_ranges_that_mean_nothing_are_refused(change):
    with pytest.raises(ValidationError):
        LesionTable(**change)


def test_where_no_white_matter_lies_so_deep_the_nearest_depth_is_taken(brain):
    deep = replace(PUBLIC_LESIONS, depth_mm=(500.0, 600.0))
    lesion = draw_lesion(np.random.default_rng(0), deep, brain, SPACING, TISSUES)
    assert np.linalg.norm(lesion.centre_mm) < 18  # at the ventricle's wall


def test_a_map_without_white_matter_is_refused():
    with pytest.raises(DataError, match="white matter"):
        draw_lesion(np.random.default_rng(0), PUBLIC_LESIONS, np.ones((8, 8, 8), np.uint8), SPACING, TISSUES)


def test_tissue_values_come_from_the_study_by_name():
    shuffled = {name: 10 * value for name, value in BRAIN_LABELS.items()}
    assert brain_labels(shuffled) == BrainLabels(csf=10, grey=20, white=30, oedema=40, enhancing=50, necrosis=60)
    with pytest.raises(ConfigError, match="necrosis, oedema"):
        brain_labels({k: v for k, v in BRAIN_LABELS.items() if k not in ("oedema", "necrosis")})
