"""What is wrong with a cohort, by code; and what of it can be used.

Every scan is judged by itself (:mod:`scan_check`) and then against the others. A scan with an error
is left out of ``usable``; a warning leaves it in. Nothing is modified.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..cohort import Cohort, Patient, Scan
from ..counted import counted
from ..errors import DataError
from ..study import Study
from ..volumes.grid import Spacing
from .layouts.assembly import DUPLICATE_PATIENT, NO_SCAN, UNPLACED_FILE
from .preparation import needed_channels
from .scan_check import ScanFacts, inspect_scan
from .whereabouts import Whereabouts

Severity = Literal["error", "warning"]

_SHOWN = 6


@dataclass(frozen=True)
class Particular:
    """One channel, label value, voxel size or kind of file that a problem is about, and in how many scans.

    Attributes:
        kind: ``channel``, ``label``, ``spacing_mm`` or ``file``; its key in JSON.
        value: The channel's name, the label's value, millimetres along (right, anterior, superior), or a file's shape
            and numbers.
        scans: How many scans.
    """

    kind: Literal["channel", "label", "spacing_mm", "file"]
    value: str | int | Spacing
    scans: int

    @property
    def words(self) -> str:
        """For a person."""
        value = f"{' × '.join(f'{mm:g}' for mm in self.value)} mm" if isinstance(self.value, tuple) else self.value
        return f"{value} in {counted(self.scans, 'scan')}"

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {self.kind: list(self.value) if isinstance(self.value, tuple) else self.value, "scans": self.scans}


def in_words(particulars: Sequence[Particular]) -> str:
    """The first six, in a row, and how many more there are; their order is by number of scans."""
    more = [f"and {len(particulars) - _SHOWN} more"] if len(particulars) > _SHOWN else []
    return ", ".join([*(particular.words for particular in particulars[:_SHOWN]), *more])


@dataclass(frozen=True)
class Problem:
    """One kind of problem and how many scans show it.

    Attributes:
        code: A key of :data:`PROBLEMS`.
        severity: ``error``: the scans are left out; ``warning``: they stay.
        scans: How many scans (or files, for ``unplaced-file``).
        message: What was found, without naming a scan.
        remedy: What to do.
        particulars: Which channels, label values, voxel sizes or kinds of file; empty for other problems.
        identifiers: The scans. For the site's own eyes: never in a log, a report or a message.
        whereabouts: Of each of them which files show it, or whose scan it repeats; likewise.
    """

    code: str
    severity: Severity
    scans: int
    message: str
    remedy: str
    particulars: tuple[Particular, ...] = ()
    identifiers: tuple[str, ...] = field(default=(), repr=False)
    whereabouts: tuple[str, ...] = field(default=(), repr=False)

    @property
    def words(self) -> str:
        """What was found, and in particular which channels, labels or voxel sizes."""
        return self.message + (f": {in_words(self.particulars)}" if self.particulars else "")


@dataclass(frozen=True)
class CohortReport:
    """Counts are of everything found; ``usable`` is what no error touches.

    Attributes:
        ok: No error, and something is usable.
        layout: As :class:`~fedphantom.common.cohort.Cohort` names it.
        sites: Site to patients, as the cohort names them; patients without one under ''.
        spacings: Voxel sizes found, the commonest first.
        patients: Patients found.
        scans: Scans found.
        channels: Channel names found.
        labels: Integer label values found, ascending.
        problems: Errors first, then warnings, each in the order of :data:`PROBLEMS`.
        usable: The cohort without the scans that have an error, and without patients left empty.
    """

    ok: bool
    layout: str
    sites: Mapping[str, int]
    spacings: tuple[Particular, ...]
    patients: int
    scans: int
    channels: tuple[str, ...]
    labels: tuple[int, ...]
    problems: tuple[Problem, ...]
    usable: Cohort = field(repr=False)

    def to_json(self, *, show_identifiers: bool = False) -> dict[str, Any]:
        """The object that ``cohort check --json`` prints; scans are named only if asked."""
        return {
            "ok": self.ok,
            "patients": self.patients,
            "scans": self.scans,
            "channels": list(self.channels),
            "labels": list(self.labels),
            "layout": self.layout,
            "sites": {name: patients for name, patients in self.sites.items() if name},
            "patients_without_site": self.sites.get("", 0),
            "spacings": [spacing.to_json() for spacing in self.spacings],
            "usable": {"patients": len(self.usable.patients), "scans": len(self.usable.scans)},
            "problems": [
                {
                    "code": problem.code,
                    "severity": problem.severity,
                    "scans": problem.scans,
                    "message": problem.message,
                    "remedy": problem.remedy,
                    "particulars": [particular.to_json() for particular in problem.particulars],
                }
                | (
                    {"identifiers": list(problem.identifiers), "whereabouts": list(problem.whereabouts)}
                    if show_identifiers
                    else {}
                )
                for problem in self.problems
            ],
        }

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that leave scans out."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def left_out(self) -> str:
        """How many scans an error leaves out and why, by code and in words; empty where none is."""
        number = self.scans - len(self.usable.scans)
        reasons = "; ".join(f"{problem.code}: {problem.words}" for problem in self.errors)
        return f"{number} of {counted(self.scans, 'scan')} left out ({reasons})" if number else ""

    def usable_or_refused(self) -> Cohort:
        """What can be used of the cohort.

        Raises:
            DataError: nothing; it says why.
        """
        if not self.usable.patients:
            raise DataError(
                f"no usable scan, {self.left_out or 'for there is none'}",
                expected="one or more with every channel and label that the study names",
                remedy="Run 'fedphantom cohort check' on it with --study; it says what to do for each problem.",
            )
        return self.usable


PROBLEMS: Mapping[str, tuple[Severity, str, str]] = {
    "unreadable-file": ("error", "a file is missing, truncated or not NIfTI", "Copy or convert it again."),
    "not-a-volume": (
        "error",
        "a file is whole, but not one 3-D volume of real numbers",
        "Split a series into one file a channel; of colours or complex numbers write the intensities alone.",
    ),
    "missing-channel": ("error", "a channel is missing", "Add it, or train a study without that channel."),
    "missing-label": ("error", "there is no label map", "Add one to the scan, or leave the scan out."),
    "geometry-mismatch": ("error", "channels and label map differ in shape", "Resample them onto one grid."),
    "affine-mismatch": (
        "error",
        "channels and label map lie in different places: more than a tenth of a voxel apart",
        "Register or resample them onto one grid, or mend the headers.",
    ),
    "singular-affine": ("error", "the affine is singular or a voxel size is 0 mm", "Convert it again from its source."),
    "non-finite": ("error", "a channel holds NaN or infinity", "Convert it again, or mask those voxels."),
    "constant-volume": ("error", "a channel has one value everywhere", "Check that the export was complete."),
    "label-outside-study": ("error", "a label value is outside the set", "Map the values to those of the study."),
    "non-integer-label": ("error", "a label is not a whole number", "Resample label maps by nearest neighbour."),
    "empty-label": ("error", "the label map is background everywhere", "Draw it, or leave the scan out."),
    "duplicate-voxels": (
        "error",
        "the same voxels lie under two patients",
        "Find out whose they are; the first patient's scan is kept.",
    ),
    DUPLICATE_PATIENT: (
        "error",
        "a patient or scan is there twice",
        "Give each patient one identifier and one site, and each scan its own identifier.",
    ),
    "mixed-spacing": ("warning", "voxel sizes differ from most scans'", "Nothing: preparation resamples them."),
    "intensity-scale": (
        "warning",
        "intensities are on another scale than most scans'",
        "Nothing, if the scanner is the reason: preparation normalises each scan. Otherwise check the export.",
    ),
    "identifying-header": (
        "warning",
        "a header holds free text or extensions",
        "Nothing for training: no header is copied. Clear them before you pass the files on.",
    ),
    "identifying-filename": (
        "warning",
        "a file or folder name looks like a date, record number or person's name",
        "Rename to pseudonyms before you pass the files on.",
    ),
    NO_SCAN: ("warning", "a patient is listed or has a folder, but no scan", "Check whether an export failed."),
    UNPLACED_FILE: ("warning", "an image file belongs to no scan", "Check its name against the layout."),
}
"""Code to severity, message and remedy; the order is that of reports."""

_SPACING_TOLERANCE = 0.01
_SCALE_FACTOR = 5.0


def check_cohort(
    cohort: Cohort, study: Study | None = None, progress: Callable[[int, int], None] | None = None
) -> CohortReport:
    """Check every scan of a cohort; a broken file is reported, never raised.

    Args:
        cohort: As :func:`layouts.read_cohort` returns it.
        study: Names the channels and label values needed; without one, a scan needs every channel that
            any scan has, and label values must be those the cohort declares, if it declares them.
        progress: Called with (scans done, scans in all) after each scan.
    """
    allowed = study.stored_values if study else frozenset({0, *cohort.label_names})
    scans = cohort.scans
    facts: list[ScanFacts] = []
    for done, scan in enumerate(scans, start=1):
        channels = needed_channels(scan, study) if study else cohort.channels
        facts.append(inspect_scan(scan, cohort.root, channels, allowed if study or cohort.label_names else None))
        if progress:
            progress(done, len(scans))

    found: dict[str, set[int]] = defaultdict(set)
    for position, fact in enumerate(facts):
        for code in fact.codes:
            found[code].add(position)
    found[DUPLICATE_PATIENT] |= _repeated_scans(scans)
    shared = _shared_voxels(scans, facts)
    found["duplicate-voxels"] |= shared.keys()
    found["mixed-spacing"] |= _odd_spacing(facts)
    found["intensity-scale"] |= _odd_scale(facts)

    left_out = {id(scans[i]) for code, hits in found.items() if PROBLEMS[code][0] == "error" for i in hits}
    alike, twice = _alike(cohort.patients), list[Patient]()
    if study and study.privacy.promise:
        # Its unit is the patient with all scans (PRIVACY §0): who takes part twice is promised half as much.
        twice = [patient for group in _alike(_without(cohort, left_out).patients) for patient in group[1:]]
        left_out |= {id(scan) for patient in twice for scan in patient.scans}
    where = Whereabouts(cohort, facts, shared)
    problems = [
        replace(_problem(code, found[code], scans, facts), whereabouts=where.lines(code, found[code]))
        for code in PROBLEMS
        if found[code]
    ]
    problems += [*_similar_patients(alike, twice), *(_stray_problem(code, n) for code, n in cohort.stray)]
    problems.sort(key=lambda problem: problem.severity)
    usable = _without(cohort, left_out)
    return CohortReport(
        ok=bool(usable.patients) and all(problem.severity != "error" for problem in problems),
        layout=cohort.layout,
        sites={name: len(part.patients) for name, part in cohort.by_site().items()},
        spacings=_spacings(facts),
        patients=len(cohort.patients),
        scans=len(scans),
        channels=cohort.channels,
        labels=tuple(sorted(frozenset().union(*(fact.labels for fact in facts)))),
        problems=tuple(problems),
        usable=usable,
    )


def _problem(code: str, hits: Iterable[int], scans: Sequence[Scan], facts: Sequence[ScanFacts]) -> Problem:
    severity, message, remedy = PROBLEMS[code]
    those = [facts[i] for i in sorted(hits)]
    particulars: tuple[Particular, ...] = ()
    match code:
        case "missing-channel":
            channels = Counter(name for fact in those for name in sorted(fact.missing))
            particulars = tuple(Particular("channel", name, n) for name, n in channels.most_common())
        case "not-a-volume":
            kinds = Counter(kind for fact in those for kind in sorted(fact.kinds))
            particulars = tuple(Particular("file", kind, n) for kind, n in kinds.most_common())
        case "label-outside-study":
            labels = Counter(value for fact in those for value in sorted(fact.outside))
            particulars = tuple(Particular("label", value, n) for value, n in labels.most_common())
        case "mixed-spacing":
            particulars = _spacings(those)
    identifiers = tuple(scans[i].scan_id for i in sorted(hits))
    return Problem(code, severity, len(identifiers), message, remedy, particulars, identifiers)


def _spacings(facts: Iterable[ScanFacts]) -> tuple[Particular, ...]:
    """Voxel sizes, rounded to 0.01 mm, the commonest first."""
    rounded = Counter(tuple(round(mm, 2) for mm in fact.spacing) for fact in facts if fact.spacing)
    return tuple(Particular("spacing_mm", (x, y, z), n) for (x, y, z), n in rounded.most_common())


def _stray_problem(code: str, count: int) -> Problem:
    """A reader's finding: it left nothing out that could be used, so it is a warning."""
    _, message, remedy = PROBLEMS[code]
    return Problem(code, "warning", count, message, remedy)


