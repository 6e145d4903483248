"""The prepared cache: a cohort's scans on the study's grid, normalised, as memory-mapped arrays.

Written once, into a folder named by a key over everything the result depends on (the files' bytes, grid,
channels, labels, this module's version); a second run maps it. The folder appears by one rename after all of it
is on disk, so that an interrupted write leaves nothing that is believed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..atomic import atomic_folder
from ..cohort import ChannelSource, Cohort, Scan
from ..errors import DataError, StorageError
from ..labels.remapping import remap
from ..storage import making_errors, storage_errors
from ..study import Study
from ..volumes.grid import Grid
from ..volumes.nifti import read_header, read_label_map, read_volume
from ..volumes.placement import place_labels, place_volume
from .acquisition import acquisition
from .disk_rows import DiskRows, Rows, chosen
from .scan_digests import ARRAYS, digests_on_disk, scan_digest

HASHES = "hashes.json"
"""SHA-256 of each scan (:mod:`.scan_digests`); written last."""
_Facts = tuple[tuple[int, int, int], ...]
_LOOKED_THROUGH: dict[str, tuple[_Facts, tuple[str, ...]]] = {}
"""Folders whose scans were hashed: size, time of change and inode of each array's file, and each scan's hash."""

VERSION = 4  # raise it whenever preparation gives other voxels or headers
ABSENT = -1.0  # every voxel of a channel that a scan lacks: what background is
LOW, HIGH = 0.5, 99.5  # percentiles of a scan's own foreground that become -1 and 1
AIR_SHARE = 0.1  # of all voxels: a value that so many have is air

Progress = Callable[[int, int], None]
"""(scans done, scans in all)."""


@dataclass(frozen=True)
class PreparedScans:
    """Scans ready for the networks, in the cohort's order.

    Attributes:
        volumes: (n, C, X, Y, Z) float32 in [-1, 1]; on disk, read row by row.
        classes: (n, X, Y, Z) uint8, positions in ``Study.label_values``; on disk likewise.
        patients: Each scan's patient identifier; never leaves the site.
        sites: Each scan's site name, '' where the cohort names none.
        headers: (n, F) float64, what each scan's files say beside their voxels (:mod:`.acquisition`); never leaves the
            site.
    """

    volumes: Rows[np.float32]
    classes: Rows[np.uint8]
    patients: tuple[str, ...]
    sites: tuple[str, ...]
    headers: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.patients)

    def rows_of(self, patients: Collection[str]) -> NDArray[np.intp]:
        """Row numbers of these patients' scans."""
        wanted = set(patients)
        return np.asarray([row for row, patient in enumerate(self.patients) if patient in wanted], dtype=np.intp)

    def only(self, rows: Sequence[int] | NDArray[np.intp]) -> PreparedScans:
        """These rows; nothing is read."""
        index = np.asarray(rows, dtype=np.intp)
        return PreparedScans(
            chosen(self.volumes, index),
            chosen(self.classes, index),
            tuple(self.patients[i] for i in index),
            tuple(self.sites[i] for i in index),
            self.headers[index],
        )

    def named_site(self, site: str) -> PreparedScans:
        """The same scans, all said to be of this site."""
        return replace(self, sites=(site,) * len(self))

    def named_by_site(self) -> PreparedScans:
        """The same scans, their patients called ``site/patient``: two hospitals may both have a patient 01."""
        return replace(self, patients=tuple(map("/".join, zip(self.sites, self.patients, strict=True))))


def joined(parts: Sequence[PreparedScans]) -> PreparedScans:
    """Several sites' scans in one; nothing is read. For experiments on one machine only."""
    return PreparedScans(
        DiskRows.of([part.volumes for part in parts]),
        DiskRows.of([part.classes for part in parts]),
        tuple(patient for part in parts for patient in part.patients),
        tuple(site for part in parts for site in part.sites),
        np.concatenate([part.headers for part in parts]),
    )


