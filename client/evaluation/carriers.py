"""Which structures the test patients have: one that none has gets no figure, one that some lack says how many do."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...common.cohorts.preparation import PreparedScans
from ...common.counted import counted
from ...common.errors import DataError
from ...common.study import Study
from .scores import region_members


def carriers(scans: PreparedScans, study: Study) -> dict[str, int]:
    """By region, how many patients have a voxel of it in some label map of theirs; 0 for one that nobody has.

    Raises:
        DataError: no label map holds anything but background.
    """
    members = region_members(study)
    having: dict[str, set[str]] = {region: set() for region in members}
    for patient, classes in zip(scans.patients, scans.classes, strict=True):
        present = set(np.unique(classes).tolist())
        for region, indices in members.items():
            if present.intersection(indices):
                having[region].add(patient)
    if not having["foreground"]:
        raise DataError(
            f"nothing but background in {counted(len(scans), 'label map')} to score against",
            expected="some structure to find in at least one",
            remedy="See whether voxels of the study's [grid] are larger than structures, and what [remapping] leaves.",
        )
    return {region: len(patients) for region, patients in having.items()}


def carried(numbers: Mapping[str, int]) -> tuple[str, ...]:
    """Regions that some patient has."""
    return tuple(region for region, number in numbers.items() if number)


def how_many_have_it(number: int, patients: int) -> str:
    """As in "11 of 12 have it"; empty where all do."""
    return "" if number == patients else f"{number} of {patients} {'has' if number == 1 else 'have'} it"


def absent_in_words(numbers: Mapping[str, int], what: str = "test patient") -> str:
    """A sentence that names the regions none of ``what`` has; empty without one."""
    absent = [f"'{region}'" for region, number in numbers.items() if not number]
    return f"No figures of {', '.join(absent)}: no {what} has it." if absent else ""
