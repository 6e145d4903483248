"""Which label maps ``generate`` paints, and the public sources they are declared to come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ..atomic import write_atomic
from ..cohorts.layouts import read_cohort
from ..errors import DataError
from ..study import Study
from .chain import PublicSources
from .folder import PUBLIC_LABELS, read_label_folder
from .sampler import SampledLabels, make_label_sampler


@dataclass(frozen=True)
class LabelChoice:
    """Label maps to paint.

    Attributes:
        maps: In order; may be drawn as they are asked for.
        number: How many.
        sources: Declared public; None where a folder of label maps declares none.
    """

    maps: Iterable[SampledLabels]
    number: int
    sources: PublicSources | None


def newly_sampled(study: Study, number: int, public: Path | None, seed: int) -> LabelChoice:
    """Fresh samples of the study's public sampler; errors as ``make_label_sampler``."""
    sampler = make_label_sampler(study, read_cohort(public).public() if public else None)
    return LabelChoice((sampler.sample(seed, index) for index in range(number)), number, sampler.sources())


def of_folder(study: Study, folder: Path) -> LabelChoice:
    """The label maps of a folder as ``labels sample`` writes it; one without a chain counts as private.

    Raises:
        GeometryError: a label map on another grid, unless the study has such maps resampled.
        DataError: no label map, or a damaged declaration of public sources.
    """
    maps = read_label_folder(folder, study.volume_grid(), resample=study.grid.resample_labels)
    declared = folder / PUBLIC_LABELS
    try:
        sources = PublicSources.model_validate_json(declared.read_bytes()) if declared.is_file() else None
    except ValidationError:
        raise DataError(
            f"a damaged {PUBLIC_LABELS} in the folder of label maps",
            expected="the file that 'fedphantom labels sample' wrote",
            remedy="Sample the label maps again.",
        ) from None
    return LabelChoice(maps, len(maps), sources)


def declare_sources(run: Path, sources: PublicSources) -> None:
    """Write ``public-labels.json`` beside the generator, where ``release pack`` looks; adds to what is there."""
    file = run / PUBLIC_LABELS
    known = PublicSources.model_validate_json(file.read_bytes()) if file.is_file() else PublicSources(sources=())
    write_atomic(file, (known.merged(sources).model_dump_json(indent=1) + "\n").encode())
