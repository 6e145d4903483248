"""DICOM series made from arrays, as a scanner would export them: nobody's data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

AXIAL = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
"""Columns: along a row (to the left), along a column (to the back), along the normal (upwards), in LPS."""


def turned(x: float, y: float, z: float) -> NDArray[np.float64]:
    """Axial directions turned by angles in degrees about the three axes."""
    out = AXIAL
    for axis, degrees in enumerate((x, y, z)):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
        out = turn @ out
    return out


@dataclass(frozen=True, kw_only=True)
class Made:
    """A series to be written.

    Attributes:
        stored: Stored values, shape (columns, rows, slices), int16.
        directions: Columns: row, column, normal; LPS.
        spacing: Between columns, rows, slices, in mm.
        origin: Centre of the first voxel, LPS, in mm.
        tags: Keyword to value, put into every header last; None removes.
        slope: Of each slice, or of all.
        syntax: Transfer syntax.
    """

    stored: NDArray[np.int16]
    directions: NDArray[np.float64] = field(default_factory=lambda: AXIAL)
    spacing: tuple[float, float, float] = (2.0, 2.0, 3.0)
    origin: tuple[float, float, float] = (-10.0, -20.0, 30.0)
    patient: str = "MRN-4711"
    study: str = "1.2.3.1"
    series: str = "1.2.3.1.1"
    description: str = "T1 SE tra"
    tags: dict[str, Any] = field(default_factory=dict)
    slope: float | tuple[float, ...] = 1.0
    intercept: float = 0.0
    syntax: UID = ExplicitVRLittleEndian

    def affine(self) -> NDArray[np.float64]:
        """The closed form: from (column, row, slice) to the world, RAS."""
        out = np.eye(4)
        out[:3, :3] = self.directions * self.spacing
        out[:3, 3] = self.origin
        return np.diag([-1.0, -1, 1, 1]) @ out

    def position(self, number: int) -> list[float]:
        """Of one slice's first voxel, as a header holds it: at most 16 characters a number."""
        return _decimals(np.array(self.origin) + self.directions[:, 2] * self.spacing[2] * number)

    @property
    def slopes(self) -> list[float]:
        """One a slice."""
        many = self.slope if isinstance(self.slope, tuple) else (self.slope,) * self.stored.shape[2]
        return list(many)

    def intensities(self) -> NDArray[np.float32]:
        """What a reader must find, shape (columns, rows, slices)."""
        return (self.stored * np.array(self.slopes) + self.intercept).astype(np.float32)


def noise(shape: tuple[int, int, int] = (12, 10, 8), seed: int = 0) -> NDArray[np.int16]:
    """Stored values of a volume too small to hold a head, shape (columns, rows, slices)."""
    return np.random.default_rng(seed).integers(0, 900, size=shape, dtype=np.int16)


def write_series(folder: Path, made: Made, *, names: list[str] | None = None) -> list[Path]:
    """Write one file a slice; ``names`` of the files in the order of slices, else in an order that is not theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    count = made.stored.shape[2]
    names = names or [f"IM{(7 * number + 3) % 1000:04d}" for number in range(count)]
    paths = []
    for number, name in enumerate(names):
        dataset = _common(made, MRImageStorage, f"{made.series}.{number + 1}")
        dataset.InstanceNumber = count - number
        dataset.ImagePositionPatient = made.position(number)
        dataset.ImageOrientationPatient = _decimals(made.directions[:, :2].T.ravel())
        dataset.PixelSpacing = _decimals([made.spacing[1], made.spacing[0]])
        dataset.SliceThickness = _decimals([made.spacing[2]])[0]
        dataset.RescaleSlope, dataset.RescaleIntercept = str(made.slopes[number]), str(made.intercept)
        dataset.EchoTime, dataset.RepetitionTime, dataset.ScanningSequence = "12", "600", "SE"
        dataset.PixelData = np.ascontiguousarray(made.stored[:, :, number].T).tobytes()
        paths.append(save(dataset, folder / name, made))
    return paths


def write_enhanced(path: Path, made: Made, order: list[int] | None = None) -> Path:
    """Write one multi-frame file, its frames in the order given."""
    order = order or list(range(made.stored.shape[2]))
    dataset = _common(made, EnhancedMRImageStorage, f"{made.series}.1")
    dataset.NumberOfFrames = len(order)
    dataset.EchoPulseSequence = "SPIN"
    shared = Dataset()
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=_decimals(made.directions[:, :2].T.ravel()))
    shared.PixelMeasuresSequence = _item(
        PixelSpacing=_decimals([made.spacing[1], made.spacing[0]]), SliceThickness=_decimals([made.spacing[2]])[0]
    )
    shared.MRTimingAndRelatedParametersSequence = _item(RepetitionTime="600")
    shared.MREchoSequence = _item(EffectiveEchoTime=12.0)
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for number in order:
        frame = Dataset()
        frame.PlanePositionSequence = _item(ImagePositionPatient=made.position(number))
        frame.PixelValueTransformationSequence = _item(
            RescaleSlope=str(made.slopes[number]), RescaleIntercept=str(made.intercept), RescaleType="US"
        )
        frame.FrameContentSequence = _item(StackID="1", InStackPositionNumber=number + 1)
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    dataset.PixelData = b"".join(np.ascontiguousarray(made.stored[:, :, number].T).tobytes() for number in order)
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(dataset, path, made)


def save(dataset: Dataset, path: Path, made: Made) -> Path:
    for keyword, value in made.tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    big = made.syntax.is_little_endian is False
    if big:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
    dataset["PixelData"].VR = "OW"
    if made.syntax.is_compressed and not made.syntax.is_deflated:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(made.syntax)
    dataset.file_meta.TransferSyntaxUID = made.syntax
    dataset.save_as(path, enforce_file_format=True)
    return path


def _common(made: Made, kind: UID, instance: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = kind
    dataset.file_meta.MediaStorageSOPInstanceUID = instance
    dataset.file_meta.ImplementationClassUID = generate_uid(entropy_srcs=["fedphantom tests"])
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, instance
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = made.study, made.series
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate = made.patient, "Roe^Jane", "19610503"
    dataset.StudyDate, dataset.Modality, dataset.Manufacturer = "20240229", "MR", "Siemens"
    dataset.SeriesDescription, dataset.SeriesNumber = made.description, 1
    dataset.ImageType, dataset.MRAcquisitionType = ["ORIGINAL", "PRIMARY", "M", "ND"], "2D"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Columns, dataset.Rows = made.stored.shape[:2]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    return dataset


def _item(**values: Any) -> Sequence:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return Sequence([item])


def _decimals(values: Any) -> list[float]:
    return [float(f"{value:.10f}") for value in np.ravel(values)]
