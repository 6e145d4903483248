"""A CSV or TSV table of scans that stay where they are.

Columns ``patient_id, scan_id, label``, optionally ``site``, and one a channel. A cell holds a path,
relative to the table or absolute; ``file.nii.gz#2`` is the third channel of a 4-D file; an empty
cell means the scan lacks it. A lookup ``<table>_dseg.tsv`` (``index``, ``name``) beside it names the
label values.
"""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path

from ...atomic import write_atomic
from ...cohort import ChannelSource, Cohort, Scan
from ...errors import DataError
from .assembly import Participants, assemble, participants_of, read_label_names, read_rows
from .channel_names import canonical_channel

_FIXED = ("patient_id", "scan_id", "label", "site")


def is_table(path: Path) -> bool:
    """Whether the path is a table file by its name."""
    return path.suffix.lower() in (".csv", ".tsv") and path.is_file()


def read_table(path: Path) -> Cohort:
    """Read a table cohort; the files it names are not opened.

    Raises:
        DataError: a column is missing, two columns mean one channel, or a row names no patient or scan.
    """
    header, rows = read_rows(path)
    missing = [name for name in _FIXED[:3] if name not in header]
    columns = {name: canonical_channel(name) for name in header if name not in _FIXED}
    if missing or not columns or len(set(columns.values())) != len(columns):
        raise DataError(
            f"a cohort table without the column '{missing[0]}'"
            if missing
            else "a cohort table without a channel column, or with two columns for one channel",
            expected="the columns patient_id, scan_id, label, one a channel, and optionally site",
            remedy="Mend the header line; a cell may be empty, a column may not be missing.",
        )
    if any(not row["patient_id"] or not row["scan_id"] for row in rows):
        raise DataError(
            "a row of the cohort table without a patient_id or scan_id",
            expected="both in every row",
            remedy="Fill them in; scans of one patient share its patient_id.",
        )
    owners: dict[str, set[str]] = {}
    for row in rows:
        owners.setdefault(row["scan_id"], set()).add(row["patient_id"])
    # Many cohorts number each patient's scans from one: then a scan is named by its patient too.
    shared = any(len(patients) > 1 for patients in owners.values())
    scans = [
        Scan(
            scan_id=f"{row['patient_id']}_{row['scan_id']}" if shared else row["scan_id"],
            patient_id=row["patient_id"],
            channels={name: _source(path.parent, row[column]) for column, name in columns.items() if row[column]},
            label=path.parent / row["label"] if row["label"] else None,
        )
        for row in rows
    ]
    return assemble(
        path.parent,
        "table",
        scans,
        participants=_sites(rows),
        label_names=read_label_names([_lookup_path(path)]),
    )


def write_table(path: Path, cohort: Cohort) -> None:
    """Write a table that views a cohort's scans in place, e.g. to pass some patients on as a COHORT path.

    Raises:
        DataError: the name ends neither in ``.csv`` nor ``.tsv``.
        StorageError: the disk is full, read-only or forbidden.
    """
    write_atomic(path, table_bytes(path, cohort))
    if cohort.label_names:
        lookup = [["index", "name"], *[[str(value), name] for value, name in sorted(cohort.label_names.items())]]
        write_atomic(_lookup_path(path), _text(_lookup_path(path), lookup))


def table_bytes(path: Path, cohort: Cohort) -> bytes:
    """What :func:`write_table` writes to ``path``; a cohort gives the same bytes whenever it is read.

    Paths are relative to the table where the file lies below its folder, else absolute.

    Raises:
        DataError: the name ends neither in ``.csv`` nor ``.tsv``.
    """
    if path.suffix.lower() not in (".csv", ".tsv"):
        raise DataError("a table of another kind", expected="a name ending in .csv or .tsv", remedy="Rename it.")
    folder = Path(os.path.abspath(path.parent))
    rows = [
        [patient.patient_id, scan.scan_id, _cell(folder, scan.label), patient.site or ""]
        + [_cell(folder, scan.channels.get(name)) for name in cohort.channels]
        for patient in cohort.patients
        for scan in patient.scans
    ]
    return _text(path, [["patient_id", "scan_id", "label", "site", *cohort.channels], *rows])


def _lookup_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}_dseg.tsv")


def _text(path: Path, rows: list[list[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def _source(folder: Path, cell: str) -> ChannelSource:
    indexed = re.fullmatch(r"(.+)#(\d{1,4})", cell)
    if indexed:
        return ChannelSource(folder / indexed[1], int(indexed[2]))
    return ChannelSource(folder / cell)


def _cell(folder: Path, source: ChannelSource | Path | None) -> str:
    if source is None:
        return ""
    path = Path(os.path.abspath(source if isinstance(source, Path) else source.path))
    index = None if isinstance(source, Path) else source.index
    shown = path.relative_to(folder) if path.is_relative_to(folder) else path
    return str(shown) if index is None else f"{shown}#{index}"


def _sites(rows: list[dict[str, str]]) -> Participants:
    """One site a patient; a patient under two sites counts as listed twice."""
    pairs = dict.fromkeys((row["patient_id"], row["site"]) for row in rows if row.get("site"))
    return participants_of(pairs)
