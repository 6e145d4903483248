"""A release of several hospitals' generator by their audits together: packed and approved, no folder shared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from joint_release import SITES, Joint
from officers import STRANGER, public_pem
from report_content import words_of
from site_audits import a_site_audit
from tiny_release import Releasable, release_study

from fedphantom.cli import run as fedphantom
from fedphantom.common.enrolment.signed_file import signed
from fedphantom.common.journal import Journal, read_journal
from fedphantom.common.run_result import RUN_FINISHED
from fedphantom.privacy.joint.site_extract import SITE_EXTRACT, SiteExtract
from fedphantom.privacy.page_record import note_pages
from fedphantom.privacy.policy import parse_policy


@pytest.fixture
def joint(releasable: Releasable, tmp_path: Path) -> Joint:
    return Joint.make(tmp_path / "joint", releasable)


@pytest.fixture
def combined(joint: Joint) -> Joint:
    assert joint.combine(*[joint.share(site) for site in SITES]) == 0
    return joint


def test_two_hospitals_audits_pass_together_and_their_release_is_packed_approved_and_verified(
    combined: Joint, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads(combined.audit.read_text())
    assert (told["verdict"], told["counts"]["holdout"], len(told["combined_from"])) == ("PASS", 120, 2)
    assert combined.pack() == 0
    assert combined.verify() == 4
    for site in SITES:
        assert combined.approve(site, "--audit", str(combined.audit)) == 0
    capsys.readouterr()
    assert combined.verify() == 0
    told_of = capsys.readouterr().out
    assert told_of.count("by this release's audit, into which the site's own was combined") == 2
    assert "Approved by all 2 sites." in told_of
    packed = json.loads((combined.root / "release" / "audit.json").read_text())
    assert "signed_extracts" not in packed, "one site's figures are nobody's business outside"
    assert packed["combined_from"] == told["combined_from"]


def test_what_audits_of_these_sizes_can_show_is_said_before_they_are_combined_and_beside_the_result(
    joint: Joint, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [joint.share(site) for site in SITES]
    capsys.readouterr()
    assert joint.combine(*files) == 0
    first = capsys.readouterr().err
    assert first.startswith("2 audits to be combined")
    assert "120 members against 120 holdout patients. What this many can show:" in first
    assert "A generator that leaks nothing passes with a probability of about" in first
    assert fedphantom(["audit", "show", str(joint.audit)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert " ".join(first.split("\n", 1)[1].split()) in shown
    kept = json.loads(joint.audit.read_text())["power"]
    joint.edit_audit(power=kept | {"joint_power": 0.99})
    assert joint.pack() == 5, "it is a figure like the others"
    joint.edit_audit(power="much")
    assert fedphantom(["audit", "show", str(joint.audit)]) == 3


def test_audits_of_hospitals_that_may_not_tell_their_sizes_say_that_no_pass_is_in_reach(
    joint: Joint, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [joint.share(site, counts={"member": "<20", "holdout": "<20"}) for site in SITES]
    capsys.readouterr()
    assert joint.combine(*files) == 6
    assert "No site tells how many members" in capsys.readouterr().err
    assert fedphantom(["audit", "show", str(joint.audit)]) == 0
    assert "No site tells how many members" in " ".join(capsys.readouterr().out.split())


def test_the_page_of_the_sites_own_part_stands_for_a_combined_audit_and_that_of_another_sites_does_not(
    combined: Joint,
) -> None:
    assert combined.pack() == 0
    journals = {site: combined.root / site / "journal.jsonl" for site in SITES}
    of = {site: str(read_journal(journal)[-1].facts["sha256"]) for site, journal in journals.items()}
    for site in SITES:
        (combined.root / f"{site}.html").write_text(f"the page of {site}'s own audit")
        note_pages(journals.values(), of[site], (combined.root / f"{site}.html").read_bytes(), b"shareable")
    line = ["--audit", str(combined.audit), "--report"]
    assert combined.approve("site-a", *line, str(combined.root / "site-b.html")) == 5
    assert combined.approve("site-a", *line, str(combined.root / "site-a.html")) == 0


def test_a_page_of_the_combined_audit_shows_no_patient_and_is_approved_by_where_the_site_made_it(
    combined: Joint, capsys: pytest.CaptureFixture[str]
) -> None:
    assert combined.pack() == 0
    synthetic = ["--audit", str(combined.audit), "--synthetic", str(combined.made.synthetic)]
    lead, own = combined.root / "lead", combined.root / "own"
    assert fedphantom(["audit", "report", str(combined.made.run), "--out", str(lead), *synthetic]) == 0
    line = ["audit", "report", str(combined.root / "site-a"), "--out", str(own), *synthetic]
    assert fedphantom(line) == 3, "a site holds no generator of its own"
    assert fedphantom([*line, "--generator", str(combined.made.generator)]) == 0
    for page in (lead / "report.html", lead / "report-shareable.html", own / "report.html"):
        told = words_of(page.read_text())
        assert "Sites whose patients were audited 2" in told
        assert "120 members were compared with 120 holdout patients" in told
        assert "A generator that leaks nothing passes with a probability of about" in told
        assert "the scan most like it" not in told
    named = ["--audit", str(combined.audit), "--report"]
    (lead / "report.html").write_bytes(
        (own / "report.html").read_bytes().replace(b"A generator that", b"No generator that")
    )
    assert combined.approve("site-a", *named, str(lead / "report.html")) == 5
    assert combined.approve("site-a", *named, str(own / "report.html")) == 0
    combined.forget("site-b")
    capsys.readouterr()
    line = ["audit", "report", str(combined.root / "site-b"), "--out", str(combined.root / "b"), *synthetic]
    assert fedphantom([*line, "--generator", str(combined.made.generator)]) == 5
    assert "without one that this site's journal tells of" in " ".join(capsys.readouterr().err.split())


def test_the_combined_file_is_needed_to_approve_by_it(combined: Joint, capsys: pytest.CaptureFixture[str]) -> None:
    assert combined.pack() == 0
    assert combined.approve("site-a") == 4
    assert "name the combined file" in capsys.readouterr().err


def test_a_site_whose_audit_is_not_among_those_combined_approves_nothing(combined: Joint) -> None:
    assert combined.pack() == 0
    combined.forget("site-b")
    assert combined.approve("site-b", "--audit", str(combined.audit)) == 5
    assert combined.approve("site-a", "--audit", str(combined.audit)) == 0


def test_the_same_extracts_in_any_order_give_the_same_file(joint: Joint) -> None:
    files = [joint.share(site) for site in SITES]
    assert joint.combine(*files) == 0
    assert joint.combine(*reversed(files), out="again.json") == 0
    assert (joint.root / "again.json").read_bytes() == joint.audit.read_bytes()


def test_a_combined_audit_with_another_figure_is_neither_packed_nor_approved(combined: Joint) -> None:
    combined.edit_audit(counts={"member": 400, "holdout": 400})
    assert combined.pack() == 5
    # Nor does it help to pack it by other means than the command.
    texts = [(combined.root / f"{site}.toml").read_text() for site in SITES]
    combined.made.pack(
        out=combined.root / "release",
        tier="controlled",
        audit=combined.audit,
        policies=[parse_policy(text) for text in texts],
    )
    assert combined.approve("site-a", "--audit", str(combined.audit)) == 5


def test_a_missing_site_a_site_twice_and_a_strangers_signature_are_refused(
    joint: Joint, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (joint.share(site) for site in SITES)
    assert joint.combine(a) == 4
    assert "audits signed by 1 officer, 1 file in all, of 2 whom the study names" in capsys.readouterr().err
    assert joint.combine(a, a, b) == 4
    said = SiteExtract(
        study_digest=release_study().digest(),
        officer_key=public_pem(STRANGER),
        parameters="0" * 64,
        result_sha256="0" * 64,
        carried=("tissue",),
        audit=a_site_audit(60, 60, outliers=20, **joint.of_release()),
    )
    stranger = joint.root / "stranger"
    stranger.write_bytes(signed(SITE_EXTRACT, said, STRANGER))
    assert joint.combine(a, stranger) == 5
    assert "which the study does not name" in capsys.readouterr().err
    stranger.write_bytes(a.read_bytes().replace(b'"sig":"', b'"sig":"A', 1))
    assert joint.combine(b, stranger) == 5
    assert joint.combine(b, joint.made.generator) == 3
    assert not joint.audit.exists()


def test_audits_of_another_generator_than_the_runs_are_refused(joint: Joint) -> None:
    files = [joint.share(site, generator_sha256="c" * 64) for site in SITES]
    assert joint.combine(*files) == 5


def test_a_generator_that_the_coordinators_journal_does_not_name_is_not_packed(combined: Joint) -> None:
    for file in combined.made.run.glob("journal.jsonl*"):
        file.unlink()
    Journal(combined.made.run / "journal.jsonl").append(RUN_FINISHED, generators=["0" * 64])
    assert combined.pack() == 5


def test_a_leak_at_one_hospital_is_packed_for_nobody(joint: Joint) -> None:
    assert joint.combine(joint.share("site-a"), joint.share("site-b", verdict="FAIL")) == 6
    assert json.loads(joint.audit.read_text())["verdict"] == "FAIL"
    for tier in ("internal", "controlled"):
        assert joint.pack(tier=tier) == 4


def test_a_structure_of_which_no_hospital_says_that_ten_patients_carry_it_is_not_released(
    joint: Joint, capsys: pytest.CaptureFixture[str]
) -> None:
    assert joint.combine(*[joint.share(site, carried=()) for site in SITES]) == 0
    assert joint.pack() == 4
    assert "fewer than 10 of the training patients carry: tissue" in capsys.readouterr().err


def test_one_hospital_where_ten_carry_a_structure_is_enough(joint: Joint) -> None:
    assert joint.combine(joint.share("site-a"), joint.share("site-b", carried=())) == 0
    assert joint.pack() == 0
