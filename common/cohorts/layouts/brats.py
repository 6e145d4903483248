"""BraTS folders: every challenge year's names, and one folder a patient with plain names.

- since 2023: ``BraTS-GLI-00000-000-t1n.nii.gz`` (t1n, t1c, t2w, t2f, seg); the last number is the
  time point, so several scans belong to one patient;
- until 2021: ``BraTS20_Training_001_flair.nii.gz`` (flair, t1, t1ce, t2, seg), one scan a patient;
- plain: ``flair.nii.gz, t1.nii.gz, t1c.nii.gz, t2.nii.gz, seg*.nii.gz`` in a folder named as the patient.

Files may lie in one folder a scan, or nested deeper (``HGG/``, ``LGG/``), or all together.
Source: Menze et al. 2015, doi:10.1109/TMI.2014.2377694; Baid et al. 2021, arXiv:2107.02314.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...cohort import ChannelSource, Cohort, Scan
from ...storage import TEMPORARY_PREFIX
from ...volumes.nifti import is_nifti, nifti_stem
from .assembly import assemble, read_label_names, read_participants
from .channel_names import known_channel

_DEEPEST = 4
_WITH_TIME_POINT = re.compile(r"(?P<scan>(?P<patient>BraTS-[A-Za-z0-9]+-\d+)-\d{3})-(?P<part>[a-z0-9]+)")
_WITH_PREFIX = re.compile(r"(?P<scan>.+)_(?P<part>[A-Za-z0-9]+)")
_PLAIN_LABEL = re.compile(r"seg([_-].*)?", re.IGNORECASE)
_LABEL = "seg"


@dataclass(frozen=True)
class _Part:
    """One file: its scan, its patient, and a channel's canonical name or ``seg``."""

    scan: str
    patient: str
    name: str


def is_brats(root: Path) -> bool:
    """Whether some file below the folder is named in a BraTS way."""
    return any(_part(path) for path in _nifti_files(root, 0))


def read_brats(root: Path) -> Cohort:
    """Read BraTS folders; no file is opened.

    Raises:
        DataError: there is no scan.
    """
    channels: dict[tuple[Path, _Part], dict[str, ChannelSource]] = {}
    labels: dict[tuple[Path, _Part], Path] = {}
    unplaced = 0
    for path in _nifti_files(root, 0):
        part = _part(path)
        if part is None:
            unplaced += 1
            continue
        scan = (path.parent, _Part(part.scan, part.patient, ""))
        sources = channels.setdefault(scan, {})
        if part.name in sources or (part.name == _LABEL and scan in labels):
            unplaced += 1
        elif part.name == _LABEL:
            labels[scan] = path
        else:
            sources[part.name] = ChannelSource(path)
    return assemble(
        root,
        "brats",
        [Scan(scan[1].scan, scan[1].patient, sources, labels.get(scan)) for scan, sources in channels.items()],
        participants=read_participants(root),
        label_names=read_label_names([root / "dseg.tsv"]),
        unplaced=unplaced,
    )


def _nifti_files(folder: Path, depth: int) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if depth < _DEEPEST and not path.name.startswith((".", TEMPORARY_PREFIX)):
                yield from _nifti_files(path, depth + 1)
        elif is_nifti(path):
            yield path


def _part(path: Path) -> _Part | None:
    stem = nifti_stem(path)
    if timed := _WITH_TIME_POINT.fullmatch(stem):
        name = _name(timed["part"])
        return _Part(timed["scan"], timed["patient"], name) if name else None
    if known_channel(stem):
        return _Part(path.parent.name, path.parent.name, _name(stem) or "")
    if _PLAIN_LABEL.fullmatch(stem):
        return _Part(path.parent.name, path.parent.name, _LABEL)
    prefixed = _WITH_PREFIX.fullmatch(stem)
    if prefixed and (name := _name(prefixed["part"])):
        return _Part(prefixed["scan"], prefixed["scan"], name)
    return None


def _name(part: str) -> str | None:
    return _LABEL if part.lower() == _LABEL else known_channel(part)
