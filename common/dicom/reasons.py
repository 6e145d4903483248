"""Why a series is left out, or stands against the import: codes, words, and how they are counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..counted import counted

Kind = Literal["left out", "fault", "refusal"]
"""What an import is not for; what cannot be taken as it is; what a site's duty to its patients forbids."""

REASONS: Mapping[str, tuple[Kind, str, str]] = {
    "not-dicom": ("left out", "files that are not DICOM", "Nothing."),
    "not-an-mr-image": ("left out", "no MR image", "Nothing: reports, other modalities and screenshots are not read."),
    "localiser": ("left out", "a localiser", "Nothing."),
    "derived": ("left out", "derived or secondary images", "Export the original series."),
    "not-magnitude": ("left out", "phase, real or imaginary images", "Nothing."),
    "excluded": (
        "left out",
        "its description is among those that the rules exclude",
        "Change the rules if it is wanted.",
    ),
    "no-channel": ("left out", "no channel of the rules fits", "Add a rule if it is wanted."),
    "unreadable": ("fault", "a file is damaged or truncated, or its lengths lie", "Export it again."),
    "compressed": (
        "fault",
        "a transfer syntax that needs a decoder",
        "Export it uncompressed (Explicit VR Little Endian).",
    ),
    "multi-frame": ("fault", "a multi-frame kind that is not read", "Export it as MR Image or Enhanced MR Image."),
    "incomplete": (
        "fault",
        "no image type, patient ID, study or series UID",
        "Export it again with them: pseudonyms hang on them.",
    ),
    "two-people": (
        "fault",
        "one patient ID with different birth dates",
        "Give each person an ID of their own: a person is the unit of privacy.",
    ),
    "pixel-kind": (
        "fault",
        "pixels other than grey values of 8, 16 or 32 bits with a linear scale",
        "Export it again.",
    ),
    "no-geometry": ("fault", "position, orientation or pixel spacing missing or impossible", "Export it again."),
    "mixed-images": ("fault", "slices that differ in orientation, matrix or pixel spacing", "Split the series."),
    "single-slice": ("fault", "one slice alone", "Export the whole series, or exclude it by the rules."),
    "missing-slice": ("fault", "a slice is missing", "Export the whole series again."),
    "doubled-slice": (
        "fault",
        "two slices at one place: exported twice, or echoes or time points in one series",
        "Export it once; split a series of several volumes, or exclude it by the rules.",
    ),
    "unequal-spacing": ("fault", "slices at unequal distances", "Export the series again; it is not resampled."),
    "skewed": ("fault", "slices not stacked along their normal", "Resample it; a sheared stack is not read."),
    "ambiguous": ("fault", "several channels fit", "Say in the rules which it is; it is never guessed."),
    "channel-twice": (
        "fault",
        "several series of one channel in one study",
        "Make the rules narrower, so that one series fits.",
    ),
    "burned-in": ("refusal", "annotation burned into the image, as its header says", "Export it without."),
    "face": (
        "refusal",
        "a head that is neither skull-stripped nor defaced, as far as its voxels show",
        "Strip the skull or deface it, or say with --allow-faces why faces may be there.",
    ),
}
"""Code to kind, what was found, and what to do; the order is that of reports."""


class Faulty(Exception):
    """A series or file that cannot be taken.

    Attributes:
        code: A key of :data:`REASONS`.
        detail: Of a closed vocabulary: a registered name, channels of the rules. Never from a header's free text.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code, self.detail = code, detail

    @property
    def is_left_out(self) -> bool:
        """Whether an import is not for it, so that it stands in nobody's way."""
        return REASONS[self.code][0] == "left out"


@dataclass(frozen=True)
class Count:
    """How many series and files share a reason and its detail."""

    code: str
    detail: str
    series: int
    files: int

    @property
    def kind(self) -> Kind:
        """As :data:`REASONS` says."""
        return REASONS[self.code][0]

    @property
    def words(self) -> str:
        """For a person: "missing-slice: a slice is missing: 2 series"."""
        found = REASONS[self.code][1] + (f" ({self.detail})" if self.detail else "")
        many = f"{self.series} series" if self.series else counted(self.files, "file")
        return f"{self.code}: {found}: {many}"

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        kind, message, remedy = REASONS[self.code]
        names = {"code": self.code, "kind": kind, "detail": self.detail}
        return {**names, "series": self.series, "files": self.files, "message": message, "remedy": remedy}


def in_order(counts: Iterable[Count]) -> tuple[Count, ...]:
    """In the order of :data:`REASONS`, then by detail."""
    rank = {code: position for position, code in enumerate(REASONS)}
    return tuple(sorted(counts, key=lambda count: (rank[count.code], count.detail)))