def _repeated_scans(scans: Sequence[Scan]) -> set[int]:
    """Every scan whose identifier an earlier one has; readers name no two patients' scans alike."""
    by_id: dict[str, list[int]] = defaultdict(list)
    for position, scan in enumerate(scans):
        by_id[scan.scan_id].append(position)
    repeated: set[int] = set()
    for positions in by_id.values():
        repeated.update(positions[1:])
    return repeated


def _similar_patients(alike: Sequence[Sequence[Patient]], twice: Sequence[Patient]) -> list[Problem]:
    """Who :func:`_alike` says is probably one person: a warning, or an error about those who are left out for it."""
    if not alike:
        return []
    together = [patient for group in alike for patient in group]
    identifiers = tuple(scan.scan_id for patient in twice or together for scan in patient.scans)
    return [
        Problem(
            DUPLICATE_PATIENT,
            "error" if twice else "warning",
            len(identifiers),
            "patients' identifiers differ only in case or punctuation"
            + (": one person, it may be, to whom half as much would be promised; the first is kept" if twice else ""),
            PROBLEMS[DUPLICATE_PATIENT][2],
            identifiers=identifiers,
            whereabouts=tuple(f"patient {patient.patient_id}" for patient in together),
        )
    ]


def _alike(patients: Sequence[Patient]) -> list[list[Patient]]:
    """Patients whose identifiers differ only in case and punctuation, together, in the cohort's order."""
    by_letters: dict[str, list[Patient]] = defaultdict(list)
    for patient in patients:
        by_letters[re.sub(r"[\W_]", "", patient.patient_id).casefold()].append(patient)
    return [group for group in by_letters.values() if len(group) > 1]


