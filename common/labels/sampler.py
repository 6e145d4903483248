"""The public label sampler: label maps nobody has to protect, varied by a recorded recipe (DESIGN §4.5).

Sources are an atlas or openly licensed label maps; ranges come from the study and from constants here,
never from a private cohort. Sample ``i`` of a seed depends on seed and ``i`` alone, so any machine can
draw it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cohort import Cohort
from ..cohorts.terms import stated_terms
from ..counted import counted
from ..errors import ConfigError, DataError
from ..study import PublicLabelsTable, Study
from ..volumes.grid import Spacing
from ..volumes.nifti import read_label_map
from ..volumes.placement import place_labels
from .atlas import ATLAS_CITATION, ATLAS_LICENCE, ATLAS_NAME, load_atlas
from .brain import BrainLabels, brain_labels
from .chain import UNSTATED, LabelChain, LabelSource, LabelStep, PublicSources, label_digest, states_licence
from .deformation import (
    DiffeomorphismParameters,
    draw_affine,
    warp_labels,
)
from .lesion import draw_lesion, insert_lesion, lesion_ranges
from .remapping import remap
from .stated_origin import refuse_private_maps


@dataclass(frozen=True, eq=False)
class PublicLabelMap:
    """One undeformed public label map.

    Attributes:
        labels: On the study's grid, shape (X, Y, Z), uint8.
        source: Who made it and under which licence; its hash is that of ``labels``.
    """

    labels: NDArray[np.uint8]
    source: LabelSource


@dataclass(frozen=True, eq=False)
class SampledLabels:
    """A label map and how it came about.

    Attributes:
        labels: On the study's grid, shape (X, Y, Z), uint8.
        chain: Source and steps; :func:`~fedphantom.common.edits.replay.replay_chain` makes ``labels`` from it again.
    """

    labels: NDArray[np.uint8]
    chain: LabelChain


class LabelSampler:
    """Draws varied label maps from public ones.

    Args:
        maps: At least one, all of one shape.
        table: How far they are varied.
        spacing_mm: Voxel size along (X, Y, Z).
        tissues: Values of the brain's tissues where tumours are to be inserted, else None.

    Raises:
        DataError: no map, or maps of different shapes.
    """

    def __init__(
        self,
        maps: Sequence[PublicLabelMap],
        table: PublicLabelsTable,
        spacing_mm: Spacing,
        tissues: BrainLabels | None = None,
    ) -> None:
        shapes = {m.labels.shape for m in maps}
        if len(shapes) != 1:
            raise DataError(
                f"{counted(len(maps), 'public label map')} of {counted(len(shapes), 'shape')}",
                expected="one or more, all on the study's grid",
                remedy="Name a cohort with label maps as the public one.",
            )
        self._maps = tuple(maps)
        self._table = table
        self._spacing = spacing_mm
        self._tissues = tissues

    def sources(self) -> PublicSources:
        """What ``public-labels.json`` declares: every source once, in the order of the maps."""
        return PublicSources(sources=tuple({m.source.sha256: m.source for m in self._maps}.values()))

    def sample(self, seed: int, index: int) -> SampledLabels:
        """Draw label map number ``index`` of a seed, both ≥ 0; independent of all others."""
        rng = np.random.default_rng([seed, index])
        public = self._maps[int(rng.integers(len(self._maps)))]
        affine_seed, warp_seed, lesion_seed = (int(s) for s in rng.integers(2**63, size=3))
        lesion = (
            self._tissues is not None and np.random.default_rng(lesion_seed).random() < self._table.lesion_probability
        )
        labels, _, steps = vary(
            public.labels,
            self._table,
            self._spacing,
            self._tissues,
            affine_seed,
            warp_seed,
            lesion_seed if lesion else None,
        )
        return SampledLabels(labels, LabelChain(source=public.source, steps=steps))


def vary(
    source: NDArray[np.uint8],
    table: PublicLabelsTable,
    spacing_mm: Spacing,
    tissues: BrainLabels | None,
    affine_seed: int,
    warp_seed: int,
    lesion_seed: int | None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[LabelStep, ...]]:
    """Vary one public label map, as its seeds say.

    Args:
        source: Undeformed, shape (X, Y, Z).
        table: The study's ranges.
        spacing_mm: Voxel size along (X, Y, Z).
        tissues: Values of the brain's tissues; needed for a tumour.
        affine_seed: Of the affine part.
        warp_seed: Of the smooth part.
        lesion_seed: Of the tumour; None for none.

    Returns:
        The varied map, the same without the inserted tumour, and the steps for its chain.

    Raises:
        DataError: the study's ranges give a warp that folds, or a map without white matter for the tumour.
    """
    affine = draw_affine(np.random.default_rng(affine_seed), table.rotation_deg, table.scale, table.shift_mm)
    warp = DiffeomorphismParameters(
        seed=warp_seed, displacement_mm=table.displacement_mm, smoothness_mm=table.smoothness_mm
    )
    steps = [
        LabelStep(name="affine", parameters=_plain(asdict(affine)), seed=affine_seed),
        LabelStep(name="diffeomorphism", parameters=_plain(asdict(warp)), seed=warp_seed),
    ]
    anatomy = labels = warp_labels(source, spacing_mm, affine, warp)
    if lesion_seed is not None:
        rng = np.random.default_rng(lesion_seed)
        rng.random()  # whether there is a lesion at all
        brain = tissues or BrainLabels()
        lesion = draw_lesion(rng, lesion_ranges(table.lesion), labels, spacing_mm, brain)
        labels = insert_lesion(labels, lesion, spacing_mm, brain)
        steps.append(LabelStep(name="lesion", parameters=_plain(asdict(lesion)), seed=lesion_seed))
    return labels, anatomy, tuple(steps)


def public_label_maps(study: Study, cohort: Cohort | None) -> list[PublicLabelMap]:
    """The public label maps a study names, on its grid.

    Licence and citation are the study's; where it gives none, what the cohort's own description states.

    Args:
        study: ``public_labels.source`` decides between the atlas and the cohort.
        cohort: The public cohort; its intensities are not read. Not used for the atlas.

    Raises:
        ConfigError: a folder is asked for without a cohort, or without saying whose maps they are.
        PolicyRefused: a label map that its own sidecar says to be private.
        DataError: no label map, one that is damaged, empty, or holds values that the study does not name.
    """
    table, grid = study.public_labels, study.volume_grid()
    if table.source == "atlas":
        labels = load_atlas(grid, brain_labels(study.labels))
        return [PublicLabelMap(labels, _source(ATLAS_NAME, ATLAS_LICENCE, ATLAS_CITATION, labels))]

    if cohort is None:
        raise ConfigError(
            "public_labels.source = 'folder' without a public cohort",
            expected="a cohort with openly licensed label maps",
            remedy="Name it with --public COHORT.",
        )
    if table.name == ATLAS_NAME:
        raise ConfigError(
            "public_labels.source = 'folder' under the atlas's name",
            expected="the true name and licence of the label maps",
            remedy="Set public_labels.name, licence and citation.",
        )
    refuse_private_maps(cohort)
    terms = stated_terms(cohort.root)
    licence = table.licence if states_licence(table.licence) else terms.licence or UNSTATED
    citation = table.citation or terms.citation or ""
    maps = []
    for scan in cohort.scans:
        if scan.label is None:
            continue
        stored, affine = read_label_map(scan.label)
        if not set(np.unique(stored).tolist()) <= study.stored_values:
            raise DataError(
                "a public label map with values that the study does not name",
                expected=f"values among {sorted(study.stored_values)}",
                remedy="Run 'fedphantom cohort check' on the public cohort.",
            )
        placed = place_labels(remap(stored, study.remapping, study.labels), affine, grid)
        if placed.any():
            maps.append(PublicLabelMap(placed, _source(table.name, licence, citation, placed)))
    if not maps:
        raise DataError(
            "a public cohort without a single label map on the study's grid",
            expected="one or more",
            remedy="Run 'fedphantom cohort check' on the public cohort.",
        )
    return maps


def make_label_sampler(study: Study, cohort: Cohort | None) -> LabelSampler:
    """The sampler a study describes; arguments and errors as :func:`public_label_maps`."""
    tissues = brain_labels(study.labels) if study.public_labels.source == "atlas" else None
    return LabelSampler(public_label_maps(study, cohort), study.public_labels, study.grid.spacing_mm, tissues)


def _source(name: str, licence: str, citation: str, labels: NDArray[np.uint8]) -> LabelSource:
    return LabelSource(kind="public", name=name, licence=licence, citation=citation, sha256=label_digest(labels))


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """With lists for tuples, so that a chain equals itself after a way through JSON."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()}
