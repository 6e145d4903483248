"""A cohort's anatomy, scan by scan, as a private BIDS derivative that views the cohort's images in place.

sub-*/[ses-*/]anat/*_dseg.nii.gz   inferred anatomy, drawn labels on top, where the scan lies
sub-*/[ses-*/]anat/*_dseg.json     confidence, network, the label chain's private source
cohort.tsv                         the cohort's images with these label maps: a COHORT for any command
confidence.tsv                     every scan, its confidence, and the code for which it was left out
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..atomic import atomic_folder, for_owner_alone, write_atomic
from ..cohort import Cohort, Patient, Scan
from ..cohorts.check import PROBLEMS
from ..cohorts.layouts import write_table
from ..cohorts.layouts.bids import DESCRIPTION, LABEL_LOOKUP, LABEL_SUFFIX
from ..cohorts.preparation import needed_channels
from ..cohorts.scan_check import inspect_scan
from ..counted import counted
from ..errors import DataError
from ..gan.generation import LoadedGenerator
from ..labels.chain import CHAIN_KEY, LabelChain
from ..labels.private_name import private_scan_source
from ..labels.stated_origin import PRIVATE_KEY, TRAINED_ON_KEY
from ..study import Study
from ..volumes.nifti_writer import write_private_label_map
from .drawn import known_values
from .scan import InferredScan, infer_scan

LOW_CONFIDENCE = "low-confidence"
"""Code of a scan whose confidence is below the threshold."""
THRESHOLD = 0.8
"""Least confidence of a label map that is written, unless another is asked for (docs/experiments.md)."""
COHORT_TABLE = "cohort.tsv"
CONFIDENCES = "confidence.tsv"

_NOT_NEEDED = {"missing-label", "empty-label"}
"""What the cohort check holds against a scan that needs no label map here."""

_OUTSIDE = "label-outside-study"
"""Code of a scan whose label map holds a value that nothing gives a meaning."""
_NAMED = 10
"""Such values that a message names."""

Progress = Callable[[int, int], None]
"""(scans done, scans in all)."""


@dataclass(frozen=True)
class InferenceReport:
    """What became of a cohort's scans; counts and figures of no single scan.

    Attributes:
        scans: Scans found.
        written: Label maps written.
        left_out: Code to number of scans left out for it.
        confidence: Lowest and median of those written.
        threshold: Least that was asked for.
        with_drawn: Label maps written on which something lies that the hospital drew.
        drawn: Each label that may lie on top, with the number of label maps written on which it does.
    """

    scans: int
    written: int
    left_out: Mapping[str, int]
    confidence: tuple[float, float]
    threshold: float
    with_drawn: int
    drawn: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """The object that ``labels infer --json`` prints, less the network."""
        low, median = (round(value, 4) for value in self.confidence)
        return {
            "scans": self.scans,
            "written": self.written,
            "left_out": dict(self.left_out),
            "confidence": {"lowest": low, "median": median, "threshold": self.threshold},
            "with_drawn_labels": self.with_drawn,
            "drawn_labels": dict(self.drawn),
        }

    def text(self) -> str:
        """The same for a person."""
        low, median = self.confidence
        lines = [
            f"{self.written} of {counted(self.scans, 'label map')} written; confidence {median:.2f} in the median,"
            f" {low:.2f} at the lowest ({self.threshold:g} asked)"
        ]
        if self.drawn:
            each = ", ".join(f"{name} {number}" for name, number in self.drawn.items())
            lines.append(f"{self.with_drawn} of them with labels that the hospital drew ({each}) on top")
        if self.left_out:
            lines.append(f"left out: {_counted(self.left_out)}; {CONFIDENCES} names the scans")
        lines.append("These label maps are private: nothing painted on them is released.")
        return "\n".join(lines)


def infer_cohort(
    cohort: Cohort,
    network: LoadedGenerator,
    out: Path,
    *,
    secret: bytes,
    threshold: float = THRESHOLD,
    remapping: Mapping[str, tuple[int, ...]] | None = None,
    progress: Progress = lambda done, total: None,
) -> InferenceReport:
    """Infer every scan's anatomy and write it under the labels that the cohort holds.

    Args:
        cohort: Scans with one or more of the network's channels.
        network: From images to labels.
        out: A new or empty folder; it appears when it is whole.
        secret: The site's.
        threshold: Least confidence of a label map that is written.
        remapping: What the values of the cohort's label maps mean, where they are not the study's own.
        progress: Called after each scan.

    Raises:
        DataError: no scan is left.
        StorageError: ``out`` holds something already, or the disk is full, read-only or forbidden.
    """
    table = remapping or {}
    known = known_values(cohort, network.study, table)
    fates: list[tuple[Scan, float | None, str]] = []
    drawn: list[tuple[str, ...]] = []
    kept: list[Patient] = []
    outside = Counter[int]()
    with atomic_folder(out) as folder:
        for_owner_alone(folder)
        for patient in cohort.patients:
            scans = []
            for number, scan in enumerate(patient.scans, start=1):
                code, inferred, unknown = _judged(scan, cohort.root, network, table, known, threshold)
                outside.update(unknown if code == _OUTSIDE else ())
                fates.append((scan, inferred.confidence if inferred else None, code))
                if inferred and not code:
                    stem = _stem(patient, number)
                    drawn.append(inferred.drawn)
                    scans.append(replace(scan, label=_write_scan(folder, stem, scan, inferred, network, secret)))
                progress(len(fates), len(cohort.scans))
            kept += [replace(patient, scans=tuple(scans))] if scans else []
        report = _report(fates, drawn, network.study.network.overlay, threshold)
        if not kept:
            raise _nothing(report, network.study, outside, known if table else None)
        _write_tables(folder, replace(cohort, patients=tuple(kept)), fates, network.study)
    return report


def _judged(
    scan: Scan,
    root: Path,
    network: LoadedGenerator,
    table: Mapping[str, tuple[int, ...]],
    known: frozenset[int],
    threshold: float,
) -> tuple[str, InferredScan | None, frozenset[int]]:
    """The code for which a scan is left out ('' where it is not), what was inferred where it could be, and values of
    its label map without a meaning."""
    facts = inspect_scan(scan, root, needed_channels(scan, network.study), known)
    errors = [code for code in PROBLEMS if code in facts.codes - _NOT_NEEDED and PROBLEMS[code][0] == "error"]
    if errors:
        return errors[0], None, facts.outside
    inferred = infer_scan(scan, network, table)
    return ("" if inferred.confidence >= threshold else LOW_CONFIDENCE), inferred, facts.outside


def _nothing(
    report: InferenceReport, study: Study, outside: Mapping[int, int], named: frozenset[int] | None
) -> DataError:
    """What kept most scans from being written.

    Args:
        report: With a code for every scan.
        study: The network's.
        outside: Values without a meaning to the scans that hold them.
        named: The values in the table given with ``--remapping``; None without one.
    """
    code = max(report.left_out, key=lambda one: report.left_out[one], default="")
    found = f"no scan whose anatomy could be inferred: {_counted(report.left_out)}"
    expected, remedy = "one or more scans without such a problem", "Run 'fedphantom cohort check' on the cohort."
    if outside:
        values = sorted(outside)
        more = f" and {len(values) - _NAMED} more" if len(values) > _NAMED else ""
        what = "without a meaning" if named is None else "outside the table of --remapping"
        found += f"; values {what}: {', '.join(map(str, values[:_NAMED]))}{more}"
    if code == "missing-channel":
        expected = f"scans with one or more of the channels that the network reads: {', '.join(study.channels)}"
    elif code == LOW_CONFIDENCE:
        expected = f"one or more scans with a confidence of {report.threshold:g} or more (--threshold)"
        remedy = "Check that the scans are skull-stripped, and look at one; a lower --threshold writes guesses."
    elif code == _OUTSIDE and named is None:
        remedy = "Say with --remapping what the values of the cohort's label maps mean."
    elif code == _OUTSIDE:
        expected = f"values that the table names: {', '.join(map(str, sorted(named or ())))}"
        remedy = "Add these values to the file, each under the label that it means; those of no use under background."
    return DataError(found, expected=expected, remedy=remedy)


def _stem(patient: Patient, number: int) -> str:
    """BIDS names hold letters and digits alone; scans of one patient are numbered as sessions."""
    subject = "sub-" + (re.sub(r"[^A-Za-z0-9]", "", patient.patient_id) or "x")
    return f"{subject}_ses-{number:02d}" if len(patient.scans) > 1 else subject


def _write_scan(
    folder: Path, stem: str, scan: Scan, inferred: InferredScan, network: LoadedGenerator, secret: bytes
) -> Path:
    subject, _, session = stem.partition("_")
    path = folder / subject / session / "anat" / f"{stem}_{LABEL_SUFFIX}.nii.gz"
    if path.exists():
        raise DataError(
            "two patients whose identifiers differ only in characters that BIDS does not allow",
            expected="identifiers that differ in letters and digits",
            remedy="Rename one of them; 'fedphantom cohort check --show-identifiers' names them.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private_label_map(path, inferred.labels, inferred.affine)
    sidecar = {
        CHAIN_KEY: LabelChain(source=private_scan_source(scan.scan_id, secret)).model_dump(mode="json"),
        "Confidence": round(inferred.confidence, 4),
        "NetworkSha256": network.sha256,
        TRAINED_ON_KEY: network.study.privacy.trained_on,
        PRIVATE_KEY: True,
    }
    write_atomic(path.with_name(f"{stem}_{LABEL_SUFFIX}.json"), _json(sidecar))
    return path


def _write_tables(folder: Path, kept: Cohort, fates: list[tuple[Scan, float | None, str]], study: Study) -> None:
    description = {
        "Name": "Anatomy inferred from images, drawn labels on top; private, not for release",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "FedPhantom", "Version": version("fedphantom")}],
    }
    write_atomic(folder / DESCRIPTION, _json(description))
    names = {value: name for name, value in study.labels.items()}
    lookup = [f"{value}\t{names[value]}" for value in study.label_values]
    write_atomic(folder / LABEL_LOOKUP, _lines(["index\tname", *lookup]))
    write_table(folder / COHORT_TABLE, replace(kept, label_names=names))
    rows = [f"{scan.scan_id}\t{'n/a' if c is None else f'{c:.4f}'}\t{code or 'n/a'}" for scan, c, code in fates]
    write_atomic(folder / CONFIDENCES, _lines(["scan_id\tconfidence\tleft_out", *rows]))


def _report(
    fates: list[tuple[Scan, float | None, str]],
    drawn: list[tuple[str, ...]],
    overlay: tuple[str, ...],
    threshold: float,
) -> InferenceReport:
    written = sorted(c for _, c, code in fates if c is not None and not code)
    left_out = Counter(code for _, _, code in fates if code)
    figures = (written[0], written[len(written) // 2]) if written else (0.0, 0.0)
    return InferenceReport(
        scans=len(fates),
        written=len(written),
        left_out=dict(sorted(left_out.items())),
        confidence=figures,
        threshold=threshold,
        with_drawn=sum(map(bool, drawn)),
        drawn={name: sum(name in names for names in drawn) for name in overlay},
    )


def _counted(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{code} ({number})" for code, number in left_out.items()) or "the cohort is empty"


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _lines(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