def normalise(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """One channel (X, Y, Z) to [-1, 1] by percentiles of its own foreground; background (exactly 0) to -1.

    Per scan only: a site's percentiles would be private statistics (PRIVACY §1.1).
    """
    return _scaled(volume, _intensity_range(volume))


def _intensity_range(volume: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
    """What of one channel becomes -1 and 1, shape (2,); zeros where there is no foreground."""
    foreground = volume[volume != 0]
    return np.percentile(foreground, [LOW, HIGH]) if foreground.size else np.zeros(2, volume.dtype)


def _scaled(volume: NDArray[np.float32], ends: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    low, high = ends
    scaled = (volume - low) * np.float32(2 / max(high - low, 1e-12)) - 1
    return np.where(volume == 0, np.float32(-1), np.clip(scaled, -1, 1)).astype(np.float32)


def background_at_zero(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """A channel (X, Y, Z) whose air is 0, as skull-stripped scans have it.

    A scan that was scaled after its skull was stripped, to -1 to 1 for example, has its air at its least value: found
    where more than a tenth of all voxels have exactly that value. It is moved, so that what is laid around a scan on a
    larger grid is air too, and :func:`normalise` leaves air out of its percentiles.
    """
    least = volume.min()
    if least == 0 or np.count_nonzero(volume == least) <= AIR_SHARE * volume.size:
        return volume
    moved: NDArray[np.float32] = volume - least
    return moved


def prepare(cohort: Cohort, study: Study, folder: Path, progress: Progress | None = None) -> PreparedScans:
    """Map the cohort's prepared scans from ``folder``, writing them first where they are not there yet.

    Raises:
        DataError: a scan lacks a channel or label map of the study, or cannot be read; run ``cohort check`` first
            and prepare its ``usable`` cohort.
        StorageError: the disk is full.
    """
    return prepare_digested(cohort, study, folder, progress)[0]


def prepare_digested(
    cohort: Cohort, study: Study, folder: Path, progress: Progress | None = None
) -> tuple[PreparedScans, tuple[str, ...]]:
    """As :func:`prepare`, with each scan's hash (:mod:`.scan_digests`), taken of what was written or is mapped."""
    scans = cohort.scans
    if not scans:
        raise DataError(
            "a cohort without a usable scan", expected="one or more", remedy="Run 'fedphantom cohort check'."
        )
    target = folder / content_key(cohort, study)
    digests = _looked_through(target)
    if digests is None and target.is_dir():
        with storage_errors():
            shutil.rmtree(target)  # damaged since: nothing is lost that its sources do not give again
    if digests is None:
        with storage_errors(), making_errors():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # scans of patients: for their owner alone
        try:
            with atomic_folder(target) as partial:
                written = _write(partial, scans, study, progress)
        except StorageError:
            # Another process may have prepared the same scans meanwhile: under a content key they are the same.
            digests = _looked_through(target)
            if digests is None:
                raise
        else:
            digests = written
            _LOOKED_THROUGH[str(target)] = _facts(target), digests
    sites = {patient.patient_id: patient.site or "" for patient in cohort.patients}
    mapped = PreparedScans(
        np.load(target / "volumes.npy", mmap_mode="r", allow_pickle=False),
        np.load(target / "classes.npy", mmap_mode="r", allow_pickle=False),
        tuple(scan.patient_id for scan in scans),
        tuple(sites[scan.patient_id] for scan in scans),
        np.load(target / "headers.npy", allow_pickle=False),
    )
    return mapped, digests


def _facts(target: Path) -> _Facts:
    found = [(target / name).stat() for name in ARRAYS]
    return tuple((facts.st_size, facts.st_mtime_ns, facts.st_ino) for facts in found)


def _looked_through(target: Path) -> tuple[str, ...] | None:
    """Each scan's hash, where it is what was written; read once a process while the files do not change."""
    try:
        noted = json.loads((target / HASHES).read_bytes())["scans"]
        facts, seen = _facts(target), _LOOKED_THROUGH.get(str(target))
        found = seen[1] if seen and seen[0] == facts else digests_on_disk(target)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if list(found) != noted:
        return None
    _LOOKED_THROUGH[str(target)] = facts, found
    return found


def content_key(cohort: Cohort, study: Study) -> str:
    """SHA-256 (hex) over all that the prepared arrays depend on."""
    digest = hashlib.sha256()
    facts = [VERSION, study.channels, study.label_values, study.grid.model_dump(mode="json"), study.remapping]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    hashed: dict[Path, str] = {}
    for scan in cohort.scans:
        sources, label = _files(scan, study)
        for source in [*sources, ChannelSource(label)]:
            if source and source.path not in hashed:
                hashed[source.path] = _file_hash(source.path)
            digest.update(f"{hashed[source.path]}#{source.index}\n".encode() if source else b"absent\n")
    return digest.hexdigest()


def _write(folder: Path, scans: Sequence[Scan], study: Study, progress: Progress | None) -> tuple[str, ...]:
    grid, shape = study.volume_grid(), study.grid.shape
    digests: list[str] = []
    # Written, not memory-mapped: a full disk kills who writes to a map (SIGBUS), and is an error to who writes.
    with (folder / "volumes.npy").open("wb") as volumes, (folder / "classes.npy").open("wb") as classes:
        _write_header(volumes, np.dtype(np.float32), (len(scans), len(study.channels), *shape))
        _write_header(classes, np.dtype(np.uint8), (len(scans), *shape))
        headers: list[NDArray[np.float64]] = []
        for row, scan in enumerate(scans, start=1):
            sources, label = _files(scan, study)
            made = [_channel(source, grid) for source in sources]
            volume, labels = np.stack([channel for channel, _ in made]), class_index(*read_label_map(label), study)
            found = [read_header(source.path) if source else None for source in (*sources, ChannelSource(label))]
            headers.append(acquisition(found, [scale for _, scale in made]))
            volumes.write(volume.tobytes())
            classes.write(labels.tobytes())
            digests.append(scan_digest(volume, labels, headers[-1]))
            if progress:
                progress(row, len(scans))
    table = np.stack(headers)
    with (folder / "headers.npy").open("wb") as file:
        _write_header(file, table.dtype, table.shape)
        file.write(table.tobytes())
    (folder / HASHES).write_text(json.dumps({"scans": digests}))
    return tuple(digests)


def _channel(source: ChannelSource | None, grid: Grid) -> tuple[NDArray[np.float32], NDArray[np.floating[Any]]]:
    """One channel (X, Y, Z) as prepared, and the intensities that became -1 and 1; zeros where a scan lacks it."""
    if source is None:
        return np.full(grid.shape, ABSENT, dtype=np.float32), np.zeros(2)
    voxels, affine = read_volume(source)
    placed = place_volume(background_at_zero(voxels), affine, grid)
    scale = _intensity_range(placed)
    return _scaled(placed, scale), scale


def _write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


def class_index(labels: NDArray[np.generic], affine: NDArray[np.float64], study: Study) -> NDArray[np.uint8]:
    """A label map as stored, any axes order, to class indices (X, Y, Z) on the study's grid.

    Raises:
        DataError: a value that the study does not name.
    """
    placed = place_labels(remap(labels, study.remapping, study.labels), affine, study.volume_grid())
    return np.searchsorted(np.asarray(study.label_values), placed).astype(np.uint8)


def needed_channels(scan: Scan, study: Study) -> tuple[str, ...]:
    """Channels without which a scan is of no use to a study.

    All of them where images are made. Where labels are, any one will do, so that a cohort of T1 scans can train and
    use a network of four channels: those that the scan has are needed, or all where it has none.
    """
    there = tuple(name for name in study.channels if name in scan.channels)
    return there if there and study.network.maps == "images-to-labels" else study.channels


def _files(scan: Scan, study: Study) -> tuple[list[ChannelSource | None], Path]:
    needed = needed_channels(scan, study)
    missing = [name for name in needed if name not in scan.channels]
    if missing or scan.label is None:
        raise DataError(
            f"a scan without {'its label map' if scan.label is None else 'channel ' + missing[0]}",
            expected=f"the channels {', '.join(needed)} and a label map",
            remedy="Run 'fedphantom cohort check --study STUDY.toml' to find it.",
        )
    return [scan.channels.get(name) for name in study.channels], scan.label


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        raise DataError(
            "a file that cannot be read", expected="readable volumes", remedy="Run 'fedphantom cohort check'."
        ) from None
