"""One scan looked through: what is wrong with it, and the facts to compare it with the others."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cohort import ChannelSource, Scan
from ..errors import DataError, GeometryError
from ..volumes.grid import Affine, Spacing
from ..volumes.nifti import Header, NotAVolume, canonical_spacing, is_regular, read_header, read_label_map, read_volume
from .identifying import header_is_identifying, name_is_identifying

_SAME_PLACE_VOXELS = 0.1
"""Two affines agree when no corner of the volume moves by more than this share of the smallest voxel side."""
_SCALE_SAMPLES = 200_000


@dataclass(frozen=True)
class ScanFacts:
    """What was found in one scan.

    Attributes:
        codes: Problem codes of :mod:`cohort_check` that the scan shows by itself.
        spacing: Voxel size along (right, anterior, superior) in mm, rounded to 1 µm; None if unknown.
        scales: Channel to the 99th percentile of its absolute intensities.
        digests: SHA-256 of each channel's voxels that are not constant.
        labels: Integer label values found.
        missing: Channels it should have and lacks.
        outside: Label values found that it may not have.
        kinds: Shape and numbers of files that are whole, but no volume.
        files: Code to the files that show it, where single ones do. For the site's own eyes, as any path.
        digest_files: Digest to its channel's file, likewise.
    """

    codes: frozenset[str]
    spacing: Spacing | None
    scales: Mapping[str, float]
    digests: frozenset[str]
    labels: frozenset[int]
    missing: frozenset[str]
    outside: frozenset[int]
    kinds: frozenset[str] = frozenset()
    files: Mapping[str, frozenset[Path]] = field(default_factory=dict, repr=False)
    digest_files: Mapping[str, Path] = field(default_factory=dict, repr=False)


def inspect_scan(scan: Scan, root: Path, channels: Sequence[str], allowed: frozenset[int] | None) -> ScanFacts:
    """Look through every file of a scan. Nothing is modified, and nothing is raised for a broken file.

    Args:
        scan: The scan.
        root: The cohort's folder: names above it are not judged.
        channels: Channels it must have; others are not opened.
        allowed: Label values it may have, or None for any value from 0 to 255.
    """
    codes: set[str] = set()
    sources = {name: scan.channels[name] for name in channels if name in scan.channels}
    missing = set(channels) - set(sources)
    if scan.label is None:
        codes.add("missing-label")
    paths = list(dict.fromkeys([s.path for s in sources.values()] + ([scan.label] if scan.label else [])))
    files: dict[str, set[Path]] = defaultdict(set)
    for path in paths:
        if name_is_identifying(_names_below(path, root)):
            files["identifying-filename"].add(path)

    headers: dict[Path, Header] = {}
    kinds: set[str] = set()
    for path in paths:
        with _found(path, files, kinds):
            headers[path] = header = read_header(path)
            if header_is_identifying(header):
                files["identifying-header"].add(path)
            if not is_regular(header.affine, header.spacing):
                files["singular-affine"].add(path)
    codes |= _geometry_codes(list(headers.values()))

    scales: dict[str, float] = {}
    digests: dict[str, Path] = {}
    for name, source in sources.items():
        if source.path in headers and not _is_there(source, headers[source.path]):
            missing.add(name)
        elif source.path in headers:
            with _found(source.path, files, kinds):
                for code in _inspect_channel(name, source, scales, digests):
                    files[code].add(source.path)
    labels: set[int] = set()
    if scan.label in headers:
        with _found(scan.label, files, kinds):
            for code in _inspect_labels(scan.label, labels):
                files[code].add(scan.label)
    outside = labels - (allowed if allowed is not None else frozenset(range(256)))
    if outside and scan.label:
        files["label-outside-study"].add(scan.label)
    codes |= files.keys() | ({"missing-channel"} if missing else set())
    regular = [h for h in headers.values() if is_regular(h.affine, h.spacing)]
    return ScanFacts(
        codes=frozenset(codes),
        spacing=canonical_spacing(regular[0].affine) if regular else None,
        scales=scales,
        digests=frozenset(digests),
        labels=frozenset(labels),
        missing=frozenset(missing),
        outside=frozenset(outside),
        kinds=frozenset(kinds),
        files={code: frozenset(those) for code, those in files.items()},
        digest_files=digests,
    )


@contextlib.contextmanager
def _found(path: Path, files: Mapping[str, set[Path]], kinds: set[str]) -> Iterator[None]:
    """Note what stands against reading a file."""
    try:
        yield
    except GeometryError:
        files["singular-affine"].add(path)
    except NotAVolume as error:
        files["not-a-volume"].add(path)
        kinds.add(error.what)
    except DataError:
        files["unreadable-file"].add(path)


def _names_below(path: Path, root: Path) -> tuple[str, ...]:
    return path.relative_to(root).parts if path.is_relative_to(root) else path.parts[-2:]


def _geometry_codes(headers: Sequence[Header]) -> set[str]:
    """Whether the files of a scan differ in shape, or lie elsewhere."""
    codes: set[str] = set()
    if len({header.grid_shape[:3] for header in headers}) > 1:
        codes.add("geometry-mismatch")
    regular = [header for header in headers if is_regular(header.affine, header.spacing)]
    for other in regular[1:]:
        if not _same_place(regular[0].affine, other.affine, regular[0].grid_shape[:3]):
            codes.add("affine-mismatch")
    return codes


def _same_place(one: Affine, other: Affine, shape: tuple[int, ...]) -> bool:
    corners = np.array([(*corner, 1) for corner in itertools.product(*[(0, n - 1) for n in shape])])
    moved = np.linalg.norm(corners @ (one - other)[:3].T, axis=1).max()
    return bool(moved <= _SAME_PLACE_VOXELS * np.linalg.norm(one[:3, :3], axis=0).min())


def _is_there(source: ChannelSource, header: Header) -> bool:
    """Whether a file has as many channels as the source's index asks for."""
    shape = header.grid_shape
    return source.index is None or source.index < (shape[3] if len(shape) == 4 else 1)


def _inspect_channel(name: str, source: ChannelSource, scales: dict[str, float], digests: dict[str, Path]) -> set[str]:
    voxels, _ = read_volume(source)
    finite = np.isfinite(voxels)
    codes = set() if finite.all() else {"non-finite"}
    values = voxels[finite]
    if values.size == 0:
        return codes
    if values.min() == values.max():
        return codes | {"constant-volume"}
    scales[name] = float(np.percentile(np.abs(values[:: max(1, values.size // _SCALE_SAMPLES)]), 99))
    digests.setdefault(voxel_digest(voxels), source.path)
    return codes


def voxel_digest(voxels: NDArray[np.float32]) -> str:
    """SHA-256 (hex) of a volume's shape and voxels, whatever its file is called or how it is packed."""
    digest = hashlib.sha256(repr(voxels.shape).encode())
    digest.update(voxels.data)
    return digest.hexdigest()


def _inspect_labels(path: Path | None, found: set[int]) -> set[str]:
    if path is None:
        return set()
    values: NDArray[Any] = np.unique(read_label_map(path)[0])
    finite = values[np.isfinite(values)]
    whole = finite[finite == np.floor(finite)]
    found.update(int(value) for value in whole)
    codes = set() if len(whole) == len(values) else {"non-integer-label"}
    if not np.any(values != 0):
        codes.add("empty-label")
    return codes
