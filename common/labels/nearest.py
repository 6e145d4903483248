"""How near label maps come to a site's own: for the site's eyes, reported and never used to choose.

A set from which maps near to patients had been taken out would depend on the patients; and how near one comes is a
figure about them. So nothing of this is written beside a label map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cohorts.layouts import read_cohort
from ..counted import counted
from ..errors import DataError, about
from ..study import Study
from .diversity import Spread, ThinnedMaps, dice_between, foreground
from .folder import label_files_or_refused, read_label_maps

MEAN = "mean over labels"
_SHOWN = 5


@dataclass(frozen=True)
class Nearest:
    """A label map's nearest private one.

    Attributes:
        file: The label map.
        patient: Whose the private one is. May identify a person: never leaves the site.
        dice: Mean over the labels that either has.
    """

    file: str
    patient: str
    dice: float


@dataclass(frozen=True)
class Nearness:
    """How near a set of label maps comes to private ones.

    Attributes:
        nearest: Of every label map.
        patients: Compared with.
        dice: Label name to the spread, over the label maps, of the largest Dice with any patient's map; also for
            the mean over labels.
        among_patients: The same from each patient's map to the nearest of another patient: what chance resemblance
            looks like.
    """

    nearest: tuple[Nearest, ...]
    patients: int
    dice: Mapping[str, Spread]
    among_patients: Mapping[str, Spread]

    def to_json(self, *, show_identifiers: bool) -> dict[str, Any]:
        """Plain values; patients are named on request only."""
        hidden = set() if show_identifiers else {"patient"}
        rows = [{key: value for key, value in asdict(row).items() if key not in hidden} for row in self.nearest]
        spreads = {name: asdict(spread) for name, spread in self.dice.items()}
        among = {name: asdict(spread) for name, spread in self.among_patients.items()}
        return {"patients": self.patients, "nearest": rows, "dice": spreads, "among_patients": among}

    def to_text(self, *, show_identifiers: bool) -> str:
        """Some lines for a person; patients are named on request only."""
        width = max(map(len, self.dice))
        lines = [
            f"largest Dice of each of {counted(len(self.nearest), 'label map')} with any of"
            f" {counted(self.patients, 'patient')}:"
        ]
        lines += [f"  {name:<{width}}  {spread.words()}" for name, spread in self.dice.items()]
        lines.append("the same from one patient to another:")
        lines += [f"  {name:<{width}}  {spread.words()}" for name, spread in self.among_patients.items()]
        lines.append("nearest:")
        for row in sorted(self.nearest, key=lambda row: -row.dice)[:_SHOWN]:
            lines.append(f"  {row.file}  {row.dice:.2f}" + (f"  {row.patient}" if show_identifiers else ""))
        return "\n".join([*lines, "For the site's eyes: choose or drop no label map by it."])


def nearest_private(source: Path, cohort: Path, study: Study) -> Nearness:
    """Compare a folder of label maps with a cohort's.

    Args:
        source: The folder.
        cohort: The site's patients; brought to the study's grid.
        study: Names labels and grid.

    Raises:
        DataError: no label map in either, one damaged or, in the folder, on another grid.
    """
    grid = study.volume_grid()
    ours, theirs = ThinnedMaps(), ThinnedMaps()
    with about("LABELS"):
        files = label_files_or_refused(source)
        for found in read_label_maps(files, grid, resample=study.grid.resample_labels):
            ours.add(found.labels)
    with about("COHORT"):
        scans = [(scan.patient_id, scan.label) for scan in read_cohort(cohort).scans if scan.label is not None]
        if not scans:
            raise DataError("a cohort without label maps", expected="one or more", remedy="Check the path.")
        for found in read_label_maps([label for _, label in scans], grid, resample=True, cohort_of=study):
            theirs.add(found.labels)
    patients = [patient for patient, _ in scans]
    across = _dice(ours.all(), theirs.all(), study.labels)
    among = _dice(theirs.all(), theirs.all(), study.labels)
    whose = np.asarray(patients)
    among = {name: np.where(whose[:, None] == whose[None], np.nan, table) for name, table in among.items()}
    mean = np.nan_to_num(across[MEAN], nan=0.0)
    return Nearness(
        nearest=tuple(
            Nearest(file.name, patients[int(row.argmax())], round(float(row.max()), 4))
            for file, row in zip(files, mean, strict=True)
        ),
        patients=len(set(patients)),
        dice=_largest(across),
        among_patients=_largest(among),
    )


def _dice(
    one: NDArray[np.uint8], other: NDArray[np.uint8], labels: Mapping[str, int]
) -> dict[str, NDArray[np.float64]]:
    """Label name, and :data:`MEAN`, to Dice of every pair; NaN where neither has it."""
    tables = {name: dice_between(one, other, value) for name, value in foreground(labels)}
    stacked = np.stack(list(tables.values()))
    known = (~np.isnan(stacked)).sum(axis=0)
    mean = np.where(known, np.nansum(stacked, axis=0) / np.maximum(known, 1), np.nan)
    return {MEAN: mean} | tables


def _largest(tables: Mapping[str, NDArray[np.float64]]) -> dict[str, Spread]:
    spreads = {name: Spread.of(np.fmax.reduce(table, axis=1)) for name, table in tables.items()}
    return {name: spread for name, spread in spreads.items() if spread}
