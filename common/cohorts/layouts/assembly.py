"""What every layout's reader does last: scans to patients, sorted; and the small tables cohorts carry."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...cohort import Cohort, Patient, Scan
from ...errors import DataError
from .channel_names import in_order

DUPLICATE_PATIENT = "duplicate-patient"
"""Stray code: a patient listed twice, or under two sites."""
UNPLACED_FILE = "unplaced-file"
"""Stray code: an image or label map that no scan could take."""
NO_SCAN = "no-scan"
"""Stray code: a patient who is listed, or has a folder, but no scan."""


@dataclass(frozen=True)
class Participants:
    """``participants.tsv``: the site of each patient, how many rows repeat a patient, and who is listed."""

    sites: Mapping[str, str] = field(default_factory=dict)
    repeated: int = 0
    listed: frozenset[str] = frozenset()


def assemble(
    root: Path,
    layout: str,
    scans: Iterable[Scan],
    *,
    participants: Participants | None = None,
    label_names: Mapping[int, str] | None = None,
    unplaced: int = 0,
    expected: Iterable[str] = (),
) -> Cohort:
    """Group scans by patient, sort patients, scans and channels; count what could not be placed.

    Patients ``expected`` by their folders, or listed among participants, without a scan are counted too: an export that
    failed looks like that. A scan identifier given twice stays twice: the cohort check reports it and keeps the first.

    Raises:
        DataError: there is no scan at all.
    """
    by_patient: dict[str, list[Scan]] = {}
    for scan in scans:
        ordered = {name: scan.channels[name] for name in in_order(scan.channels)}
        by_patient.setdefault(scan.patient_id, []).append(replace(scan, channels=ordered))
    if not by_patient:
        raise DataError(
            f"a {layout} layout without a single scan",
            expected="at least one NIfTI file (.nii or .nii.gz) in its place",
            remedy="Check the folder; the layouts are described in the documentation.",
        )
    known = participants or Participants()
    empty = (known.listed | set(expected)) - by_patient.keys()
    stray = Counter({DUPLICATE_PATIENT: known.repeated, UNPLACED_FILE: unplaced, NO_SCAN: len(empty)})
    return Cohort(
        root=root,
        layout=layout,
        channels=in_order(name for scans in by_patient.values() for scan in scans for name in scan.channels),
        patients=tuple(
            Patient(patient, tuple(sorted(by_patient[patient], key=lambda s: s.scan_id)), known.sites.get(patient))
            for patient in sorted(by_patient)
        ),
        label_names=dict(sorted((label_names or {}).items())),
        stray=tuple((code, count) for code, count in sorted(stray.items()) if count),
    )


def read_rows(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """A CSV or TSV table: its header and its rows, cells stripped, empty lines left out.

    Tabs separate in ``.tsv``; in ``.csv`` commas, or semicolons where the header has no comma.

    Raises:
        DataError: not readable as UTF-8 text, no header, or a row with more cells than the header.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise DataError(
            "a table that cannot be read",
            expected="UTF-8 text with one header line",
            remedy="Check the file's permissions, or save it again as UTF-8.",
        ) from None
    first = text.split("\n", 1)[0]
    comma = ";" if "," not in first and ";" in first else ","
    lines = csv.reader(io.StringIO(text), delimiter="\t" if path.suffix.lower() == ".tsv" else comma)
    try:
        cells = [[cell.strip() for cell in line] for line in lines if any(cell.strip() for cell in line)]
    except csv.Error:
        cells = []
    header = tuple(cells[0]) if cells else ()
    if not header or len(set(header)) != len(header) or any(len(line) > len(header) for line in cells[1:]):
        raise DataError(
            "a table with no header, a column name given twice, or a row longer than the header",
            expected="one header line of distinct column names, then one row a line",
            remedy="Mend the table; commas separate in .csv, tabs in .tsv.",
        )
    return header, [dict(zip(header, [*line, *[""] * len(header)], strict=False)) for line in cells[1:]]


def read_participants(root: Path, *, prefix: str = "") -> Participants:
    """The ``site`` column of ``participants.tsv``, where there is one; ``n/a`` and empty mean no site.

    Args:
        root: The cohort's folder.
        prefix: Taken off each ``participant_id`` (``sub-`` in BIDS).
    """
    path = root / "participants.tsv"
    if not path.is_file():
        return Participants()
    header, rows = read_rows(path)
    if "participant_id" not in header:
        raise DataError(
            "a participants.tsv without the column 'participant_id'",
            expected="the columns 'participant_id' and, to split by site, 'site', separated by tabs",
            remedy="Name the column or remove the file.",
        )
    return participants_of((row["participant_id"].removeprefix(prefix), row.get("site", "")) for row in rows)


def participants_of(pairs: Iterable[tuple[str, str]]) -> Participants:
    """Sites from (patient, site) pairs, one a listed patient; the first site named stays."""
    sites: dict[str, str] = {}
    listed: set[str] = set()
    repeated = 0
    for patient, site in pairs:
        repeated += patient in listed
        listed.add(patient)
        if site and site.lower() != "n/a":
            sites.setdefault(patient, site)
    return Participants(sites, repeated, frozenset(listed))


def read_label_names(candidates: Sequence[Path]) -> dict[int, str]:
    """Label value to name from the first BIDS lookup table (columns ``index``, ``name``) that is there."""
    for path in candidates:
        if not path.is_file():
            continue
        header, rows = read_rows(path)
        if {"index", "name"} <= set(header):
            return {int(row["index"]): row["name"] for row in rows if row["index"].isdecimal()}
    return {}
