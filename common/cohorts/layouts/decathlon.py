"""Medical Segmentation Decathlon: ``imagesTr`` and ``labelsTr``, with or without ``dataset.json``.

One file a scan, 3-D or 4-D (channels last); or nnU-Net's one file a channel (``case_0000.nii.gz``).
Every scan is taken for its own patient. Source: Simpson et al. 2019, arXiv:1902.09063.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...cohort import ChannelSource, Cohort, Scan
from ...errors import DataError
from ...volumes.nifti import is_nifti, nifti_stem, read_header
from .assembly import assemble, read_participants
from .channel_names import canonical_channel

_ONLY_CHANNEL = "MRI"


@dataclass(frozen=True)
class _Description:
    """What ``dataset.json`` says; empty where there is none."""

    channels: tuple[str, ...] = ()
    label_names: tuple[tuple[int, str], ...] = ()
    listed: tuple[tuple[str, str], ...] = ()
    """(image, label) file names of the training list."""


def is_decathlon(root: Path) -> bool:
    """Whether the folder holds ``imagesTr``."""
    return (root / "imagesTr").is_dir()


def read_decathlon(root: Path) -> Cohort:
    """Read a Decathlon folder; of the images only headers are opened, and only without ``dataset.json``.

    Raises:
        DataError: ``dataset.json`` is not valid, or there is no scan.
    """
    description = _read_description(root / "dataset.json")
    images = {nifti_stem(p): p for p in sorted((root / "imagesTr").iterdir()) if is_nifti(p)}
    labels: dict[str, Path] = {}
    if (root / "labelsTr").is_dir():
        labels = {nifti_stem(p): p for p in sorted((root / "labelsTr").iterdir()) if is_nifti(p)}
    for image_name, label_name in description.listed:
        image, label = root / "imagesTr" / image_name, root / "labelsTr" / label_name
        images.setdefault(nifti_stem(image), image)
        labels.setdefault(nifti_stem(label), label)
    sources = _sources_by_scan(images, set(labels), description.channels)
    return assemble(
        root,
        "decathlon",
        [Scan(stem, stem, sources.get(stem, {}), labels.get(stem)) for stem in sorted(set(sources) | set(labels))],
        participants=read_participants(root),
        label_names=dict(description.label_names),
    )


def _sources_by_scan(
    images: dict[str, Path], labelled: set[str], names: tuple[str, ...]
) -> dict[str, dict[str, ChannelSource]]:
    split = {stem: re.fullmatch(r"(.+)_(\d{4})", stem) for stem in images}
    if images and all(m and (m[1] in labelled or not labelled) and stem not in labelled for stem, m in split.items()):
        matches = [(images[stem], m[1], int(m[2])) for stem, m in split.items() if m]
        found = names or _default_names(1 + max(index for _, _, index in matches))
        by_case: dict[str, dict[str, ChannelSource]] = {}
        for path, case, index in matches:
            name = found[index] if index < len(found) else f"channel-{index}"
            by_case.setdefault(case, {})[name] = ChannelSource(path)
        return by_case
    if names:
        return {stem: _indexed(path, names) for stem, path in images.items()}
    counts = {stem: _channel_count(path) for stem, path in images.items()}
    # A file whose header cannot be read is taken to be like the others; the cohort check names it.
    common = max((n for n in counts.values() if n is not None), default=1)
    return {stem: _indexed(path, _default_names(counts[stem] or common)) for stem, path in images.items()}


def _default_names(count: int) -> tuple[str, ...]:
    return (_ONLY_CHANNEL,) if count == 1 else tuple(f"channel-{index}" for index in range(count))


def _indexed(path: Path, names: tuple[str, ...]) -> dict[str, ChannelSource]:
    if len(names) == 1:
        return {names[0]: ChannelSource(path)}
    return {name: ChannelSource(path, index) for index, name in enumerate(names)}


def _channel_count(path: Path) -> int | None:
    try:
        shape = read_header(path).grid_shape
    except DataError:
        return None
    return 1 if len(shape) == 3 else shape[3]


def _read_description(path: Path) -> _Description:
    if not path.is_file():
        return _Description()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        channels = content.get("modality") or content.get("channel_names") or {}
        names = tuple(canonical_channel(str(channels[key])) for key in sorted(channels, key=int))
        if len(set(names)) != len(names):
            names = tuple(f"{name}-{index}" for index, name in enumerate(names))
        return _Description(names, tuple(_label_names(content.get("labels") or {})), tuple(_listed(content)))
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError):
        raise DataError(
            "a dataset.json that cannot be understood",
            expected="Decathlon's keys 'modality', 'labels' and 'training'",
            remedy="Mend it, or remove it: the folders alone suffice.",
        ) from None


def _label_names(labels: dict[str, Any]) -> list[tuple[int, str]]:
    """Decathlon writes value to name, nnU-Net name to value; regions (lists) have no value of their own."""
    if all(str(key).isdecimal() for key in labels):
        return [(int(key), str(name)) for key, name in labels.items()]
    return [(int(value), str(name)) for name, value in labels.items() if not isinstance(value, list)]


def _listed(content: dict[str, Any]) -> list[tuple[str, str]]:
    """File names only: a list may not point outside the two folders."""
    pairs = [entry for entry in content.get("training") or [] if isinstance(entry, dict)]
    return [(PurePosixPath(str(p["image"])).name, PurePosixPath(str(p["label"])).name) for p in pairs]
