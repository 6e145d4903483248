"""Where a lesion leaves, the known anatomy comes to light, else the other hemisphere's, else the nearest tissue."""

from __future__ import annotations

import numpy as np
import pytest
from little_brain import ALL, HEAD, LARGEST, PARTS, TERMS, TISSUES, motion, terms_of, tumour
from lopsided_brain import ill_lopsided_brain, lopsided_brain
from numpy.typing import NDArray

from fedphantom.common.edits.layered import LayeredMap, layered
from fedphantom.common.edits.operations import Operation, Reflection, Removal, apply_operation

NO_HEMISPHERES = terms_of(head=HEAD + "[labels]\nhemispheres = false\n")
BENEATH = np.isin(ill_lopsided_brain(), PARTS)


def restored(beneath: str) -> LayeredMap:
    """The ill brain with anatomy from there."""
    if beneath == "known":
        return layered(ill_lopsided_brain(), TERMS, lopsided_brain())
    return layered(ill_lopsided_brain(), TERMS if beneath == "mirrored" else NO_HEMISPHERES)


def right(labels: NDArray[np.uint8], where: NDArray[np.bool_] = BENEATH) -> float:
    """Share of these voxels that are as they were in health."""
    return float((labels[where] == lopsided_brain()[where]).mean())


def ventricle_dice(labels: NDArray[np.uint8]) -> float:
    found, true = (m[BENEATH] == TISSUES.csf for m in (labels, lopsided_brain()))
    return float(2 * (found & true).sum() / (found.sum() + true.sum()))


ALL_WHITE = np.where(BENEATH, TISSUES.white, ill_lopsided_brain()).astype(np.uint8)


def test_the_lesion_lies_over_every_tissue_and_the_halves_are_not_the_same() -> None:
    healthy = lopsided_brain()
    shares = {tissue: float((healthy[BENEATH] == tissue).mean()) for tissue in (TISSUES.grey, TISSUES.csf)}
    assert shares[TISSUES.grey] > 0.2
    assert shares[TISSUES.csf] > 0.05
    assert (healthy != healthy[::-1]).mean() > 0.02


def test_the_other_hemisphere_knows_cortex_and_ventricle_better_than_the_nearest_tissue_does() -> None:
    mirrored, nearest = restored("mirrored"), restored("nearest")
    assert (mirrored.beneath, nearest.beneath) == ("mirrored", "nearest")
    assert right(mirrored.anatomy) > right(nearest.anatomy) + 0.1
    assert ventricle_dice(mirrored.anatomy) > 0.6
    assert ventricle_dice(nearest.anatomy) == 0  # no lake of fluid is thought to lie there


def test_the_nearest_tissue_knows_more_than_white_matter_everywhere() -> None:
    assert right(restored("nearest").anatomy) > right(ALL_WHITE) + 0.05


@pytest.mark.parametrize("beneath", ["known", "mirrored", "nearest"])
def test_a_removed_lesion_leaves_the_anatomy_beneath(beneath: str) -> None:
    before = restored(beneath)
    after = apply_operation(before, Removal(target=ALL), TERMS)
    np.testing.assert_array_equal(after.labels, before.anatomy)
    assert right(after.labels) > right(ALL_WHITE) + 0.05
    assert (right(after.labels) == 1) == (beneath == "known")


@pytest.mark.parametrize("beneath", ["known", "mirrored", "nearest"])
@pytest.mark.parametrize(
    "operation",
    [motion(shift=(0, 12, 0)), motion(factor=0.7), Reflection(target=LARGEST)],
    ids=["moved", "shrunk", "mirrored"],
)
def test_a_lesion_carried_off_leaves_the_anatomy_beneath(operation: Operation, beneath: str) -> None:
    before = restored(beneath)
    after = apply_operation(before, operation, TERMS)
    left = BENEATH & ~tumour(after)
    assert left.sum() > 0.15 * BENEATH.sum()
    np.testing.assert_array_equal(after.labels[left], before.anatomy[left])
    assert right(after.labels, left) > right(ALL_WHITE, left) + 0.05
