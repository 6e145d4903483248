"""The check of the real cohorts beside this checkout, where they are at hand."""

from pathlib import Path

import pytest

from fedphantom.common.cohorts.check import check_cohort
from fedphantom.common.cohorts.layouts import read_cohort

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared real volumes")
def test_real_hippocampi_are_usable_and_their_scales_are_remarked_on() -> None:
    cohort = read_cohort(SHARED / "hippocampus")
    assert {site: len(part.patients) for site, part in cohort.by_site().items()} == {
        "A": 36,
        "B": 54,
        "C": 54,
        "public": 16,
    }
    report = check_cohort(cohort)
    assert report.labels == (0, 1, 2)
    assert len(report.usable.patients) == 160
    assert [p.code for p in report.problems] == ["intensity-scale"]
    eight_bit = {scan.scan_id for scan in cohort.by_site()["A"].scans}
    assert eight_bit <= set(report.problems[0].identifiers)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared real volumes")
def test_real_multiparametric_scans_are_told_apart_by_spacing_scale_and_header_text() -> None:
    report = check_cohort(read_cohort(SHARED / "multiparametric"))
    assert report.channels == ("T1", "T1c", "T2", "FLAIR")
    assert report.ok
    assert [p.code for p in report.problems] == ["mixed-spacing", "intensity-scale", "identifying-header"]
