"""The last look at a release's texts before they are signed: whose name, and which day, may stand in one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_release import Releasable, release_study

from fedphantom.common.cohorts.roles import draw_roles
from fedphantom.common.errors import VerificationFailed
from fedphantom.common.labels.chain import LabelSource, PublicSources
from fedphantom.common.study import RolesTable
from fedphantom.common.tensor_file import encode
from fedphantom.privacy.release.text_scan import TextScan

PUBLIC = PublicSources(
    sources=(LabelSource(kind="public", name="atlas of 2019-03-04", licence="CC0-1.0", sha256="0" * 64),)
)
CREATED = "2026-11-25T12:00:00Z"


@pytest.fixture
def scan(tmp_path: Path) -> TextScan:
    for site, patients in (("mercy", ["JD-0042", "7", "P07", "Li", "T1", "A1"]), ("B", ["LONGENOUGH"])):
        folder = tmp_path / "sites" / site
        folder.mkdir(parents=True)
        (folder / "site.toml").write_text(f'name = "{site}"\ncohort = "c"\nstudy = "s"\n')
        record = draw_roles(patients, RolesTable(), np.random.default_rng(0))
        (folder / "coins.json").write_text(record.to_json())
    return TextScan.of(tmp_path, release_study(), PUBLIC, [CREATED])


FOUND = {
    "a long identifier in a sentence": ("a.json", {"reasons": ["The copy of JD-0042 was removed."]}, "identifier"),
    "a short one of letters and digits": ("a.json", {"reasons": ["The copy of P07 was removed."]}, "identifier"),
    "a number as a whole text": ("a.json", {"of": "7"}, "identifier"),
    "two letters as a whole text": ("a.json", {"of": ["Li"]}, "identifier"),
    "an identifier as a key": ("a.json", {"P07": 1}, "identifier"),
    "a site's name": ("a.json", {"reasons": ["Site mercy is small."]}, "site's name"),
    "a site of one letter as a whole text": ("a.json", {"site": "B"}, "site's name"),
    "a day": ("a.json", {"reasons": ["Scanned 2024-05-17."]}, "date"),
    "a day and a time": ("a.json", {"at": "2024-05-17T08:00:00Z"}, "date"),
    "a day as DICOM writes it": ("a.json", {"AcquisitionDate": "20240517"}, "date"),
}


@pytest.mark.parametrize(("name", "content", "what"), FOUND.values(), ids=FOUND.keys())
def test_what_may_not_stand_in_a_text_is_found_and_not_repeated(
    scan: TextScan, name: str, content: object, what: str
) -> None:
    problem = scan.problem(name, json.dumps(content).encode()) or ""
    assert what in problem
    assert not any(secret in problem for secret in ("0042", "P07", "mercy", "2024"))


DATES = [
    "12.03.1999",
    "03/12/1999",
    "2024/03/07",
    "1898-03-07",
    "12 March 1999",
    "March 12, 1999",
    "7 Sept. 2024",
    "20240307",
]


@pytest.mark.parametrize("date", DATES)
def test_dates_are_found_however_they_are_written(scan: TextScan, date: str) -> None:
    assert "a date" in (scan.problem("audit.json", json.dumps({"reason": f"seen on {date}, asked"}).encode()) or "")


@pytest.mark.parametrize("text", ["patient jd-0042", "seen at MERCY", "Mercy General"])
def test_names_are_found_in_capitals_and_without(scan: TextScan, text: str) -> None:
    assert scan.problem("audit.json", json.dumps({"reason": text}).encode())


INNOCENT = {
    "the day of packing": f"Packed {CREATED}.",
    "a date of a public source": "atlas of 2019-03-04",
    "versions and intervals": "fedphantom 0.1.0, 12.5 of 19.75, .88 [.75, .95], 1/10 of 2000, 97.5 %",
    "numbers in a sentence": "Only 7 holdout patients.",
    "an attack that a patient is named like": "A1 did: it needs the T1 image.",
    "a digest": "20240517" * 8,
    "a word that holds an identifier": "XP07 and P071",
}


@pytest.mark.parametrize("text", INNOCENT.values(), ids=INNOCENT.keys())
def test_what_a_release_says_on_purpose_raises_no_alarm(scan: TextScan, text: str) -> None:
    assert scan.problem("a.json", json.dumps({"text": text, "seed": 20240517}).encode()) is None
    assert scan.problem("README.md", f"# Release\n\n{text}\n".encode()) is None


def test_weights_are_looked_through_header_and_numbers(scan: TextScan) -> None:
    plain = {"w": np.zeros(4, np.float32)}
    assert scan.problem("g.safetensors", encode(plain, {"dp": "none"})) is None
    assert "identifier" in (scan.problem("g.safetensors", encode(plain, {"dp": "JD-0042"})) or "")
    study = json.dumps({"name": "of P07"})
    assert "identifier" in (scan.problem("g.safetensors", encode(plain, {"study": study})) or "")
    hidden = {"w": np.frombuffer(b"..LONGENOUGH", np.float32)}
    assert "numbers of a weights file" in (scan.problem("g.safetensors", encode(hidden, {"dp": "none"})) or "")


def test_a_sites_name_among_the_numbers_of_the_weights_is_found(scan: TextScan) -> None:
    named = replace(scan, sites=frozenset({"mercy-general"}))
    hidden = encode({"w": np.frombuffer(b".mercy-general..", np.float32)}, {"dp": "none"})
    assert "numbers of a weights file" in (named.problem("g.safetensors", hidden) or "")
    assert scan.problem("g.safetensors", hidden) is None


def test_a_site_that_the_study_names_in_public_may_stand_in_its_weights(tmp_path: Path) -> None:
    folder = tmp_path / "sites" / "mercy"
    folder.mkdir(parents=True)
    (folder / "site.toml").write_text('name = "mercy"\ncohort = "c"\nstudy = "s"\n')
    study = release_study()
    federation = study.federation.model_copy(update={"weighting": "declared", "declared_weights": {"mercy": 1.0}})
    told = study.model_copy(update={"federation": federation})
    assert TextScan.of(tmp_path, study, PUBLIC, [CREATED]).sites == {"mercy"}
    assert not TextScan.of(tmp_path, told, PUBLIC, [CREATED]).sites


def test_a_date_or_a_sites_name_stops_a_release(releasable: Releasable) -> None:
    (releasable.run / "sites" / "mercy").mkdir(parents=True)
    (releasable.run / "sites" / "mercy" / "site.toml").write_text('name = "mercy"\ncohort = "c"\nstudy = "s"\n')
    for reason, what in (("Site mercy is small.", "site's name"), ("Seen on 2024-05-17.", "date")):
        releasable.write_audit(reasons=[reason])
        with pytest.raises(VerificationFailed, match=what):
            releasable.pack()
    releasable.write_audit()
    releasable.pack()
