"""One variant of a label map: a recipe's edits drawn, applied, and drawn again where the result is implausible."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from ..labels.chain import EditStep, LabelChain
from ..labels.recipe import Recipe
from .draw import draw_operation, grouped
from .layered import LayeredMap
from .operations import Operation, apply_operation
from .plausibility import Implausible
from .terms import EditTerms

ATTEMPTS = 25
"""How often a variant is drawn before it is given up; once where the recipe leaves nothing to chance."""


def edited(
    state: LayeredMap,
    recipe: Recipe,
    terms: EditTerms,
    seed: int,
    donor: tuple[LabelChain, NDArray[np.uint8]] | None = None,
) -> tuple[LayeredMap, EditStep]:
    """Apply a recipe once; seed and donor decide everything.

    Args:
        state: The map, with its anatomy.
        recipe: What to do.
        terms: Its terms, for the map's study.
        seed: Of every range.
        donor: Chain and label map (X, Y, Z) of the map that lesions are transplanted from.

    Returns:
        The edited map, and the step for its chain.

    Raises:
        Implausible: an edit's reason; nothing is tried again.
    """
    rng = np.random.default_rng(seed)
    chain, donated = donor or (None, None)
    now, done = state, list[Operation]()
    for group in grouped(recipe.edit):
        try:
            operation = draw_operation(rng, group, now, terms, donated)
            if operation is not None:
                now = apply_operation(now, operation, terms, donated)
                done.append(operation)
        except Implausible as refused:
            refused.operation = " and ".join(edit.operation for edit in group)
            raise
    # Through JSON, so that a step equals itself as it is read back.
    parameters = json.loads(json.dumps({"operations": [asdict(o) for o in done], "beneath": state.beneath}))
    return now, EditStep(name="edit", recipe=recipe, seed=seed, parameters=parameters, donor=chain)


def draw_variant(
    state: LayeredMap,
    recipe: Recipe,
    terms: EditTerms,
    seeds: tuple[int, int, int],
    choose_donor: Callable[[np.random.Generator], tuple[LabelChain, NDArray[np.uint8]]] | None = None,
) -> tuple[tuple[LayeredMap, EditStep] | None, list[Implausible]]:
    """Draw a variant, up to :data:`ATTEMPTS` times, until it is plausible.

    Args:
        state: The map, with its anatomy.
        recipe: What to do.
        terms: Its terms.
        seeds: The command's seed, the map's number, the variant's number; each draw depends on these alone.
        choose_donor: A donor, drawn anew each time.

    Returns:
        The variant, or None where no draw was plausible; and why each rejected draw was.
    """
    rejections: list[Implausible] = []
    for attempt in range(ATTEMPTS if recipe.is_random else 1):
        rng = np.random.default_rng([*seeds, attempt])
        donor = choose_donor(rng) if choose_donor else None
        try:
            return edited(state, recipe, terms, int(rng.integers(2**63)), donor), rejections
        except Implausible as refused:
            rejections.append(refused)
    return None, rejections
