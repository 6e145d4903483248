"""BIDS: ``sub-*/[ses-*/]anat``, label maps ``*_dseg`` beside the images or under ``derivatives/``.

Sessions are scans of one patient. A repeated run is a scan of its own where label maps are given by
run; otherwise the first run counts and the others are reported. Channels take the canonical names
(``ce-*_T1w`` is T1c); others their suffix, or the name that ``dataset_description.json`` gives them
under ``Channels`` in cohorts that FedPhantom writes.

Source: BIDS specification 1.10, bids-specification.readthedocs.io.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...cohort import ChannelSource, Cohort, Scan
from ...errors import DataError
from ...volumes.nifti import is_nifti, nifti_stem
from .assembly import assemble, read_label_names, read_participants
from .channel_names import canonical_channel, known_channel

DESCRIPTION = "dataset_description.json"
LABEL_SUFFIX = "dseg"
LABEL_LOOKUP = "dseg.tsv"
NOT_CHANNELS = frozenset({LABEL_SUFFIX, "defacemask", "mask", "probseg", "T1map", "T2map", "TB1map"})
"""Suffixes in ``anat`` that are no channel of a scan."""

_NAMING_ENTITIES = ("acq", "ce")
"""Entities that tell channels of one scan apart, beside the suffix."""


@dataclass(frozen=True)
class _Image:
    path: Path
    entities: Mapping[str, str]
    suffix: str

    @property
    def key(self) -> str:
        """The part of the name that tells the channel, e.g. ``ce-gadolinium_T1w``."""
        named = [f"{entity}-{self.entities[entity]}" for entity in _NAMING_ENTITIES if entity in self.entities]
        return "_".join([*named, self.suffix])


def is_bids(root: Path) -> bool:
    """Whether the folder holds a ``sub-*`` folder."""
    return any(root.glob("sub-*/"))


def read_bids(root: Path) -> Cohort:
    """Read a BIDS folder, raw or derivative; no image is opened.

    Raises:
        DataError: ``dataset_description.json`` is not JSON, or there is no scan.
    """
    names = _channel_names(root / DESCRIPTION)
    scans: list[Scan] = []
    unplaced = 0
    for subject in _folders(root, "sub-"):
        for folder in [subject, *_folders(subject, "ses-")]:
            found, left = _read_session(root, subject, folder, names)
            scans += found
            unplaced += left
    lookups = [root / LABEL_LOOKUP, *sorted(root.glob("derivatives/*dseg.tsv"))]
    lookups += [*sorted(root.glob("derivatives/*/*dseg.tsv")), *sorted(root.glob("*_dseg.tsv"))]
    return assemble(
        root,
        "bids",
        scans,
        participants=read_participants(root, prefix="sub-"),
        label_names=read_label_names(lookups),
        unplaced=unplaced,
        expected=(subject.name.removeprefix("sub-") for subject in _folders(root, "sub-")),
    )


def channel_key_is_plain(key: str, name: str) -> bool:
    """Whether a reader without FedPhantom's ``Channels`` table would give this file key this channel name."""
    *entities, suffix = key.split("_")
    image = _Image(Path(), dict(e.split("-", 1) for e in entities), suffix)
    return _channel_name(image, {}) == name


def _read_session(root: Path, subject: Path, folder: Path, names: Mapping[str, str]) -> tuple[list[Scan], int]:
    """The scans of one ``anat`` folder (none, one, or one a run), and how many files found no place."""
    here = folder.relative_to(root)
    images = _images(folder / "anat")
    labels = [image for image in images if image.suffix == LABEL_SUFFIX]
    for derivative in [root / "derivatives", *_folders(root / "derivatives", "")]:
        labels += [i for i in _images(derivative / here / "anat") if i.suffix == LABEL_SUFFIX]
    misnamed = sum(not image.suffix for image in images)
    images = [image for image in images if image.suffix and image.suffix not in NOT_CHANNELS]
    if not images and not labels:
        return [], misnamed
    runs = sorted({label.entities.get("run", "") for label in labels} - {""})
    base = subject.name if folder == subject else f"{subject.name}_{folder.name}"
    patient = subject.name.removeprefix("sub-")
    scans: list[Scan] = []
    placed = 0
    for run in runs or [""]:
        mine = [image for image in images if not runs or image.entities.get("run", run) == run]
        channels: dict[str, ChannelSource] = {}
        for image in sorted(mine, key=_plainest_first):
            if channels.setdefault(_channel_name(image, names), ChannelSource(image.path)).path == image.path:
                placed += 1
        fitting = sorted((i for i in labels if i.entities.get("run", run) == run), key=_plainest_first)
        placed += bool(fitting)
        scans.append(
            Scan(f"{base}_run-{run}" if run else base, patient, channels, fitting[0].path if fitting else None)
        )
    # An image without a run belongs to every run and is placed more than once.
    return scans, misnamed + max(0, len(images) + len(labels) - placed)


def _plainest_first(image: _Image) -> tuple[bool, int, int, str]:
    """Fewest entities first; standard spaces and derivatives of runs later; beside the image before elsewhere."""
    return "space" in image.entities, len(image.entities), len(image.path.parts), image.path.name


def _images(folder: Path) -> list[_Image]:
    if not folder.is_dir():
        return []
    return [_parse(path) for path in sorted(folder.iterdir()) if is_nifti(path)]


def _parse(path: Path) -> _Image:
    """The name's entities and suffix; an empty suffix where the name is not one of BIDS."""
    *entities, suffix = nifti_stem(path).split("_")
    pairs = [entity.split("-", 1) for entity in entities]
    # sub-01_T1w_dseg is not BIDS either, but common for the label map drawn on that image.
    if suffix != LABEL_SUFFIX and (not pairs or any(len(pair) != 2 for pair in pairs)):
        suffix = ""
    return _Image(path, {pair[0]: pair[1] for pair in pairs if len(pair) == 2}, suffix)


def _channel_name(image: _Image, names: Mapping[str, str]) -> str:
    if image.key in names:
        return names[image.key]
    known = known_channel(image.suffix)
    if known == "T1" and "ce" in image.entities:
        return "T1c"
    return known or canonical_channel(image.suffix)


def _channel_names(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        channels = json.loads(path.read_text(encoding="utf-8")).get("Channels", {})
        return {str(key): canonical_channel(str(name)) for key, name in channels.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        raise DataError(
            f"a {DESCRIPTION} that is not valid",
            expected="a JSON object as BIDS describes it",
            remedy="Mend the file or remove it.",
        ) from None


def _folders(parent: Path, prefix: str) -> Iterable[Path]:
    if not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if p.is_dir() and p.name.startswith(prefix) and p.name[:1] != ".")
