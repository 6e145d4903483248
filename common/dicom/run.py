"""``cohort import-dicom``: a folder of DICOM files to a de-identified BIDS cohort, whole or absent.

What is not wanted (localisers, reports, other sequences) is left out and counted. What cannot be taken as it is stops
the import, all of it told at once, unless the site has it left out, and counted, too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..atomic import atomic_folder, for_owner_alone
from ..cohorts.identifying import text_is_identifying
from ..counted import counted
from ..errors import ConfigError, DataError, FedPhantomError, PolicyRefused, about
from ..labels.private_name import known_secret, site_secret
from ..volumes.face import NOT_SHOWN, face_finding
from .channels import ChannelRules
from .cohort_writer import ImportedCohort
from .pixels import read_voxels
from .pseudonym import pseudonym
from .reasons import REASONS, Count, Faulty
from .survey import Finding, Series, Survey, counts, look_through

_LONGEST_REASON = 300
_SHORTEST_IDENTIFIER = 3
"""Characters; initials and single digits would be found in any sentence."""

Stage = Callable[[str], Callable[[int, int], None]]


@dataclass(frozen=True)
class ImportReport:
    """What became of a folder, in numbers.

    Attributes:
        files: Looked at.
        patients, scans: Written; a scan is a study of a patient.
        channels: Channel to volumes written.
        faces: Why no face is expected, to volumes written; among them "not shown", where that was allowed.
        not_taken: Reasons and their numbers.
    """

    files: int
    patients: int
    scans: int
    channels: Mapping[str, int]
    faces: Mapping[str, int]
    not_taken: tuple[Count, ...]

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        return {
            "files": self.files,
            "patients": self.patients,
            "scans": self.scans,
            "channels": dict(self.channels),
            "faces": dict(self.faces),
            "not_taken": [count.to_json() for count in self.not_taken],
        }

    def to_text(self) -> str:
        """The same for a person."""
        channels = ", ".join(f"{name} ({number})" for name, number in self.channels.items())
        faces = ", ".join(f"{finding} ({number})" for finding, number in self.faces.items())
        lines = [
            f"{counted(self.patients, 'patient')}, {counted(self.scans, 'scan')} of {counted(self.files, 'file')}",
            f"channels: {channels}",
            f"faces: {faces}",
            *(f"not taken: {count.words}" for count in self.not_taken),
            "Label maps are still to be drawn, as *_dseg.nii.gz beside the images; then 'fedphantom cohort check'.",
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class ImportChoices:
    """What a person decides.

    Attributes:
        rules: What tells channels.
        secret: File of the site's secret, made where it does not exist.
        leave_out: Whether to go on without what cannot be taken.
        allow_faces: Why heads that are neither stripped nor defaced may be taken; None where they may not.
    """

    rules: ChannelRules
    secret: Path
    leave_out: bool = False
    allow_faces: str | None = None


def import_dicom(
    source: Path,
    out: Path,
    choices: ImportChoices,
    stage: Stage = lambda name: lambda done, total: None,
    tell: Callable[[str], None] = lambda text: None,
) -> ImportReport:
    """Import a folder.

    Args:
        source: The folder of DICOM files.
        out: A new or empty folder, not within the source.
        choices: What a person decides.
        stage: Begins a named stage and returns what reports its progress.
        tell: Takes a line that names a file, for each thing not taken. For the site's own eyes: it may name a patient.

    Raises:
        DataError: series that cannot be taken, or none that can.
        PolicyRefused: the same, where it is burned-in text or a face.
        ConfigError: a reason that could name a patient, or no secret.
        StorageError: ``out`` holds something already, or the disk is full, read-only or forbidden.
    """
    if out.resolve().is_relative_to(source.resolve()):
        raise ConfigError("OUT within SRC", expected="a folder elsewhere", remedy="Choose another folder.")
    with about("--site-secret"):
        if choices.secret.exists():
            known_secret(choices.secret)  # before any work
    with about("SRC"):
        survey = look_through(source, choices.rules, stage("reading headers"))
    with about("--allow-faces"):
        _refuse_telling_reason(choices.allow_faces, survey.identifiers)
    findings, faces = list(survey.findings), Counter[str]()
    if not choices.leave_out:
        # Faces are found in voxels, later: where something stands against the import already, none is read.
        _refuse(findings, tell)
    if not survey.series:
        _say(findings, tell)
        raise _nothing(counts(findings))
    with about("--site-secret"):
        secret = site_secret(choices.secret)
    with atomic_folder(out) as folder:
        for_owner_alone(folder)
        cohort = ImportedCohort(folder)
        progress = stage("writing volumes")
        for done, series in enumerate(survey.series, start=1):
            try:
                faces[_write(series, cohort, secret, choices)] += 1
            except Faulty as found:
                findings.append(_finding(series, found, source))
            progress(done, len(survey.series))
        if not choices.leave_out:
            _refuse(findings, tell)
        _say(findings, tell)
        report = _report(survey, cohort, choices.rules, faces, findings)
        if not cohort.scans:
            raise _nothing(report.not_taken)
        cohort.finish(_provenance(report, choices), tuple(report.channels))
    return report


def _write(series: Series, cohort: ImportedCohort, secret: bytes, choices: ImportChoices) -> str:
    """Write one volume unless it shows a face; say why it does not."""
    voxels, affine = read_voxels(series.stack), series.stack.affine
    finding = NOT_SHOWN if series.shows_features else face_finding(voxels, affine)
    if finding == NOT_SHOWN and choices.allow_faces is None:
        raise Faulty("face")
    patient = pseudonym("patient", series.patient, secret)
    cohort.add(patient, pseudonym("study", series.study, secret), series.channel, voxels, affine, finding)
    return finding


def _refuse(findings: Sequence[Finding], tell: Callable[[str], None]) -> None:
    """Stop where something is wrong that nobody has decided about; what is merely not wanted is no reason."""
    wrong = [one for one in findings if REASONS[one.code][0] != "left out"]
    if not wrong:
        return
    _say(wrong, tell)
    found = counts(wrong)
    kind: type[FedPhantomError] = PolicyRefused if any(one.kind == "refusal" for one in found) else DataError
    raise kind(
        f"series that cannot be taken ({'; '.join(one.words for one in found)})",
        expected="whole, plain, defaced or skull-stripped series whose channel is clear",
        remedy=" ".join([
            *dict.fromkeys(REASONS[one.code][2] for one in found),
            "--show-files names them; --leave-out goes on without them.",
        ]),
    )  # fmt: skip


def _nothing(not_taken: Sequence[Count]) -> DataError:
    reasons = "; ".join(count.words for count in not_taken) or "the folder is empty"
    return DataError(
        f"nothing to import ({reasons})",
        expected="at least one series of a channel that the rules name",
        remedy="Check the folder, or name other rules with --channels.",
    )


def _report(
    survey: Survey, cohort: ImportedCohort, rules: ChannelRules, faces: Mapping[str, int], findings: Sequence[Finding]
) -> ImportReport:
    return ImportReport(
        files=survey.files,
        patients=cohort.patients,
        scans=len(cohort.scans),
        channels={name: cohort.channels[name] for name in rules.channel if name in cohort.channels},
        faces=dict(sorted(faces.items())),
        not_taken=counts(findings),
    )


def _provenance(report: ImportReport, choices: ImportChoices) -> dict[str, Any]:
    """What the cohort says of its making: numbers, and the reason a person gave; no name, no date."""
    made = {key: value for key, value in report.to_json().items() if key != "not_taken"}
    left = [
        {"code": one.code, "detail": one.detail, "series": one.series, "files": one.files} for one in report.not_taken
    ]
    allowed = {"faces_allowed_because": choices.allow_faces} if choices.allow_faces is not None else {}
    return {"source": "DICOM", **made, "not_taken": left, **allowed}


def _finding(series: Series, found: Faulty, source: Path) -> Finding:
    slices = series.stack.slices
    files = len({one.path for one in slices})
    where = slices[0].path.relative_to(source)
    return Finding(found.code, found.detail, (series.patient, series.study, series.channel), files, where)


def _say(findings: Sequence[Finding], tell: Callable[[str], None]) -> None:
    for one in findings:
        tell(f"{one.code}: {one.where}" + (f" and {one.files - 1} more" if one.files > 1 else ""))


def _refuse_telling_reason(reason: str | None, identifiers: frozenset[str]) -> None:
    """A reason is written into the cohort as it stands."""
    if reason is None:
        return
    words = set(re.findall(r"\w+", reason.casefold()))
    told = [one.casefold() for one in identifiers if len(one) >= _SHORTEST_IDENTIFIER]
    named = any(one in words or (not one.isalpha() and one in reason.casefold()) for one in told)
    if not reason.strip() or len(reason) > _LONGEST_REASON or not reason.isprintable():
        found = "no reason on one line of 1 to 300 characters"
    elif named or text_is_identifying(reason):
        found = "a reason with a date, a record number or a patient's identifier in it"
    else:
        return
    raise ConfigError(
        found, expected="why faces may be there, in words that name nobody", remedy="Give another reason."
    )
