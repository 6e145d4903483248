"""A small procedural head with a nested tumour, and the terms under which it is edited."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedphantom.common.edits.layered import LayeredMap, layered
from fedphantom.common.edits.operations import Motion, Target
from fedphantom.common.edits.terms import EditTerms, edit_terms
from fedphantom.common.labels.brain import BRAIN_LABELS, BrainLabels
from fedphantom.common.labels.recipe import Recipe, parse_recipe
from fedphantom.common.study import Study
from fedphantom.common.volumes.grid import Spacing

TISSUES = BrainLabels()
PARTS = (TISSUES.oedema, TISSUES.enhancing, TISSUES.necrosis)
SHAPE = (56, 56, 56)
SPACING = (2.0, 2.0, 2.0)
HEAD = 'name = "test"\ncitation = "by hand"\n'


def brain_study(shape: tuple[int, int, int] = SHAPE, spacing: Spacing = SPACING, **public: Any) -> Study:
    return Study.model_validate({
        "name": "brains",
        "seed": 5,
        "channels": ["T1"],
        "labels": dict(BRAIN_LABELS),
        "grid": {"shape": shape, "spacing_mm": spacing},
        "public_labels": {"source": "atlas"} | public,
        "network": {"preset": "tiny"},
    })  # fmt: skip


def distance_mm(centre: tuple[float, float, float], shape: tuple[int, ...] = SHAPE) -> NDArray[np.float64]:
    """From a point that is given in millimetres from the grid's centre, shape (X, Y, Z)."""
    axes = [(np.arange(n) - (n - 1) / 2) * mm - c for n, mm, c in zip(shape, SPACING, centre, strict=True)]
    return np.asarray(np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij"))))


def healthy_brain(
    white_mm: float = 47.0, ventricle: tuple[float, float, float] = (6.0, 0.0, 0.0), ventricle_mm: float = 5.0
) -> NDArray[np.uint8]:
    """White matter under a grey shell, a ventricle on either side of the middle; left mirrors right.

    Args:
        white_mm: Radius of the white matter, the grey's being 54.
        ventricle: Centre of the right one.
        ventricle_mm: Radius of both.
    """
    labels = np.zeros(SHAPE, np.uint8)
    depth = distance_mm((0, 0, 0))
    labels[depth < 54] = TISSUES.grey
    labels[depth < white_mm] = TISSUES.white
    x, y, z = ventricle
    for side in (-1, 1):
        labels[distance_mm((side * x, y, z)) < ventricle_mm] = TISSUES.csf
    return labels


def with_tumour(
    labels: NDArray[np.uint8], centre: tuple[float, float, float] = (-30, 6, 3), radius: float = 12.0
) -> NDArray[np.uint8]:
    """Three nested balls."""
    out, away = labels.copy(), distance_mm(centre)
    for value, share in zip(PARTS, (1.0, 0.7, 0.4), strict=True):
        out[away < share * radius] = value
    return out


def recipe_of(edits: str, head: str = HEAD) -> Recipe:
    """A recipe from its edits alone."""
    return parse_recipe(head + edits)


def terms_of(edits: str = '[[edit]]\noperation = "remove"\n', head: str = HEAD) -> EditTerms:
    return edit_terms(recipe_of(edits, head), brain_study())


def tumour_state(centre: tuple[float, float, float] = (-30, 6, 3), radius: float = 12.0) -> LayeredMap:
    """As the sampler gives it: what lies beneath is known."""
    healthy = healthy_brain()
    return layered(with_tumour(healthy, centre, radius), terms_of(), healthy)


def order_holds(labels: NDArray[np.uint8]) -> bool:
    """Necrosis touches only itself and the rim, the rim no healthy grey or white matter."""
    from scipy.ndimage import binary_dilation

    necrosis, core = labels == PARTS[2], np.isin(labels, PARTS[1:])
    bare_necrosis = binary_dilation(necrosis) & ~core
    bare_core = binary_dilation(core) & np.isin(labels, (TISSUES.grey, TISSUES.white))
    return not bare_necrosis.any() and not bare_core.any()


LARGEST, ALL = Target(lesion=0), Target(lesion=-1)
NO = (0.0, 0.0, 0.0)
TERMS = terms_of()


def motion(
    factor: float = 1.0, turn: tuple[float, float, float] = (0, 0, 0), shift: tuple[float, float, float] = (0, 0, 0)
) -> Motion:
    return Motion(target=LARGEST, factor=factor, rotation_deg=turn, shift_mm=shift)


def tumour(state: LayeredMap) -> NDArray[np.bool_]:
    return np.isin(state.labels, PARTS)
