"""Whose patients a site has, where one machine holds several sites' cohorts: its own rows, and no scan twice.

Only a simulation and the demo can look across sites; in a federation nobody sees two hospitals' patients.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..common.cohort import Cohort
from ..common.cohorts.layouts import read_cohort
from ..common.cohorts.layouts.table import table_bytes, write_table
from ..common.errors import ConfigError, DataError, PolicyRefused
from ..common.storage import storage_errors


@dataclass(frozen=True)
class OwnCohort:
    """What a site has.

    Attributes:
        path: The cohort as given.
        cohort: Its own patients of it; None where it cannot be read, which is for its site to say.
        shared: Whether the cohort holds other sites' patients too.
    """

    path: Path
    cohort: Cohort | None
    shared: bool

    def read(self) -> Cohort:
        """Its own patients. Raises DataError where the cohort cannot be read."""
        return self.cohort or read_cohort(self.path)

    def placed(self, table: Path) -> Path:
        """The path that its site trains on: a table of its own patients where the cohort is shared.

        Raises:
            PolicyRefused: the table is there and views other patients.
            StorageError: the disk is full, read-only or forbidden.
        """
        if self.cohort is None or not self.shared:
            return self.path
        view_in_place(table, self.cohort)
        return table


def own_cohorts(sites: Mapping[str, Path]) -> dict[str, OwnCohort]:
    """Give each site its own patients; nothing is written.

    Args:
        sites: Site name to cohort.

    Raises:
        ConfigError: a cohort names several sites, or some patients' site, and the one asked for is not among them.
        DataError: two sites hold the same scan.
    """
    whole = {name: _read(path) for name, path in sites.items()}
    own = {name: _rows_of(name, cohort) for name, cohort in whole.items() if cohort is not None}
    _refuse_shared_scans(own)
    return {name: OwnCohort(path, own.get(name), own.get(name) is not whole[name]) for name, path in sites.items()}


def view_in_place(table: Path, cohort: Cohort) -> None:
    """Write a table that views these patients where they lie, or find that it does already.

    Raises:
        PolicyRefused: it views other patients or files.
        StorageError: the disk is full, read-only or forbidden.
    """
    if not table.exists():
        write_table(table, cohort)
    with storage_errors():
        found = table.read_bytes()
    if found != table_bytes(table, cohort):
        raise PolicyRefused(
            "a cohort that changed since the run began: the folder holds a site's table of other patients or files",
            expected="the cohort it was begun with, unchanged",
            remedy="Give the cohort as it was, or begin a new run with roles of its own; of a privacy budget, what was"
            " spent stays spent.",
        )


def _read(path: Path) -> Cohort | None:
    try:
        return read_cohort(path)
    except DataError:
        return None


def _rows_of(name: str, cohort: Cohort) -> Cohort:
    """The site's part of a cohort of several sites; the same object where all are of one, whatever its name."""
    parts = cohort.by_site()
    if len(parts) == 1:
        return cohort
    if name not in parts:
        named = [site for site in parts if site]
        raise ConfigError(
            f"a cohort that names sites, none of them '{name}'",
            expected=f"one of its sites: {', '.join(named)}",
            remedy=f"Name the site as its cohort does, for example --site {named[0]}=COHORT.",
        )
    return parts[name]


def _refuse_shared_scans(cohorts: Mapping[str, Cohort]) -> None:
    """Compare channel files across sites, byte for byte; sizes first, so that few files are read."""
    holders: dict[int, dict[Path, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, cohort in cohorts.items():
        for path in {source.path.resolve() for scan in cohort.scans for source in scan.channels.values()}:
            size = _size(path)
            if size:  # an empty or absent file is the cohort check's to report
                holders[size][path].add(name)
    for files in holders.values():
        if len(set().union(*files.values())) < 2:
            continue
        sites: dict[bytes, set[str]] = defaultdict(set)
        for path, names in files.items():
            sites[_digest(path)] |= names
        sites.pop(b"", None)
        shared = next((names for names in sites.values() if len(names) > 1), None)
        if shared:
            raise DataError(
                f"the same scan at sites {' and '.join(sorted(shared))}",
                expected="patients of one site each: one trained on at two sites counts twice and escapes the audit",
                remedy="Give each site its own patients, or one cohort whose participants.tsv names their sites.",
            )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""
