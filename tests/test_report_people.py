"""The page says REAL only where a person was scanned, and procedural where the cohort itself says so."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import pytest
from report_content import a_sample, a_study, content, words_of

from fedphantom.privacy.report.content import ReportContent
from fedphantom.privacy.report.page import render_report
from fedphantom.privacy.report.people import People, PeopleCounts, arm_meaning, arm_name

PROCEDURAL = PeopleCounts(real=0, procedural=72)


def with_neighbours(*procedural: bool, people: PeopleCounts = PROCEDURAL) -> ReportContent:
    study = a_study()
    sample = replace(a_sample(study, n=len(procedural)), nearest_procedural=procedural)
    return content(study, synthetic=sample, people=people)


def slices_of(page: str) -> str:
    """The section of slices, captions and descriptions of pictures included."""
    return unescape(page[page.index('id="slices"') : page.index('id="limits"')])


def test_beside_a_procedural_neighbour_nothing_is_called_real() -> None:
    page = render_report(with_neighbours(True, True), "internal")
    slices = slices_of(page)
    assert not re.search(r"\breal\b", slices, flags=re.IGNORECASE)
    assert slices.count("PROCEDURAL PATIENT: the scan most like it") == 2 * 3
    assert slices.count("T1, procedural patient</figcaption>") == 2 * 3
    assert "T1 of a procedural patient beside synthetic volume 1, the scan most like it; axial slice" in slices


@pytest.mark.parametrize("rendition", ["internal", "shareable"])
def test_where_all_patients_are_procedural_tables_and_sentences_say_so(rendition: str) -> None:
    page = words_of(render_report(with_neighbours(True, True), rendition))  # type: ignore[arg-type]
    assert "PROCEDURAL PATIENTS : no person was scanned for this run." in page
    assert "29 procedural patients whom none of them had seen" in page
    assert "procedural the procedural training patients" in page
    assert "relative to ‘procedural’" in page
    assert "Patients 72, all procedural: no person was scanned" in page
    told = page.replace("with real patients such a page must not leave the site", "").replace(
        "known to be one is real", ""
    )
    assert not re.search(r"\breal\b", told, flags=re.IGNORECASE)


def test_a_neighbour_of_whom_nobody_knows_counts_as_real() -> None:
    page = render_report(content(), "internal")
    assert "INTERNAL: this page shows scans of real patients. It must not leave the site." in words_of(page)
    assert slices_of(page).count("REAL PATIENT: the scan most like it") == 2 * 3
    assert "procedural patient" not in slices_of(page)


def test_each_neighbour_is_called_what_its_own_patient_is() -> None:
    page = render_report(with_neighbours(True, False, people=PeopleCounts(real=100, procedural=44)), "internal")
    first, second = slices_of(page).split("Synthetic volume 2")
    assert "real patient" not in first.lower()
    assert "procedural patient" not in second.lower()
    assert "INTERNAL: this page shows scans of real patients" in words_of(page)
    assert "for 44 of 144 patients no person was scanned" in words_of(page)
    assert "29 patients, some real and some procedural, whom none of them had seen" in words_of(page)


@pytest.mark.parametrize(
    ("people", "counts", "kind"),
    [
        (People({"a", "b"}, {"a", "b"}), PeopleCounts(0, 2), "procedural"),
        (People({"a", "b"}, {"b"}), PeopleCounts(1, 1), "mixed"),
        (People({"a", "b"}, {"elsewhere"}), PeopleCounts(2, 0), "real"),
        (People(set(), set()), PeopleCounts(0, 0), "real"),
    ],
    ids=["all", "some", "others", "nobody"],
)
def test_patients_not_known_to_be_procedural_are_real(people: People, counts: PeopleCounts, kind: str) -> None:
    assert people.counts() == counts
    assert counts.kind == kind


def test_an_arm_that_nobody_described_keeps_its_name_and_says_nothing() -> None:
    assert [arm_name(name, "procedural") for name in ("real+synthetic", "surreal")] == [
        "procedural+synthetic",
        "surreal",
    ]
    assert arm_meaning("surreal", "real") == ""
