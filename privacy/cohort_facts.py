"""What a released cohort consists of, as its signed statement says and its files bear out."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..common.study_table import LabelName
from ..common.volumes.grid import Grid

FileKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+(?:[-_][A-Za-z0-9]+)*$", max_length=80)]
_Axis = Annotated[int, Field(ge=1)]
_Millimetres = Annotated[float, Field(gt=0, lt=50)]

BIDS_KEYS = frozenset(
    {"T1w", "ce-gadolinium_T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "PDT2", "angio", "UNIT1"}
)
"""Ends of file names under ``anat`` that BIDS knows, among those that a study's channels can have.

Source: BIDS specification 1.10, "Anatomy imaging data".
"""


class CohortFacts(BaseModel):
    """A released cohort.

    Attributes:
        scans: Synthetic subjects, one scan each.
        channels: Ends of the images' file names, sorted.
        skull_stripped: Images that were found so.
        shape: Voxels (X, Y, Z) of every volume.
        spacing_mm: As the headers say, which hold 32 bits.
        labels: Value and name of each label, by value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    scans: int = Field(ge=1)
    channels: tuple[FileKey, ...] = Field(min_length=1, max_length=64)
    skull_stripped: int = Field(ge=0)
    shape: tuple[_Axis, _Axis, _Axis]
    spacing_mm: tuple[_Millimetres, _Millimetres, _Millimetres]
    labels: tuple[tuple[Annotated[int, Field(ge=0, le=255)], LabelName], ...] = Field(min_length=2, max_length=256)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.channels) != sorted(set(self.channels)) or list(self.labels) != sorted(set(self.labels)):
            raise ValueError("channels or labels are not sorted, or one is given twice")
        if self.skull_stripped > self.images:
            raise ValueError("more skull-stripped images than images")
        return self

    @property
    def images(self) -> int:
        """Image volumes; each scan has a label map beside them."""
        return self.scans * len(self.channels)

    @property
    def grid(self) -> Grid:
        """What every volume lies on."""
        return Grid(self.shape, self.spacing_mm)


def outside_bids(channels: tuple[str, ...]) -> tuple[str, ...]:
    """The file names' ends that BIDS has no name for: such files are listed in ``.bidsignore``."""
    return tuple(key for key in channels if key not in BIDS_KEYS)
