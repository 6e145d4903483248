"""Cohort readers: BIDS, BraTS folders, Decathlon, and a table; found by looking."""

from __future__ import annotations

from pathlib import Path

from ...cohort import Cohort
from ...errors import DataError
from .bids import is_bids, read_bids
from .brats import is_brats, read_brats
from .decathlon import is_decathlon, read_decathlon
from .table import is_table, read_table, write_table

__all__ = ["read_cohort", "read_public", "write_table"]


def read_cohort(path: Path) -> Cohort:
    """Read whatever cohort lies at ``path``: a folder, or a CSV or TSV table.

    Nothing heavy is read: names and small tables, of images at most headers.

    Raises:
        DataError: nothing is there, no layout is recognised, or the layout's own tables are not valid.
    """
    try:
        return _read(path)
    except OSError:
        raise DataError(
            "a cohort folder that cannot be read",
            expected="permission to list it and the folders below",
            remedy="Check the permissions and that the disk is mounted.",
        ) from None


def read_public(path: Path) -> Cohort:
    """The patients of a cohort who are marked public; errors as :func:`read_cohort` and :meth:`Cohort.public`."""
    return read_cohort(path).public()


def _read(path: Path) -> Cohort:
    if is_table(path):
        return read_table(path)
    if not path.is_dir():
        raise DataError(
            "no folder and no .csv or .tsv table at the path given" if not path.exists() else "a file of another kind",
            expected="a cohort folder, or a table ending in .csv or .tsv",
            remedy="Check the path.",
        )
    if is_bids(path):
        return read_bids(path)
    if is_decathlon(path):
        return read_decathlon(path)
    if is_brats(path):
        return read_brats(path)
    raise DataError(
        "a folder in no known layout" if any(path.iterdir()) else "an empty folder",
        expected="BIDS (sub-*/[ses-*/]anat), Decathlon (imagesTr, labelsTr), BraTS (*_flair, *_t1, *_seg, ... or "
        "*-t2f, *-t1n, *-seg, ...), or a table (patient_id, scan_id, label, one column a channel)",
        remedy="Give the folder that holds the patients' folders, or write a table that names the files.",
    )
