"""Which label maps ``generate`` paints, and the public sources they are declared to come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ..atomic import write_atomic
from ..cohort import Cohort
from ..cohorts.layouts import read_public
from ..counted import counted
from ..edits.replay import made_again
from ..errors import ConfigError, DataError, about
from ..signing import MANIFEST
from ..study import Study
from .chain import PublicSources
from .folder import PUBLIC_LABELS, label_files_or_refused, read_label_maps, refuse_other_names, refuse_unfit
from .sampler import SampledLabels, make_label_sampler, public_label_maps
from .stated_origin import refuse_private_labels, refuse_private_maps


@dataclass(frozen=True)
class LabelChoice:
    """Label maps to paint.

    Attributes:
        maps: In order; may be drawn as they are asked for.
        number: How many.
        sources: Declared public; None where a folder of label maps declares none.
        private: How many of them are private, by their chains or for want of one.
        unverified: How many are public by chains whose source is not at hand, so that nobody made them again.
    """

    maps: Iterable[SampledLabels]
    number: int
    sources: PublicSources | None
    private: int = 0
    unverified: int = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why 'release pack' will or may refuse what is painted on them; empty where nothing here stands against it."""
        of_all, told = counted(self.number, "label map"), []
        if self.private:
            told.append(
                f"{self.private} of {of_all} private, by the chain or for want of one: what"
                " is painted on them may show patients' own anatomy, stays inside the site, and cannot be released"
            )
        elif self.sources is None:
            told.append(
                f"the label maps come without a {PUBLIC_LABELS}: 'release pack' refuses what is painted on them unless"
                " the generator's run already declares their sources"
            )
        if self.unverified:
            told.append(
                f"{self.unverified} of {of_all} public by a chain that was not verified, for want of the public cohort:"
                " name it with --public; 'release pack' makes each map again, and refuses one that differs"
            )
        return tuple(told)


def public_cohort(study: Study, path: Path | None) -> Cohort | None:
    """The cohort that ``--public`` names, for a study whose label maps come from one.

    Raises:
        ConfigError: the study's label maps come from the atlas, so that the option would have no effect.
        DataError: the cohort cannot be read, or its patients belong to sites and none is marked public.
        PolicyRefused: label maps that are private by their own sidecars; or the study promises something, and a network
            or generator made some of it.
    """
    if path is None:
        return None
    if study.public_labels.source == "atlas":
        raise ConfigError(
            "--public for a study whose label maps come from the atlas: it would have no effect",
            expected="no --public, or public_labels.source = 'folder' in the study",
            remedy="Leave --public out; a study that is to draw from that cohort says so before it is trained.",
        )
    with about("--public"):
        cohort = read_public(path)
        refuse_private_labels(cohort, study)
        refuse_private_maps(cohort)
    return cohort


def newly_sampled(study: Study, number: int, public: Path | None, seed: int) -> LabelChoice:
    """Fresh samples of the study's public sampler; errors as :func:`public_cohort` and ``make_label_sampler``."""
    sampler = make_label_sampler(study, public_cohort(study, public))
    return LabelChoice((sampler.sample(seed, index) for index in range(number)), number, sampler.sources())


class PublicMaps:
    """The study's public label maps by digest, read when the first is asked for.

    Raises:
        ConfigError, DataError: as :func:`public_cohort`.
    """

    def __init__(self, study: Study, public: Path | None) -> None:
        self._study, self._cohort = study, public_cohort(study, public)
        self._maps: Mapping[str, NDArray[np.uint8]] | None = None

    def by_digest(self) -> Mapping[str, NDArray[np.uint8]]:
        """Raises ConfigError or DataError as :func:`~fedphantom.common.labels.sampler.public_label_maps`."""
        if self._maps is None:
            self._maps = {known.source.sha256: known.labels for known in public_label_maps(self._study, self._cohort)}
        return self._maps


def sources_at_hand(study: Study, public: Path | None) -> PublicMaps | None:
    """Where public chains end: the atlas, or the cohort that is named; None where the study's is not.

    Raises:
        ConfigError, DataError: as :func:`public_cohort`.
    """
    return PublicMaps(study, public) if public or study.public_labels.source == "atlas" else None


def of_folder(study: Study, folder: Path, known: PublicMaps | None) -> LabelChoice:
    """The label maps of a folder as ``labels sample`` writes it; one without a chain counts as private.

    Each is read once here and again as it is painted: only one is held at a time. A chain that says a map is public is
    a claim: the map is made again from it, and must be the same.

    Args:
        study: Its grid, labels and the sampler's ranges.
        folder: Of label maps.
        known: Where public chains end; None: they are counted as unverified.

    Raises:
        VerificationFailed: a map that its chain does not give, or the folder says that its values mean something else
            than in the study.
        GeometryError: a label map on another grid, unless the study has such maps resampled.
        ConfigError: a chain with a recipe that does not fit the study.
        DataError: no label map, one with values outside the study's labels, a chain whose source is not among those
            known or that sampler and edits did not write, or a damaged declaration of public sources.
    """
    files, declared = label_files_or_refused(folder), folder / PUBLIC_LABELS
    refuse_other_names(folder, study)

    def maps() -> Iterator[SampledLabels]:
        return read_label_maps(files, study.volume_grid(), resample=study.grid.resample_labels)

    private = unverified = 0
    for number, one in enumerate(maps(), start=1):  # what is wrong with the last is told before the first is painted
        refuse_unfit(one.labels, number, study)
        if not one.chain.is_public:
            private += 1
        elif known:
            made_again(one, known.by_digest(), study)
        else:
            unverified += 1
    sources = read_sources(declared) if declared.is_file() else None
    return LabelChoice(maps(), len(files), sources, private, unverified)


def read_sources(file: Path) -> PublicSources:
    """Read ``public-labels.json``. Raises DataError where it is damaged."""
    try:
        return PublicSources.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        raise DataError(
            f"a damaged {PUBLIC_LABELS} in '{file.parent.name}'",
            expected="the file that 'fedphantom labels sample' or 'generate' wrote",
            remedy="Sample the label maps, or generate from them, again.",
        ) from None


def declare_sources(run: Path, sources: PublicSources) -> None:
    """Write ``public-labels.json`` beside the generator, where ``release pack`` looks; adds to what is there.

    A signed release stays as it is: one byte more and it would no longer verify.

    Raises:
        DataError: what is there is damaged.
        StorageError: the disk is full, read-only or forbidden.
    """
    file = run / PUBLIC_LABELS
    known = read_sources(file) if file.is_file() else PublicSources(sources=())
    merged = known.merged(sources)
    if merged == known or (run / MANIFEST).exists():
        return
    write_atomic(file, (merged.model_dump_json(indent=1) + "\n").encode())
