"""A label map made again from its chain: what ``release pack`` believes, and what an edit of a public map starts from.

Everything is drawn anew from the chain's seeds, by the study's ranges and the recipes that the chain carries:
parameters chosen by hand, to fit somebody's anatomy or lesion for example, are not what these give.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from ..errors import DataError, VerificationFailed
from ..labels.brain import brain_labels
from ..labels.chain import LabelChain, LabelStep, label_digest
from ..labels.sampler import SampledLabels, vary
from ..study import Study
from .layered import LayeredMap, layered
from .terms import edit_terms
from .variant import edited

MAP_TOLERANCE = 1e-4
"""Share of voxels that may differ: other processors round differently where two labels meet."""
_SAMPLER_STEPS = (("affine", "diffeomorphism"), ("affine", "diffeomorphism", "lesion"))


def rounded_alike(found: NDArray[Any], expected: NDArray[np.uint8]) -> bool:
    """Whether two label maps, shape (X, Y, Z), differ by rounding alone.

    Few voxels may, and each only by a label that the other map holds beside it: a structure that the other lacks, or
    one moved by more than a voxel, is no rounding, however small it is.
    """
    if found.shape != expected.shape:
        return False
    off = found != expected
    if off.mean() > MAP_TOLERANCE:
        return False
    return all(
        binary_dilation(expected == value, np.ones((3, 3, 3), np.bool_))[off & (found == value)].all()
        for value in np.unique(found[off]).tolist()
    )


class SourceMissing(DataError):
    """A chain whose source is not at hand."""

    def __init__(self) -> None:
        super().__init__(
            "a label map whose declared public source is not at hand",
            expected="the atlas or public cohort that it comes from",
            remedy="Name the public cohort with --public.",
        )


def replay_chain(chain: LabelChain, sources: Mapping[str, NDArray[np.uint8]], study: Study) -> NDArray[np.uint8]:
    """Make a label map again.

    Args:
        chain: As it was recorded, also after a way through JSON.
        sources: Undeformed public label maps, shape (X, Y, Z), by :func:`~fedphantom.common.labels.chain.label_digest`.
        study: Names the ranges, the labels and the grid.

    Returns:
        Shape (X, Y, Z).

    Raises:
        SourceMissing: a source, of the map or of a donor, that is not among ``sources``.
        DataError: the steps are not what sampler and recipes give from their seeds.
        ConfigError: a recipe that does not fit the study.
    """
    return replay_layers(chain, sources, study)[0]


def replay_layers(
    chain: LabelChain, sources: Mapping[str, NDArray[np.uint8]], study: Study
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """As :func:`replay_chain`, and the map without the lesions that were put in: what an edit starts from."""
    source = sources.get(chain.source.sha256)
    if source is None:
        raise SourceMissing
    sampled = [step for step in chain.steps if isinstance(step, LabelStep)]
    edits = chain.edits()
    if (
        label_digest(source) != chain.source.sha256
        or chain.steps != (*sampled, *edits)
        or tuple(step.name for step in sampled) not in _SAMPLER_STEPS
    ):
        raise _foreign()
    affine_seed, warp_seed, *lesion_seed = (step.seed for step in sampled)
    labels, anatomy, steps = vary(
        source,
        study.public_labels,
        study.grid.spacing_mm,
        brain_labels(study.labels) if study.public_labels.source == "atlas" else None,
        affine_seed,
        warp_seed,
        lesion_seed[0] if lesion_seed else None,
    )
    if steps != tuple(sampled):
        raise _foreign()
    now = LayeredMap(labels, anatomy, "known")
    for step in edits:
        terms = edit_terms(step.recipe, study)
        donor = (step.donor, replay_chain(step.donor, sources, study)) if step.donor else None
        now, again = edited(layered(now.labels, terms, now.anatomy), step.recipe, terms, step.seed, donor)
        if again != step:
            raise _foreign()
    return now.labels, now.anatomy


def made_again(
    found: SampledLabels, sources: Mapping[str, NDArray[np.uint8]], study: Study
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """As :func:`replay_layers`, of a map that was read with its public chain and must be what the chain gives.

    Raises:
        VerificationFailed: it is another map.
    """
    labels, anatomy = replay_layers(found.chain, sources, study)
    if not rounded_alike(found.labels, labels):
        raise VerificationFailed(
            "a label map that its recorded public chain does not give",
            expected="the map that the chain makes; a patient's map has no public chain",
            remedy="Sample it again, or remove its sidecar: it then counts as private.",
        )
    return labels, anatomy


def _foreign() -> DataError:
    return DataError(
        "a label chain that does not belong to this label map or was not written by sampler and edits",
        expected="affine, diffeomorphism and at most one lesion, then edits, as their seeds and recipes give them",
        remedy="Replay a chain on the source it names, with the study's own ranges.",
    )
