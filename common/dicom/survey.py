"""A folder of DICOM files looked through: which series can be taken, and what is left out or stands against it."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DataError
from .channels import ChannelRules, channel_of
from .instance import Instance, read_instance
from .opened import is_dicom
from .reasons import Count, Faulty, in_order
from .stack import Stack, stack

Key = tuple[str, str, str]
"""Patient, study, series."""


@dataclass(frozen=True)
class Series:
    """A series that can be taken.

    Attributes:
        patient: The ID in its headers.
        study: UID.
        channel: Its channel by the rules.
        stack: Its slices in order.
        shows_features: Whether a header says that a person may be recognised.
    """

    patient: str = field(repr=False)
    study: str = field(repr=False)
    channel: str
    stack: Stack = field(repr=False)
    shows_features: bool


@dataclass(frozen=True)
class Finding:
    """Something not taken.

    Attributes:
        code, detail: As :class:`~fedphantom.common.dicom.reasons.Faulty`.
        series: Whose, where that is known.
        files: How many.
        where: One of them, from the source's folder on. For the site's own eyes: it may name a patient.
    """

    code: str
    detail: str
    series: Key | None = field(repr=False)
    files: int
    where: Path = field(repr=False)


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        files: How many were looked at.
        series: What can be taken, by patient, study and channel.
        findings: What cannot.
        identifiers: Every value of a header that nothing written or said may hold.
    """

    files: int
    series: tuple[Series, ...]
    findings: tuple[Finding, ...]
    identifiers: frozenset[str] = field(repr=False)


def look_through(source: Path, rules: ChannelRules, progress: Callable[[int, int], None]) -> Survey:
    """Read every header below a folder; nothing is written, no link followed.

    Args:
        source: The folder.
        rules: What tells channels.
        progress: Called with (files done, files in all).

    Raises:
        DataError: no such folder, one that cannot be listed, or a link in it that leads outside.
    """
    paths = list(_files(source))
    by_series: dict[Key, list[Instance]] = defaultdict(list)
    findings: list[Finding] = []
    for done, path in enumerate(paths, start=1):
        here = path.relative_to(source)
        try:
            if not is_dicom(path):
                raise Faulty("not-dicom")
            instance = read_instance(path)
            key = (instance.patient, *instance.series)
            if instance.problem and not all(key):
                raise instance.problem
            by_series[key].append(instance)
        except Faulty as found:
            findings.append(Finding(found.code, found.detail, None, 1, here))
        progress(done, len(paths))
    shared = _of_two_people(by_series)
    taken: list[tuple[Key, Series]] = []
    for key, instances in sorted(by_series.items()):
        wanted, left = _wanted(instances)
        for code, files in left.items():
            findings.append(Finding(code, "", key, files, instances[0].path.relative_to(source)))
        if not wanted:
            continue
        try:
            if key[0] in shared:
                raise Faulty("two-people")
            taken.append((key, _series(key, wanted, rules)))
        except Faulty as found:
            where = wanted[0].path.relative_to(source)
            findings.append(Finding(found.code, found.detail, key, len(wanted), where))
    series = []
    alike = Counter(_place(one) for _, one in taken)
    for key, one in taken:
        if alike[_place(one)] > 1:
            where = one.stack.slices[0].path.relative_to(source)
            findings.append(Finding("channel-twice", one.channel, key, len(one.stack.slices), where))
        else:
            series.append(one)
    everything = (one for instances in by_series.values() for one in instances)
    identifiers = frozenset().union(*(one.identifiers for one in everything))
    return Survey(len(paths), tuple(series), tuple(findings), identifiers)


def counts(findings: Iterable[Finding]) -> tuple[Count, ...]:
    """Findings in numbers, without their series and places."""
    files: Counter[tuple[str, str]] = Counter()
    series: dict[tuple[str, str], set[Key]] = defaultdict(set)
    for one in findings:
        files[one.code, one.detail] += one.files
        series[one.code, one.detail] |= {one.series} if one.series else set()
    return in_order(Count(code, detail, len(series[code, detail]), number) for (code, detail), number in files.items())


def _wanted(instances: Sequence[Instance]) -> tuple[list[Instance], Counter[str]]:
    """Those that an import is for, faulty or not; and how many it is not for, by code."""
    left = Counter(one.problem.code for one in instances if one.problem and one.problem.is_left_out)
    return [one for one in instances if not (one.problem and one.problem.is_left_out)], left


def _series(key: Key, instances: Sequence[Instance], rules: ChannelRules) -> Series:
    # Scouts and maps that nobody wants may be as they are: the rules come before what is wrong with a series.
    channel = channel_of(instances[0].facts, rules)
    for one in instances:
        if one.problem:
            raise one.problem
    ordered = stack([one_slice for one in instances for one_slice in one.slices])
    return Series(key[0], key[1], channel, ordered, any(one.shows_features for one in instances))


def _place(one: Series) -> Key:
    """Where it would lie in the cohort."""
    return one.patient, one.study, one.channel


def _of_two_people(by_series: dict[Key, list[Instance]]) -> set[str]:
    """Patient IDs under which headers give different birth dates."""
    dates: dict[str, set[str]] = defaultdict(set)
    for key, instances in by_series.items():
        dates[key[0]] |= {one.birth_date for one in instances if one.birth_date}
    return {patient for patient, found in dates.items() if len(found) > 1}


def _files(source: Path) -> Iterator[Path]:
    """Every file below, in a fixed order; a link inside is left to the place it leads to."""
    if not source.is_dir():
        raise DataError("no folder at the path given", expected="a folder of DICOM files", remedy="Check the path.")
    root = source.resolve()

    def forbidden(_: OSError) -> None:
        raise DataError(
            "a folder that cannot be listed",
            expected="permission to read everything below the source",
            remedy="Mend the permissions; a part is not taken for the whole.",
        ) from None

    for folder, folders, files in os.walk(source, onerror=forbidden):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = Path(folder) / name
            if path.is_symlink():
                _refuse_outside(path, root)
            elif name in files:
                yield path


def _refuse_outside(link: Path, root: Path) -> None:
    try:
        leads_inside = link.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a circle
        leads_inside = False
    if not leads_inside:
        raise DataError(
            "a symbolic link that leads outside the source",
            expected="files that lie in the folder given",
            remedy="Copy what it leads to into the folder, or remove the link.",
        )
