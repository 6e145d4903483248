"""The files of a synthetic cohort, each known by its name: what is audited is what is released, file by file.

An audit attacks the study's channels. A file that it does not read, another channel, a second run, a note, could be a
patient's scan and would leave unlooked at: so whoever audits, checks or packs a cohort refuses it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..common.cohorts.bids_writer import file_key, special_channels
from ..common.cohorts.layouts.bids import DESCRIPTION, LABEL_LOOKUP, LABEL_SUFFIX
from ..common.errors import DataError, VerificationFailed
from ..common.study import Study
from .statement import BIDS_IGNORE
from .synthetic_digest import VOLUME_ENDING

PARTICIPANTS = "participants.tsv"
README = "README.md"

_TABLES = frozenset({DESCRIPTION, PARTICIPANTS, LABEL_LOOKUP})
_OF_A_RELEASE = frozenset({README, BIDS_IGNORE})
"""What the cohort of a release holds beside them; 'release verify' judges both, and nobody packs them from here."""
_DESCRIBED = frozenset(
    {"Name", "BIDSVersion", "DatasetType", "GeneratedBy", "Synthetic", "LabelMaps", "Channels", "DifferentialPrivacy"}
)
_LARGEST_TABLE = 1 << 24
_SUBJECT = re.compile("sub-[A-Za-z0-9]+")


def image_keys(channels: Sequence[str]) -> tuple[str, ...]:
    """Ends of the images' file names, sorted, one for each of the study's channels."""
    return tuple(sorted(map(file_key, channels)))


def synthetic_volumes(cohort: Path, study: Study) -> Mapping[str, Mapping[str, Path]]:
    """Every volume of a synthetic cohort: one file for each channel of the study and one label map, and no others.

    Args:
        cohort: As ``generate`` or a release has it.
        study: Whose generator painted it.

    Returns:
        Subject, ``sub-`` and all, to end of the file name (:func:`image_keys` and ``dseg``) to the file; sorted.

    Raises:
        VerificationFailed: a file that is no part of such a cohort, whatever it holds, a link, a volume that is
            missing, or a table with more in it than such a cohort's.
        DataError: no such folder, or one that cannot be read.
    """
    keys = (*image_keys(study.channels), LABEL_SUFFIX)
    try:
        subjects = _subjects(cohort)
        found = {subject: _volumes(cohort / subject, keys) for subject in subjects}
        _check_tables(cohort, subjects, study)
    except OSError:
        raise DataError(
            "a synthetic cohort that cannot be read",
            expected="a folder as 'fedphantom generate' writes it",
            remedy="Check the path and its permissions.",
        ) from None
    if not found:
        raise DataError(
            "a synthetic cohort without an image",
            expected="a BIDS folder as 'fedphantom generate' writes it",
            remedy="Name that folder with '--synthetic'.",
        )
    return found


def _subjects(cohort: Path) -> list[str]:
    subjects = []
    for entry in _entries(cohort):
        if entry.is_dir() and _SUBJECT.fullmatch(entry.name):
            subjects.append(entry.name)
        elif not entry.is_file() or entry.name not in _TABLES | _OF_A_RELEASE:
            raise _foreign("a synthetic cohort with a file or folder that is no part of it")
    return subjects


def _volumes(subject: Path, keys: Sequence[str]) -> dict[str, Path]:
    if [entry.name for entry in _entries(subject) if entry.is_dir()] != ["anat"] or len(_entries(subject)) != 1:
        raise _foreign("a synthetic scan with a file or folder that is no part of it")
    volumes = {f"{subject.name}_{key}{VOLUME_ENDING}": key for key in keys}
    known = {*volumes, *(f"{subject.name}_{key}.json" for key in keys)}
    present = [entry.name for entry in _entries(subject / "anat") if entry.is_file()]
    if len(present) != len(_entries(subject / "anat")) or not known.issuperset(present):
        raise _foreign("a synthetic scan with a file that is none of the study's channels, nor its label map")
    if not volumes.keys() <= set(present):
        raise _foreign("a synthetic scan without one of the study's channels or its label map")
    return {key: subject / "anat" / name for name, key in volumes.items()}


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    if any(entry.is_symlink() for entry in found):
        raise _foreign("a synthetic cohort with a link in it")
    return found


def _check_tables(cohort: Path, subjects: Sequence[str], study: Study) -> None:
    """A reader must find each channel under its own name, as the attacks did, and in the tables nobody's name."""
    try:
        described = json.loads(_table(cohort / DESCRIPTION))
        channels = described.get("Channels", {})
        known = described.keys() <= _DESCRIBED
    except (ValueError, AttributeError, RecursionError):
        raise _foreign("a synthetic cohort whose description is not JSON") from None
    if not known or channels != special_channels(study.channels):
        raise _foreign("a synthetic cohort whose description names other channels than the study, or says more")
    lookup = sorted((value, name) for name, value in study.labels.items())
    if _table(cohort / LABEL_LOOKUP) != "".join(("index\tname\n", *(f"{value}\t{name}\n" for value, name in lookup))):
        raise _foreign("a synthetic cohort whose table of labels is not the study's")
    header, *rows = _table(cohort / PARTICIPANTS).splitlines() or [""]
    ending = {"participant_id\tsite": "\tn/a", "participant_id": ""}.get(header)
    if ending is None or sorted(rows) != [f"{subject}{ending}" for subject in subjects]:
        raise _foreign("a synthetic cohort whose table of participants holds more, or others, than its scans")


def _table(path: Path) -> str:
    if path.stat().st_size > _LARGEST_TABLE:
        raise _foreign("a synthetic cohort with a table larger than any")
    return path.read_text(encoding="utf-8", errors="replace")


def _foreign(found: str) -> VerificationFailed:
    return VerificationFailed(
        found,
        expected="the folder exactly as 'fedphantom generate' left it, one file for each channel of the study",
        remedy="Take out what was put in, hidden files too, or generate the cohort anew: only what was audited leaves.",
    )
