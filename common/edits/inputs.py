"""The label maps that are edited, or donate lesions: read, checked against their chains, and named if private."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..cohorts.layouts import read_cohort
from ..errors import ConfigError, DataError
from ..labels.chain import LabelChain
from ..labels.choice import PublicMaps
from ..labels.folder import UNDECLARED, label_files, read_label_maps
from ..labels.named_values import named_values
from ..labels.private_name import private_source
from ..study import Study
from .replay import made_again

_REMAP = (
    "Give the study a table [remapping], a line for each label, or the cohort a dseg.tsv with the study's names. Where"
    " only tumours are drawn, 'fedphantom labels infer COHORT OUT --remapping FILE' writes anatomy beneath them, which"
    " can be edited."
)


@dataclass(frozen=True, eq=False)
class EditInput:
    """A label map to edit.

    Attributes:
        labels: On the study's grid, shape (X, Y, Z).
        anatomy: The same without lesions, where the chain gives it.
        chain: Where it comes from.
    """

    labels: NDArray[np.uint8]
    anatomy: NDArray[np.uint8] | None
    chain: LabelChain


@dataclass(frozen=True)
class InputFiles:
    """Files of label maps.

    Attributes:
        files: In order.
        of_cohort: Whether they are scans' label maps, which are always brought to the study's grid.
    """

    files: tuple[Path, ...]
    of_cohort: bool

    @classmethod
    def of(cls, path: Path, study: Study) -> InputFiles:
        """Of a folder as ``labels sample`` writes it, of any folder of NIfTI files, or of a cohort.

        A cohort names its values as the study does, or the study's ``[remapping]`` says what they mean.

        Raises:
            DataError: there is none, or a cohort whose values may mean something else than in the study.
        """
        files = tuple(label_files(path))
        if files:
            return cls(files, of_cohort=False)
        if not path.exists():
            raise DataError(
                "nothing at the path given",
                expected="a folder with label maps (NIfTI files) directly in it, a cohort's folder, or its table"
                " (.csv, .tsv)",
                remedy="Check the path.",
            )
        cohort = read_cohort(path)
        found = tuple(scan.label for scan in cohort.scans if scan.label is not None)
        if not found:
            raise DataError(
                "a cohort without label maps", expected="one or more", remedy="Run 'fedphantom cohort check' on it."
            )
        if not study.remapping:
            named_values(cohort, study.labels, "the study", "a [remapping] in the study", _REMAP)
        return cls(found, of_cohort=True)


def read_inputs(
    given: InputFiles, study: Study, public: PublicMaps, secret: Callable[[], bytes] | None
) -> Iterator[EditInput]:
    """Read label maps one by one.

    A map with a public chain is made again from it: it must be what its chain says, and so the anatomy under an
    inserted tumour is known. Any other map is private, a cohort's too.

    Args:
        given: Which.
        study: Its grid and labels.
        public: Where public chains end.
        secret: Gives the site's secret, for naming private maps.

    Raises:
        ConfigError: private maps without a secret, or public ones whose source is not named.
        VerificationFailed: a map that its chain does not give.
        DataError: no label map, one on another grid, damaged, or with values that the study does not name.
    """
    resample = given.of_cohort or study.grid.resample_labels
    cohort_of = study if given.of_cohort else None
    maps = read_label_maps(given.files, study.volume_grid(), resample=resample, cohort_of=cohort_of)
    for number, found in enumerate(maps, start=1):
        unknown = sorted(set(np.unique(found.labels).tolist()) - set(study.label_values))
        if unknown:
            raise DataError(
                f"{'a label map' if given.of_cohort else f'label map {number}'} with the values"
                f" {', '.join(map(str, unknown))}, which the study does not name",
                expected=f"values among {', '.join(map(str, study.label_values))}",
                remedy="Edit label maps under the study that they were made or prepared for.",
            )
        if found.chain.is_public:
            labels, anatomy = made_again(found, public.by_digest(), study)
            yield EditInput(labels, anatomy, found.chain)
        elif found.chain.source.name != UNDECLARED:
            yield EditInput(found.labels, None, found.chain)
        elif secret is None:
            raise ConfigError(
                "private label maps without the site's secret",
                expected="a file that names them by a keyed hash",
                remedy="Add --site-secret FILE; it is made where it does not exist, and stays at the site.",
            )
        else:
            yield EditInput(found.labels, None, LabelChain(source=private_source(found.labels, secret())))
