"""Edits do what they say, keep a tumour's order, leave healthy anatomy behind, and are refused by name."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_brain import (
    ALL,
    HEAD,
    LARGEST,
    NO,
    PARTS,
    SPACING,
    TERMS,
    TISSUES,
    distance_mm,
    healthy_brain,
    motion,
    order_holds,
    terms_of,
    tumour,
    tumour_state,
    with_tumour,
)
from scipy.ndimage import label

from fedphantom.common.edits.body import lesions_of
from fedphantom.common.edits.carriage import carry
from fedphantom.common.edits.layered import LayeredMap, layered
from fedphantom.common.edits.operations import (
    Deformation,
    Insertion,
    Motion,
    Reflection,
    Removal,
    Resizing,
    Target,
    Transplantation,
    apply_operation,
)
from fedphantom.common.edits.plausibility import Implausible
from fedphantom.common.labels.deformation import AffineParameters, DiffeomorphismParameters, warp_labels
from fedphantom.common.labels.lesion import LesionParameters


def parts(state: LayeredMap) -> list[int]:
    return [int((state.labels == value).sum()) for value in PARTS]


@settings(max_examples=12, deadline=None)
@given(steps=st.tuples(*(st.integers(-2, 2),) * 3))
def test_a_move_by_whole_voxels_is_exact_and_undone_by_the_opposite_move(steps: tuple[int, int, int]) -> None:
    before = tumour_state()
    shift = tuple(float(step * mm) for step, mm in zip(steps, SPACING, strict=True))
    there = apply_operation(before, motion(shift=shift), TERMS)  # type: ignore[arg-type]  # three of them
    moved = np.roll(np.where(tumour(before), before.labels, 0), steps, axis=(0, 1, 2))
    assert np.array_equal(np.where(tumour(there), there.labels, 0), moved)
    back = apply_operation(there, motion(shift=tuple(-mm for mm in shift)), TERMS)  # type: ignore[arg-type]
    assert np.array_equal(back.labels, before.labels)


@settings(max_examples=10, deadline=None)
@given(factor=st.floats(0.7, 1.35))
def test_a_scaled_tumours_volume_changes_by_the_factors_cube(factor: float) -> None:
    before = tumour_state()
    after = apply_operation(before, motion(factor), TERMS)
    assert tumour(after).sum() / tumour(before).sum() == pytest.approx(factor**3, rel=0.1)


@settings(max_examples=12, deadline=None)
@given(
    factor=st.floats(0.7, 1.3),
    turn=st.tuples(*(st.floats(-180, 180),) * 3),
    shift=st.tuples(*(st.floats(-9, 9),) * 3),
)
def test_whatever_the_motion_the_order_holds_and_healthy_anatomy_stays_where_it_was(
    factor: float, turn: tuple[float, float, float], shift: tuple[float, float, float]
) -> None:
    before = tumour_state()
    try:
        after = apply_operation(before, motion(factor, turn, shift), TERMS)
    except Implausible:
        return
    assert order_holds(after.labels)
    assert np.array_equal(after.labels[~tumour(after)], healthy_brain()[~tumour(after)])
    assert label(tumour(after), np.ones((3, 3, 3)))[1] == 1


def test_a_turn_about_itself_keeps_volume_and_middle() -> None:
    before = tumour_state()
    long = before.labels.copy()
    long[(np.abs(distance_mm((-30, 21, 3))) < 6) & (long == TISSUES.white)] = TISSUES.oedema
    state = layered(long, TERMS, healthy_brain())
    after = apply_operation(state, motion(turn=(0, 0, 90)), TERMS)
    assert tumour(after).sum() == pytest.approx(tumour(state).sum(), rel=0.05)
    middle = [np.argwhere(tumour(s)).mean(axis=0) for s in (state, after)]
    assert middle[0] == pytest.approx(middle[1], abs=0.3)
    extent = [np.ptp(np.argwhere(tumour(s)), axis=0) for s in (state, after)]
    assert extent[0][1] > extent[0][0]
    assert extent[1][0] > extent[1][1]


def test_a_tumour_mirrored_twice_is_where_it_was() -> None:
    before = tumour_state()
    there = apply_operation(before, Reflection(target=LARGEST), TERMS)
    assert np.array_equal(there.labels, before.labels[::-1])
    assert np.array_equal(apply_operation(there, Reflection(target=LARGEST), TERMS).labels, before.labels)


def test_in_a_turned_head_a_tumour_mirrored_twice_is_about_where_it_was() -> None:
    healthy = healthy_brain()
    healthy[:, :14] = healthy[:, -14:] = 0  # no ball, so that its turn shows
    turned = AffineParameters(rotation_deg=(0, 0, 12), scale=(0.9, 1, 1), shift_mm=(4, 0, 0))
    still = DiffeomorphismParameters(seed=0, displacement_mm=0, smoothness_mm=10)
    anatomy, labels = (warp_labels(m, SPACING, turned, still) for m in (healthy, with_tumour(healthy, radius=10)))
    before = layered(labels, TERMS, anatomy)
    there = apply_operation(before, Reflection(target=LARGEST), TERMS)
    back = apply_operation(there, Reflection(target=LARGEST), TERMS)
    assert not (tumour(there) & tumour(before)).any()
    both = (tumour(back) & tumour(before)).sum()
    assert 2 * both / (tumour(back).sum() + tumour(before).sum()) > 0.85


def test_motion_is_in_millimetres_whatever_the_voxels_shape() -> None:
    terms = replace(TERMS, spacing_mm=(2.0, 2.0, 4.0))
    labels = healthy_brain()
    box = (slice(8, 16), slice(24, 34), slice(25, 28))  # 16 × 20 × 12 mm
    labels[box] = TISSUES.oedema
    state = layered(labels, terms, healthy_brain())
    after = apply_operation(state, motion(turn=(90, 0, 0)), terms)
    extent = (np.ptp(np.argwhere(tumour(after)), axis=0) + 1) * terms.spacing_mm
    assert extent == pytest.approx([16, 12, 20], abs=4)
    assert tumour(after).sum() == pytest.approx(tumour(state).sum(), rel=0.05)
    moved = apply_operation(state, motion(shift=(4, -2, 4)), terms)
    assert np.array_equal(tumour(moved), np.roll(tumour(state), (2, -1, 1), axis=(0, 1, 2)))


def test_maps_of_tumours_alone_can_be_edited_too() -> None:
    terms = terms_of(head=HEAD + '[labels]\nhost = ["background"]\nforbidden = []\nhemispheres = false\n')
    state = layered(with_tumour(np.zeros_like(healthy_brain())), terms)
    assert not state.anatomy.any()
    after = apply_operation(state, motion(shift=(10, 0, 0)), terms)
    assert np.array_equal(after.labels, np.roll(state.labels, 5, axis=0))
    with pytest.raises(Implausible) as refused:
        apply_operation(state, motion(shift=(-26, 0, 0)), terms)
    assert refused.value.reason == "outside"


@pytest.mark.parametrize("mm", [3.0, 4.5, 6.0])
def test_a_part_grows_and_shrinks_by_the_length_asked_for(mm: float) -> None:
    before = tumour_state(radius=14)

    def radius(state: LayeredMap) -> float:
        return float((3 * tumour(state).sum() * 8 / 4 / np.pi) ** (1 / 3))

    grown = apply_operation(before, Resizing(target=LARGEST, part=0, distance=mm, unit="mm"), TERMS)
    assert radius(grown) == pytest.approx(radius(before) + mm, abs=1.2)
    assert parts(grown)[1:] == parts(before)[1:]
    big = tumour_state(radius=16)
    shrunk = apply_operation(big, Resizing(target=LARGEST, part=0, distance=-mm, unit="mm"), TERMS)
    assert radius(shrunk) == pytest.approx(max(radius(big) - mm, 16 * 0.7 + 1.0), abs=1.5)
    assert parts(shrunk)[1:] == parts(big)[1:]


@settings(max_examples=12, deadline=None)
@given(part=st.integers(0, 2), voxels=st.floats(-3, 3))
def test_a_growing_core_pushes_its_shells_outwards_and_the_order_holds(part: int, voxels: float) -> None:
    before = tumour_state()
    try:
        after = apply_operation(before, Resizing(target=LARGEST, part=part, distance=voxels, unit="voxels"), TERMS)
    except Implausible:
        return
    assert order_holds(after.labels)
    shells = [[np.isin(state.labels, PARTS[i:]) for i in range(3)] for state in (before, after)]
    if voxels >= 0:
        assert all((b | ~a).all() for a, b in zip(*shells, strict=True))
    else:
        assert all((a | ~b).all() for a, b in zip(*shells, strict=True))


def test_a_core_that_outgrows_its_oedema_still_has_some_around_it() -> None:
    before = tumour_state()
    after = apply_operation(before, Resizing(target=LARGEST, part=1, distance=9, unit="mm"), TERMS)
    assert np.isin(after.labels, PARTS[1:]).sum() > tumour(before).sum()
    assert order_holds(after.labels)


def test_a_growing_tumour_stops_at_ventricle_and_skull() -> None:
    before = tumour_state()
    after = apply_operation(before, Resizing(target=LARGEST, part=0, distance=15, unit="mm"), TERMS)
    healthy = healthy_brain()
    assert np.array_equal(after.labels == 0, healthy == 0)
    assert np.array_equal(after.labels == TISSUES.csf, healthy == TISSUES.csf)


@pytest.mark.parametrize("factor", [4.5, 40.0, 1e6])
def test_a_body_larger_than_the_grid_is_refused_before_a_grid_is_made_that_holds_it(factor: float) -> None:
    before = tumour_state()
    tracemalloc.start()
    try:
        with pytest.raises(Implausible, match="outside"):
            apply_operation(before, motion(factor=factor), TERMS)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()


def test_a_removed_tumour_leaves_the_anatomy_that_the_chain_knows() -> None:
    after = apply_operation(tumour_state(), Removal(target=LARGEST), TERMS)
    assert np.array_equal(after.labels, healthy_brain())


@settings(max_examples=8, deadline=None)
@given(centre=st.tuples(st.floats(-32, -26), st.floats(-12, 12), st.floats(-12, 12)), radius=st.floats(5, 13))
def test_the_other_hemisphere_restores_what_no_chain_knows(centre: tuple[float, float, float], radius: float) -> None:
    state = layered(with_tumour(healthy_brain(), centre, radius), TERMS)
    after = apply_operation(state, Removal(target=Target(lesion=-1)), TERMS)
    assert state.beneath == "mirrored"
    assert np.array_equal(after.labels, healthy_brain())


def test_where_the_other_side_is_ill_too_the_nearest_tissue_is_taken() -> None:
    both = with_tumour(with_tumour(healthy_brain()), (27, 0, 0), radius=12)
    state = layered(both, TERMS)
    after = apply_operation(state, Removal(target=Target(lesion=-1)), TERMS)
    assert not np.isin(after.labels, PARTS).any()
    assert set(np.unique(after.labels[np.isin(both, PARTS)])) <= {TISSUES.grey, TISSUES.white}


def test_without_hemispheres_the_nearest_label_is_taken() -> None:
    terms = terms_of(head=HEAD + "[labels]\nhemispheres = false\n")
    state = layered(with_tumour(healthy_brain()), terms)
    assert state.beneath == "nearest"
    assert not np.isin(state.anatomy, PARTS).any()
    assert (state.anatomy != healthy_brain()).mean() < 0.01


def test_no_lake_of_fluid_is_thought_to_lie_beneath_a_tumour_that_touches_one() -> None:
    labels = np.full((20, 20, 20), TISSUES.csf, np.uint8)
    labels[:6] = TISSUES.white
    labels[8:12, 8:12, 8:12] = TISSUES.oedema  # in fluid, four voxels from tissue
    state = layered(labels, terms_of(head=HEAD + "[labels]\nhemispheres = false\n"))
    assert (state.anatomy[labels == TISSUES.oedema] == TISSUES.white).all()


def test_a_healthy_map_knows_its_anatomy() -> None:
    assert layered(healthy_brain(), TERMS).beneath == "known"


def test_a_lesion_is_what_hangs_together_with_the_crumbs_around_it() -> None:
    labels = with_tumour(with_tumour(healthy_brain(), (30, 6, 3), radius=9), (-27, 0, 0))
    labels[13, 39, 29] = labels[13, 40, 29] = TISSUES.oedema  # a crumb, 10 mm from the larger one
    numbers, count = lesions_of(labels, TERMS)
    assert count == 2
    assert np.array_equal(numbers[:28] == 1, np.isin(labels[:28], PARTS))
    assert np.array_equal(numbers[28:] == 2, np.isin(labels[28:], PARTS))
    labels[54, 54, 54] = TISSUES.oedema  # too far from both
    assert lesions_of(labels, TERMS)[1] == 3


def test_one_of_two_lesions_is_edited_and_the_other_left_alone() -> None:
    both = with_tumour(with_tumour(healthy_brain(), (30, 6, 3), radius=9), (-30, 6, 3))
    state = layered(both, TERMS, healthy_brain())
    after = apply_operation(state, Removal(target=Target(lesion=1)), TERMS)
    assert np.array_equal(after.labels[:28], both[:28])
    assert np.array_equal(after.labels[28:], healthy_brain()[28:])


def test_an_inserted_tumour_is_nested_and_lies_where_it_should() -> None:
    terms = terms_of('[[edit]]\noperation = "insert"\n')
    lesion = LesionParameters(
        centre_mm=(27, 6, 3), radius_mm=15, core_share=0.6, necrosis_share=0.5, irregularity=0.1, seed=1
    )
    after = apply_operation(layered(healthy_brain(), terms), Insertion(lesion=lesion), terms)
    assert order_holds(after.labels)
    middle = (np.argwhere(tumour(after)).mean(axis=0) - (np.array(after.labels.shape) - 1) / 2) * SPACING
    assert middle == pytest.approx([27, 6, 3], abs=4)


def test_a_donors_tumour_keeps_its_shape_and_parts() -> None:
    donor = with_tumour(healthy_brain())
    here = Transplantation(target=LARGEST, centre_mm=(30.0, 6.0, 3.0))
    after = apply_operation(layered(healthy_brain(), TERMS), here, TERMS, donor)
    assert tumour(after).sum() == pytest.approx(np.isin(donor, PARTS).sum(), rel=0.1)
    middle = (np.argwhere(tumour(after)).mean(axis=0) - (np.array(donor.shape) - 1) / 2) * SPACING
    assert middle == pytest.approx([30, 6, 3], abs=0.1)
    assert order_holds(after.labels)
    same = apply_operation(layered(healthy_brain(), TERMS), replace(here, centre_mm=None), TERMS, donor)
    assert np.array_equal(same.labels, donor)


def test_a_deformation_warps_both_layers_alike() -> None:
    warp = DiffeomorphismParameters(displacement_mm=3, smoothness_mm=18, seed=3)
    before = tumour_state()
    after = apply_operation(before, Deformation(warp=warp), TERMS)
    assert (after.labels != before.labels).mean() > 0.01
    assert (after.labels != after.anatomy).sum() == pytest.approx(tumour(after).sum(), rel=0.05)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_deformed_tumour_keeps_its_order(seed: int) -> None:
    warp = DiffeomorphismParameters(displacement_mm=3, smoothness_mm=10, seed=seed)
    before = tumour_state()
    still = AffineParameters(rotation_deg=NO, scale=(1, 1, 1), shift_mm=NO)
    assert not order_holds(warp_labels(before.labels, SPACING, still, warp))  # as the warp alone leaves it
    after = apply_operation(before, Deformation(warp=warp), TERMS)
    assert order_holds(after.labels)
    assert label(tumour(after), np.ones((3, 3, 3)))[1] == 1
    assert all(parts(after))


def test_each_lesion_of_a_deformed_map_is_judged() -> None:
    gentle = Deformation(warp=DiffeomorphismParameters(displacement_mm=1, smoothness_mm=18, seed=1))
    two = layered(with_tumour(tumour_state().labels, centre=(30, 6, 3), radius=6), TERMS, healthy_brain())
    assert lesions_of(apply_operation(two, gentle, TERMS).labels, TERMS)[1] == 2
    for volume_ml, reason in (((2.0, 300.0), "too small"), ((0.0, 5.0), "too large")):
        with pytest.raises(Implausible) as refused:
            apply_operation(two, gentle, replace(TERMS, volume_ml=volume_ml))
        assert refused.value.reason == reason
    thin = healthy_brain()
    thin[12, 28, 28] = TISSUES.oedema  # one voxel, between voxels after a warp
    vanishing = Deformation(warp=DiffeomorphismParameters(displacement_mm=3, smoothness_mm=10, seed=0))
    with pytest.raises(Implausible) as gone:
        apply_operation(layered(thin, TERMS, healthy_brain()), vanishing, replace(TERMS, volume_ml=(0, 300)))
    assert gone.value.reason == "too small"


def test_a_deformation_may_leave_bare_what_a_patients_lesion_showed_bare() -> None:
    before = tumour_state().labels
    before[np.isin(before, PARTS[:2])] = TISSUES.white  # necrosis alone
    warp = DiffeomorphismParameters(displacement_mm=3, smoothness_mm=10, seed=1)
    after = apply_operation(layered(before, TERMS, healthy_brain()), Deformation(warp=warp), TERMS)
    assert set(np.unique(after.labels)) & set(PARTS) == {PARTS[2]}
    assert (after.labels == PARTS[2]).sum() == pytest.approx((before == PARTS[2]).sum(), rel=0.3)


def test_far_lesions_much_enlarged_are_refused_before_a_grid_is_made_that_holds_them() -> None:
    labels = healthy_brain()
    for corner in (slice(14, 17), slice(39, 42)):
        labels[corner, corner, corner] = TISSUES.oedema
    state = layered(labels, TERMS, healthy_brain())
    tracemalloc.start()
    try:
        with pytest.raises(Implausible) as refused:
            apply_operation(state, Motion(target=ALL, factor=10, rotation_deg=NO, shift_mm=NO), TERMS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused.value.reason == "outside"
    assert peak < 200 * 56**3  # bytes; their common box has 270³ voxels


def test_an_image_in_a_box_larger_than_the_grid_has_its_volume_and_place() -> None:
    shells = np.zeros((1, 40, 40, 40), np.bool_)
    shells[0, 16:24, 16:24, 16:24] = True
    shells[0, 1, 1, 1] = shells[0, 38, 38, 38] = True  # whose images lie outside
    (image,), (intended,) = carry(shells, (1, 1, 1), 1.5 * np.eye(3), np.zeros(3))
    assert intended == pytest.approx(1.5**3 * (8**3 + 2), rel=0.02)
    assert image.sum() == pytest.approx(12**3, rel=0.05)
    assert np.argwhere(image).mean(axis=0) == pytest.approx([19.5] * 3, abs=0.05)


def test_a_hollow_that_a_ventricle_cut_is_closed_elsewhere() -> None:
    healthy = healthy_brain()
    horn = np.zeros(healthy.shape, np.bool_)
    horn[16:25, 29:33, 27:31] = True  # 8 mm wide: no sulcus; it ends before the necrosis
    healthy[horn] = TISSUES.csf
    cut = np.where(horn, TISSUES.csf, with_tumour(healthy)).astype(np.uint8)
    state = layered(cut, TERMS, healthy)
    assert np.array_equal(apply_operation(state, motion(), TERMS).labels, cut)
    after = apply_operation(state, motion(shift=(2, -24, 0)), TERMS)
    bottom = (16, slice(29, 33), slice(27, 31))
    there = (17, slice(17, 21), slice(27, 31))
    assert not tumour(state)[bottom].any()
    assert tumour(after)[there].all()
    assert order_holds(after.labels)