def _shared_voxels(scans: Sequence[Scan], facts: Sequence[ScanFacts]) -> dict[int, tuple[int, str]]:
    """Scans that hold a channel which an earlier scan of another patient holds, voxel for voxel.

    Returns:
        Position of the scan to that of the earlier one and the channel's digest.
    """
    owner: dict[str, int] = {}
    shared: dict[int, tuple[int, str]] = {}
    for position, (scan, fact) in enumerate(zip(scans, facts, strict=True)):
        for digest in sorted(fact.digests):
            earlier = owner.setdefault(digest, position)
            if scans[earlier].patient_id != scan.patient_id:
                shared.setdefault(position, (earlier, digest))
    return shared


def _odd_spacing(facts: Sequence[ScanFacts]) -> set[int]:
    """Scans whose voxel size is not the commonest, with 1 % tolerance."""
    known = Counter(fact.spacing for fact in facts if fact.spacing)
    if not known:
        return set()
    commonest = max(known, key=lambda spacing: (known[spacing], spacing))
    return {
        position
        for position, fact in enumerate(facts)
        if fact.spacing
        and any(abs(mm / usual - 1) > _SPACING_TOLERANCE for mm, usual in zip(fact.spacing, commonest, strict=True))
    }


def _odd_scale(facts: Sequence[ScanFacts]) -> set[int]:
    """Scans one of whose channels is five times brighter or darker than that channel's median scan."""
    by_channel: dict[str, list[float]] = defaultdict(list)
    for fact in facts:
        for name, scale in fact.scales.items():
            by_channel[name].append(scale)
    usual = {name: statistics.median_low(scales) for name, scales in by_channel.items()}
    return {
        position
        for position, fact in enumerate(facts)
        if any(not usual[n] / _SCALE_FACTOR <= scale <= usual[n] * _SCALE_FACTOR for n, scale in fact.scales.items())
    }


def _without(cohort: Cohort, left_out: set[int]) -> Cohort:
    """The cohort without the scans of these object identities; equal scans listed twice are told apart by it."""
    patients = [replace(p, scans=tuple(s for s in p.scans if id(s) not in left_out)) for p in cohort.patients]
    return replace(cohort, patients=tuple(patient for patient in patients if patient.scans))
