"""Edits that would make an implausible map are refused with the reason."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from little_brain import (
    LARGEST,
    PARTS,
    TERMS,
    TISSUES,
    distance_mm,
    healthy_brain,
    motion,
    order_holds,
    tumour_state,
    with_tumour,
)

from fedphantom.common.edits.layered import LayeredMap, layered
from fedphantom.common.edits.operations import (
    Deformation,
    Motion,
    Transplantation,
    apply_operation,
)
from fedphantom.common.edits.plausibility import Implausible
from fedphantom.common.labels.deformation import DiffeomorphismParameters

VOLUME = r"[\d.e+]+ ml \(\d+ voxels\)"
LOST = rf"[\d.]+% of (it|its core), {VOLUME}; [\d.]+% lost in all, at most 10.0%"
PUSHED = {
    "outside": ("outside", tumour_state(), motion(shift=(-20, 0, 0)), LOST),
    "off the grid": (
        "outside",
        tumour_state(),
        motion(shift=(-300, 0, 0)),
        "100.0% of it, " + VOLUME + "; 100.0% lost",
    ),
    "larger than the grid": ("outside", tumour_state(), motion(40), VOLUME + "; at most the grid's " + VOLUME),
    "over a ventricle": ("forbidden", tumour_state(radius=9), motion(shift=(24, 0, 0)), LOST),
    "too large": ("too large", tumour_state(radius=9), motion(1.3), VOLUME + "; at most 5 ml"),
    "too small": ("too small", tumour_state(radius=9), motion(0.8), VOLUME + "; at least 2 ml"),
    "no lesion": ("no lesion", layered(healthy_brain(), TERMS), motion(), "0 lesions; at least 1"),
}


@pytest.mark.parametrize(("reason", "state", "operation", "told"), PUSHED.values(), ids=PUSHED.keys())
def test_an_implausible_edit_is_refused_with_its_reason_what_was_measured_and_the_limit(
    reason: str, state: LayeredMap, operation: Motion, told: str
) -> None:
    terms = replace(TERMS, volume_ml=(2.0, 5.0) if reason.startswith("too") else TERMS.volume_ml)
    with pytest.raises(Implausible) as refused:
        apply_operation(state, operation, terms)
    assert refused.value.reason == reason
    assert re.search(told, refused.value.measured)
    assert refused.value.measured in str(refused.value)
    assert refused.value.exit_code == 3


def test_the_volume_told_is_the_one_measured() -> None:
    terms = replace(TERMS, volume_ml=(2.0, 300.0))
    small = tumour_state(radius=6)
    voxels = int(terms.is_lesion(small.labels).sum())
    with pytest.raises(Implausible) as refused:
        apply_operation(small, motion(), terms)
    millilitres = voxels * np.prod(terms.spacing_mm) / 1000
    assert refused.value.measured == f"{millilitres:.3g} ml ({voxels} voxels); at least 2 ml"


def test_a_tumour_may_not_meet_another_one() -> None:
    both = with_tumour(with_tumour(healthy_brain(), (-26, 24, 0), radius=9), (-26, -12, 0), radius=12)
    state = layered(both, TERMS, healthy_brain())
    with pytest.raises(Implausible) as refused:
        apply_operation(state, motion(shift=(0, 18, 0)), TERMS)
    assert refused.value.reason == "another lesion"
    assert re.fullmatch(rf"one of {VOLUME} that it touches; below \d+% of its own {VOLUME}", refused.value.measured)


def test_a_tumour_may_not_be_cut_in_two() -> None:
    labels = healthy_brain()
    sheet = (slice(None), slice(36, 37))
    labels[sheet] = np.where(labels[sheet] > 0, TISSUES.csf, 0)
    mass = labels.copy()
    mass[distance_mm((-27, -10, 0)) < 12] = TISSUES.oedema
    with pytest.raises(Implausible) as refused:
        apply_operation(layered(mass, TERMS, labels), motion(shift=(0, 26, 0)), TERMS)
    assert refused.value.reason == "cut off"
    assert re.match(LOST, refused.value.measured)


def test_a_core_may_not_be_lost_where_the_whole_tumour_loses_little() -> None:
    """Its tip lies in fluid: six hundredths of the tumour, but a quarter of the core."""
    labels = np.full((56, 56, 56), TISSUES.white, np.uint8)
    labels[40:] = TISSUES.csf
    mass = labels.copy()
    mass[distance_mm((-20, 0, 0)) < 20] = TISSUES.oedema
    mass[distance_mm((-8, 0, 0)) < 6] = TISSUES.enhancing
    terms = replace(TERMS, hemispheres=False)
    with pytest.raises(Implausible, match="of its core"):
        apply_operation(layered(mass, terms, labels), motion(shift=(30, 0, 0)), terms)
    after = apply_operation(layered(mass, terms, labels), motion(shift=(30, 0, 0)), replace(terms, lost=0.4)).labels
    assert np.isin(after, PARTS).sum() > 0.9 * np.isin(mass, PARTS).sum()


def test_a_part_that_would_lie_bare_altogether_is_refused() -> None:
    terms = replace(TERMS, lost=0.9)
    with pytest.raises(Implausible) as refused:
        apply_operation(tumour_state(), motion(shift=(-26, 0, 0)), terms)
    assert refused.value.reason == "part order"
    assert re.fullmatch(r"0 of \d+ voxels from label \d inwards; at least 1", refused.value.measured)
    assert order_holds(apply_operation(tumour_state(), motion(shift=(-16, 0, 0)), terms).labels)


def test_a_warp_that_folds_the_map_is_refused() -> None:
    warp = DiffeomorphismParameters(displacement_mm=12, smoothness_mm=4, seed=1)
    with pytest.raises(Implausible) as refused:
        apply_operation(tumour_state(), Deformation(warp=warp), TERMS)
    assert refused.value.reason == "folded"
    assert refused.value.measured == "12 mm over 4 mm; a Jacobian determinant above 0 everywhere"


def test_a_donor_without_a_lesion_is_refused() -> None:
    with pytest.raises(Implausible) as refused:
        apply_operation(tumour_state(), Transplantation(target=LARGEST, centre_mm=None), TERMS, healthy_brain())
    assert refused.value.reason == "no donor lesion"
    assert refused.value.measured == "0 lesions; at least 1"
