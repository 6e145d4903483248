"""Whose label maps synthetic scans were painted from: a test patient's would make the test an open book."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ...common.cohort import Cohort
from ...common.cohorts.preparation import PreparedScans
from ...common.counted import counted
from ...common.errors import DataError
from ...common.labels.chain import CHAIN_KEY, LabelChain, LabelSource, label_digest
from ...common.labels.folder import UNDECLARED
from ...common.labels.private_name import private_scan_source, private_source
from ...common.study import Study
from ...common.volumes.nifti import nifti_stem


def refuse_test_patients_maps(
    cohort: Cohort,
    made: PreparedScans,
    test: PreparedScans,
    test_scans: Iterable[str],
    train: PreparedScans,
    train_scans: Iterable[str],
    study: Study,
    secret: bytes | None,
    say: Callable[[str], None],
) -> None:
    """Find that no synthetic scan was painted from a test patient's label map, as it is or edited.

    A map as it is tells itself. The source of an edited one, and of one that was inferred from a scan, is named by a
    hash that only the site's secret gives. What has no chain is of nobody who could be named here.

    Args:
        cohort: The synthetic one.
        made: The same, prepared.
        test: Real patients that nothing was trained on.
        test_scans: Identifiers of their scans, as ``labels infer`` hashes them.
        train: Real patients that the generator trained on; their maps may be edited.
        train_scans: Identifiers of their scans.
        study: Labels.
        secret: The site's; None where it was not given.
        say: Told how many scans could not be looked into.

    Raises:
        DataError: one was.
    """
    values = np.asarray(study.label_values, dtype=np.uint8)

    def maps(scans: PreparedScans) -> Iterator[NDArray[np.uint8]]:
        return (values[np.asarray(classes)] for classes in scans.classes)

    digests = {label_digest(labels) for labels in maps(test)}
    if any(label_digest(labels) in digests for labels in maps(made)):
        raise _of_a_test_patient("a synthetic scan with the label map of a test patient")
    private = [{s.name for s in sources if s.kind == "private"} for sources in _sources(cohort)]
    of_test, of_train = (
        {private_source(labels, secret).name for labels in maps(scans)} if secret else set() for scans in (test, train)
    )
    if secret:
        of_test |= {private_scan_source(scan, secret).name for scan in test_scans}
        of_train |= {private_scan_source(scan, secret).name for scan in train_scans}
    if any(names & of_test for names in private):
        raise _of_a_test_patient("a synthetic scan painted from an edited or inferred label map of a test patient")
    untold = sum(not names <= of_train for names in private)
    if untold:
        named = set().union(*private) - {UNDECLARED}
        if not secret:
            why = "only --site-secret could show"
        elif named and not named & of_train:
            why = (
                "nothing can show: no scan was named with this secret. Give the file that 'labels edit' was given, or"
                " that 'labels infer' wrote"
            )
        else:
            why = "nothing shows"
        say(
            f"--synthetic: {counted(untold, 'scan')} painted from private label maps; that none is a test patient's,"
            f" {why}"
        )


def _sources(cohort: Cohort) -> Iterator[tuple[LabelSource, ...]]:
    """Of each scan whose sidecar tells a chain; a cohort that was not generated has none."""
    for scan in cohort.scans:
        if scan.label is None:
            continue
        sidecar: Path = scan.label.with_name(f"{nifti_stem(scan.label)}.json")
        try:
            content = json.loads(sidecar.read_text(encoding="utf-8"))
            yield LabelChain.model_validate(content[CHAIN_KEY]).sources()
        except (OSError, ValueError, KeyError, TypeError, ValidationError, RecursionError):
            continue


def _of_a_test_patient(found: str) -> DataError:
    return DataError(
        found,
        expected="label maps of public sources, or of patients whom the generator trained on",
        remedy="Leave test patients out of what is edited and painted: their coin records name them.",
    )
