"""One file of a series: what is taken from its header, and what stands against it.

Nothing else of a header is kept: geometry, the numbers that tell a channel, and the identifiers that pseudonyms are
made from and that nothing written may hold.

Source: DICOM PS3.3, C.7.6 (image), C.8.3 (MR image), C.8.13 (enhanced MR image).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import (
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    RLELossless,
)

from .channels import SequenceFacts
from .opened import READABLE, Opened, open_dicom, reading, registered_name
from .reasons import Faulty
from .stack import Slice

_KEYWORDS = (
    "SOPClassUID ImageType PatientID PatientName OtherPatientIDs PatientBirthDate AccessionNumber StudyID"
    " StudyInstanceUID SeriesInstanceUID BurnedInAnnotation RecognizableVisualFeatures SamplesPerPixel"
    " PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation NumberOfFrames"
    " ModalityLUTSequence RescaleSlope RescaleIntercept ImagePositionPatient ImageOrientationPatient PixelSpacing"
    " SpacingBetweenSlices SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence SeriesDescription"
    " ProtocolName ContrastBolusAgent ContrastBolusAgentSequence MRAcquisitionType ScanningSequence EchoPulseSequence"
    " InversionRecovery EchoPlanarPulseSequence RepetitionTime EchoTime InversionTime ComplexImageComponent"
)
_TAGS = [tag for keyword in _KEYWORDS.split() if (tag := tag_for_keyword(keyword)) is not None]
_NOT_MAGNITUDE = re.compile(r"[PRI]|[PRI]_.*|PHASE.*|REAL|IMAGINARY")
_NO_AGENT = re.compile(r"\W*(none|no|n|0|nil|without)?\W*", re.IGNORECASE)
_RLE_BEST = 64
"""One run of RLE gives 128 bytes for 2."""


@dataclass(frozen=True)
class Instance:
    """One file.

    Attributes:
        path: Where it lies; it may name a patient, and is never written or told unasked.
        patient: The patient's ID; empty where the header has none.
        series: The UIDs of study and series.
        birth_date: As the header says, or empty.
        identifiers: Every value that nothing written may hold.
        facts: What tells the channel.
        slices: Its frames, without pixels.
        shows_features: Whether the header says that a person may be recognised.
        problem: What stands against it.
    """

    path: Path = field(repr=False)
    patient: str = field(repr=False)
    series: tuple[str, str] = field(repr=False)
    birth_date: str = field(repr=False)
    identifiers: frozenset[str] = field(repr=False)
    facts: SequenceFacts = field(repr=False)
    slices: tuple[Slice, ...] = field(repr=False)
    shows_features: bool
    problem: Faulty | None


def read_instance(path: Path) -> Instance:
    """Read one file's header.

    Raises:
        Faulty: it cannot be read at all, so that not even its series is known.
    """
    opened = open_dicom(path, _TAGS)
    with reading():
        dataset = opened.dataset
        slices: tuple[Slice, ...] = ()
        problem = _problem(opened)
        if problem is None:
            try:
                slices = _slices(path, opened)
            except Faulty as found:
                problem = found
        return Instance(
            path=path,
            patient=_text(dataset, "PatientID"),
            series=(_text(dataset, "StudyInstanceUID"), _text(dataset, "SeriesInstanceUID")),
            birth_date=_text(dataset, "PatientBirthDate"),
            identifiers=_identifiers(dataset),
            facts=SequenceFacts() if problem and problem.is_left_out else _facts(dataset),
            slices=slices,
            shows_features=_text(dataset, "RecognizableVisualFeatures").upper() == "YES",
            problem=problem,
        )


def _problem(opened: Opened) -> Faulty | None:
    """What the header says against the file, what an import is not for before what is wrong with it."""
    dataset = opened.dataset
    kind = dataset.get("SOPClassUID")
    if kind in (LegacyConvertedEnhancedMRImageStorage, EnhancedMRColorImageStorage):
        return Faulty("multi-frame", registered_name(kind))
    if kind not in (MRImageStorage, EnhancedMRImageStorage):
        return Faulty("not-an-mr-image")
    image_type = [value.upper() for value in _texts(dataset, "ImageType")]
    if "LOCALIZER" in image_type:
        return Faulty("localiser")
    if "DERIVED" in image_type[:1] or "SECONDARY" in image_type[1:2]:
        return Faulty("derived")
    if any(map(_NOT_MAGNITUDE.fullmatch, [*image_type[2:], _text(dataset, "ComplexImageComponent").upper()])):
        return Faulty("not-magnitude")
    needed = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")
    if len(image_type) < 2 or not all(_text(dataset, keyword) for keyword in needed):
        return Faulty("incomplete")
    if _text(dataset, "BurnedInAnnotation").upper() == "YES":
        return Faulty("burned-in")
    if opened.syntax not in READABLE:
        return Faulty("compressed", registered_name(opened.syntax))
    if not _is_plain_grey(dataset):
        return Faulty("pixel-kind")
    frames = _whole(dataset, "NumberOfFrames", 1)
    if kind == MRImageStorage and frames != 1:
        return Faulty("multi-frame", f"{registered_name(kind)} with several frames")
    needed_bytes = frames * _whole(dataset, "Rows") * _whole(dataset, "Columns") * _whole(dataset, "BitsAllocated") // 8
    stored = opened.pixel_bytes or 0
    fits = needed_bytes <= stored * _RLE_BEST if opened.syntax == RLELossless else 0 <= stored - needed_bytes <= 1
    return None if fits and needed_bytes > 0 else Faulty("unreadable")


def _is_plain_grey(dataset: Dataset) -> bool:
    bits, stored = _whole(dataset, "BitsAllocated"), _whole(dataset, "BitsStored")
    return (
        _whole(dataset, "SamplesPerPixel") == 1
        and _text(dataset, "PhotometricInterpretation") == "MONOCHROME2"
        and bits in (8, 16, 32)
        and 0 < stored <= bits
        and _whole(dataset, "HighBit") == stored - 1
        and _whole(dataset, "PixelRepresentation") in (0, 1)
        and "ModalityLUTSequence" not in dataset
    )


def _slices(path: Path, opened: Opened) -> tuple[Slice, ...]:
    dataset = opened.dataset
    if dataset.get("SOPClassUID") == MRImageStorage:
        return (_slice(path, None, dataset, [dataset]),)
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if len(groups) != _whole(dataset, "NumberOfFrames"):
        raise Faulty("unreadable")
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    return tuple(_slice(path, number, dataset, [group, *shared]) for number, group in enumerate(groups))


def _slice(path: Path, frame: int | None, image: Dataset, groups: list[Dataset]) -> Slice:
    """One frame; its geometry in the image itself, or in the functional groups of the frame, then the shared ones."""

    def macro(name: str) -> Dataset:
        if frame is None:
            return image
        items = next((group[name].value for group in groups if name in group and group[name].value), [Dataset()])
        return Dataset(items[0])

    position = _numbers(macro("PlanePositionSequence"), "ImagePositionPatient", 3)
    x = _numbers(macro("PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    measures, transformation = macro("PixelMeasuresSequence"), macro("PixelValueTransformationSequence")
    between_rows, between_columns = _numbers(measures, "PixelSpacing", 2)
    slope = _number(transformation, "RescaleSlope")
    intercept = _number(transformation, "RescaleIntercept") or 0.0
    if slope == 0:
        raise Faulty("pixel-kind")
    return Slice(
        path=path,
        frame=frame,
        rows=_whole(image, "Rows"),
        columns=_whole(image, "Columns"),
        position=(position[0], position[1], position[2]),
        along_row=(x[0], x[1], x[2]),
        along_column=(x[3], x[4], x[5]),
        between_rows=between_rows,
        between_columns=between_columns,
        declared_mm=_number(measures, "SpacingBetweenSlices"),
        slope=1.0 if slope is None else slope,
        intercept=intercept,
    )


def _facts(dataset: Dataset) -> SequenceFacts:
    """What tells the channel: of an enhanced image from the groups of its first frame, then the shared ones."""
    first = [*list(dataset.get("PerFrameFunctionalGroupsSequence") or [])[:1]]
    first += list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]

    def number(keyword: str, macro: str, enhanced: str) -> float | None:
        items = [item for group in first for item in group.get(macro) or []]
        found = [_number(dataset, keyword), *(_number(item, enhanced) for item in items)]
        return next((value for value in found if value), None)

    technique = {value.upper() for value in _texts(dataset, "ScanningSequence")}
    pulse = _text(dataset, "EchoPulseSequence").upper()
    technique |= {"SE"} if pulse in ("SPIN", "BOTH") else set()
    technique |= {"GR"} if pulse in ("GRADIENT", "BOTH") else set()
    technique |= {"IR"} if _text(dataset, "InversionRecovery").upper() == "YES" else set()
    technique |= {"EP"} if _text(dataset, "EchoPlanarPulseSequence").upper() == "YES" else set()
    agent = not _NO_AGENT.fullmatch(_text(dataset, "ContrastBolusAgent"))
    return SequenceFacts(
        description=_text(dataset, "SeriesDescription") or _text(dataset, "ProtocolName"),
        agent=agent or bool(dataset.get("ContrastBolusAgentSequence")),
        acquisition=_text(dataset, "MRAcquisitionType").upper(),
        technique=frozenset(technique),
        repetition_ms=number("RepetitionTime", "MRTimingAndRelatedParametersSequence", "RepetitionTime"),
        echo_ms=number("EchoTime", "MREchoSequence", "EffectiveEchoTime"),
        inversion_ms=number("InversionTime", "MRModifierSequence", "InversionTimes"),
    )


def _identifiers(dataset: Dataset) -> frozenset[str]:
    """Whole values, and the words of a name."""
    plain = ("PatientID", "OtherPatientIDs", "PatientBirthDate", "AccessionNumber", "StudyID")
    found = {_text(dataset, keyword) for keyword in plain} | set(re.split(r"[\^=\s,]+", _text(dataset, "PatientName")))
    return frozenset(value for value in found if value)


def _text(dataset: Dataset, keyword: str) -> str:
    """A value as text, several ones joined; empty where there is none."""
    return "\\".join(_texts(dataset, keyword)).strip()


def _texts(dataset: Dataset, keyword: str) -> list[str]:
    value = dataset.get(keyword)
    if value is None:
        return []
    return [str(part).strip(" \0") for part in ([value] if isinstance(value, str) else _several(value))]


def _several(value: Any) -> list[Any]:
    """The parts of a multi-valued element; a single value as one."""
    return list(value) if hasattr(value, "__iter__") and not hasattr(value, "components") else [value]


def _number(dataset: Dataset, keyword: str) -> float | None:
    """The first of an element's numbers."""
    value = dataset.get(keyword)
    parts = [] if value is None or value == "" else _several(value)
    number = float(parts[0]) if parts else None
    if number is not None and not math.isfinite(number):
        raise Faulty("unreadable")
    return number


def _numbers(dataset: Dataset, keyword: str, count: int) -> list[float]:
    value = dataset.get(keyword)
    numbers = [] if value is None or value == "" else [float(part) for part in _several(value)]
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise Faulty("no-geometry")
    return numbers


def _whole(dataset: Dataset, keyword: str, default: int = 0) -> int:
    value = dataset.get(keyword)
    return default if value is None or value == "" else int(value)
