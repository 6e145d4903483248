"""A person's signature on exactly one release: what is asked before it, and what it then says."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from consortium import EVERYONE, SITES, Consortium, consort
from officers import OFFICERS, policy_text
from planted_files import another_channel, signed_as_if_it_belonged
from tiny_release import KEY, STUDY, Releasable, files_of, statement_of

from fedphantom.cli import run as fedphantom
from fedphantom.common.cohorts.roles import draw_roles
from fedphantom.common.errors import SignatureInvalid, StorageError, VerificationFailed
from fedphantom.common.journal import Journal, read_journal
from fedphantom.common.keys import key_id
from fedphantom.common.signing import verify
from fedphantom.common.study import RolesTable
from fedphantom.privacy.audit.history import DONE
from fedphantom.privacy.page_record import note_pages
from fedphantom.privacy.policy import parse_policy
from fedphantom.privacy.release.folder import verify_release

OFFICER = OFFICERS["site-a"]
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def strict(releasable: Releasable, tmp_path: Path) -> Consortium:
    """One of the two sites asks for a second person."""
    return consort(tmp_path / "consortium", releasable, {"site-b": 'tier = "internal"\nsecond_person = true'})


Told = Callable[[], dict[str, Any]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    return lambda: json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]  # one object


def test_a_release_is_approved_once_every_contributing_site_has_signed_it(consortium: Consortium, told: Told) -> None:
    assert consortium.verify() == 4
    before = told()
    assert (before["approved"], before["approving_sites"], len(before["missing_approvals"])) == (False, 2, 2)
    assert consortium.approve("site-a", "--json") == 0
    assert len(told()["missing_approvals"]) == 1
    assert consortium.verify("site-a") == 4
    assert told()["missing_approvals"][0].endswith("no approval by its compliance officer")
    assert consortium.approve("site-b") == 0
    assert consortium.verify("site-a", "site-b") == 0


def test_no_signed_byte_changes(consortium: Consortium) -> None:
    before = {path: path.read_bytes() for path in files_of(consortium.release)}
    for site in SITES:
        assert consortium.approve(site) == 0
    after = {path: path.read_bytes() for path in files_of(consortium.release)}
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == {consortium.approval(site) for site in SITES}


def test_each_site_approves_its_own_copy_and_the_small_files_are_put_together(consortium: Consortium) -> None:
    for site in SITES:
        copy = Path(shutil.copytree(consortium.release, consortium.root / f"copy-{site}"))
        assert consortium.approve(site, release=copy) == 0
        approval = copy / consortium.approval(site).relative_to(consortium.release)
        assert approval.stat().st_size < 4096
        consortium.approval(site).parent.mkdir(exist_ok=True)
        shutil.copy(approval, consortium.approval(site))
    assert consortium.verify(*SITES) == 0


def test_a_second_person_signs_beside_the_officer_and_with_a_key_of_their_own(strict: Consortium) -> None:
    assert strict.approve("site-a") == 0
    assert strict.approve("site-b") == 0
    assert strict.verify(*SITES) == 4
    assert strict.approve("site-b") == 3, "the same key again"
    assert strict.approve("site-b", who="site-b-second") == 0
    assert strict.verify(*SITES, "site-b-second") == 0
    strict.approval("site-b").unlink()
    assert strict.verify("site-a", "site-b-second") == 4, "nor does the second person stand in for the officer"


def test_an_approval_names_what_was_looked_at(consortium: Consortium, releasable: Releasable) -> None:
    page = a_page(consortium, releasable.audit.read_bytes())
    assert consortium.approve("site-a", "--audit", str(releasable.audit), "--report", str(page)) == 0
    payload = verify(consortium.approval("site-a").read_bytes(), [OFFICERS["site-a"].public_key()])
    said = json.loads(payload)
    report = verify_release(consortium.release, [KEY.public_key(), OFFICERS["site-a"].public_key()])
    assert said["subject"] == [{"name": "statement", "digest": {"sha256": report.release_sha256}}]
    predicate = said["predicate"]
    assert (predicate["decision"], predicate["role"], predicate["verdict"]) == (
        "approved",
        "compliance officer",
        "INCONCLUSIVE",
    )
    assert predicate["looked_at"]["audit"] == statement_of(consortium.release)["predicate"]["audit"]["sha256"]
    assert set(predicate["looked_at"]) == {"policy", "audit", "report"}
    assert predicate["looked_at"]["report"] == hashlib.sha256(page.read_bytes()).hexdigest()
    assert all(len(digest) == 64 for digest in predicate["looked_at"].values())


def a_page(consortium: Consortium, audit: bytes) -> Path:
    """As 'audit report' makes one at a site."""
    page = consortium.root / "report.html"
    page.write_text("<html><head></head><body>PASS</body></html>")
    journal = consortium.site("site-a") / "journal.jsonl"
    note_pages([journal], hashlib.sha256(audit).hexdigest(), page.read_bytes(), b"shareable")
    return page


NO_PAGE: dict[str, Callable[[bytes], bytes]] = {
    "the page with a word changed": lambda page: page.replace(b"PASS", b"FAIL"),
    "a page of another audit": lambda page: b"of another audit",
    "participants.tsv": lambda page: b"participant_id\tsex\nsub-001\tF\n",
    "nothing": lambda page: b"",
}


@pytest.mark.parametrize("file", NO_PAGE.values(), ids=NO_PAGE.keys())
def test_what_is_no_page_of_the_audit_is_not_signed_as_one(
    consortium: Consortium, releasable: Releasable, file: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    page, given = a_page(consortium, releasable.audit.read_bytes()), consortium.root / "given.html"
    note_pages([consortium.site("site-a") / "journal.jsonl"], "0" * 64, b"of another audit", b"shareable")
    given.write_bytes(file(page.read_bytes()))
    assert consortium.approve("site-a", "--report", str(given)) == 5
    assert "this site's journal does not tell of as a page of the audit" in capsys.readouterr().err
    assert not consortium.approval("site-a").exists()


def test_a_page_that_another_site_made_is_not_signed_as_this_ones(
    consortium: Consortium, releasable: Releasable
) -> None:
    page = a_page(consortium, releasable.audit.read_bytes())
    assert consortium.approve("site-b", "--report", str(page)) == 5
    assert consortium.approve("site-a", "--report", str(page)) == 0


def test_of_two_renditions_either_may_have_been_looked_at(consortium: Consortium, releasable: Releasable) -> None:
    a_page(consortium, releasable.audit.read_bytes())
    (consortium.root / "shareable.html").write_bytes(b"shareable")
    assert consortium.approve("site-a", "--report", str(consortium.root / "shareable.html")) == 0


def test_verification_says_what_each_approver_looked_at(
    consortium: Consortium, releasable: Releasable, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    page = a_page(consortium, releasable.audit.read_bytes())
    assert consortium.approve("site-a", "--audit", str(releasable.audit), "--report", str(page)) == 0
    assert consortium.approve("site-b") == 0
    capsys.readouterr()
    assert consortium.verify(*SITES) == 0
    looked_at = {one["key"]: one["looked_at"] for one in told()["approvals"]}
    assert looked_at == {
        key_id(OFFICERS["site-a"].public_key()): ["result file", "page"],
        key_id(OFFICERS["site-b"].public_key()): [],
    }
    assert fedphantom(["release", "verify", str(consortium.release), *consortium.public("packer", *SITES)]) == 0
    text = capsys.readouterr().out
    assert text.count("who looked at the audit's result file and page.") == 1
    assert text.count("who looked at neither the audit's whole result file nor its page.") == 1


def test_statement_approvals_and_readme_name_keys_and_neither_people_nor_sites(consortium: Consortium) -> None:
    assert consortium.approve("site-a") == 0
    for path in files_of(consortium.release):
        content = path.read_bytes()
        assert not any(name in content for name in (b"Anna", b"Berg", b"site-a", b"site-b"))
    named = statement_of(consortium.release)["predicate"]["approving_sites"]
    keys = {signer["key"] for site in named for signer in site["signers"]}
    assert keys == {key_id(key.public_key()) for key in OFFICERS.values()}
    for key in keys:
        assert key[:16] in (consortium.release / "README.md").read_text()


def test_what_was_done_and_refused_stands_in_the_sites_journal(consortium: Consortium) -> None:
    assert consortium.approve("site-a") == 0
    entry = read_journal(consortium.site("site-a") / "journal.jsonl")[-1]
    assert (entry.event, entry.facts["role"]) == ("release-approved", "compliance officer")
    assert entry.facts["key"] == key_id(OFFICERS["site-a"].public_key())
    digest = verify_release(consortium.release, [EVERYONE[who].public_key() for who in ("packer", "site-a")])
    assert entry.facts["release"] == digest.release_sha256
    failed = {"generator": digest.generator_sha256, "release": "volumes", "tier": "internal", "verdict": "FAIL"}
    Journal(consortium.site("site-b") / "journal.jsonl").append(DONE, **failed)
    assert consortium.approve("site-b") == 4
    assert consortium.events("site-b")[-1] == "release-refused"
    assert not consortium.approval("site-b").exists()


def test_a_generator_that_failed_under_another_header_is_not_approved(consortium: Consortium) -> None:
    parameters = json.loads((consortium.release / "audit.json").read_bytes())["parameters_sha256"]
    failed = {"generator": "f" * 64, "release": "volumes", "tier": "internal", "verdict": "FAIL"}
    Journal(consortium.site("site-a") / "journal.jsonl").append(DONE, **failed, parameters="f" * 64)
    assert consortium.approve("site-a") == 0
    Journal(consortium.site("site-b") / "journal.jsonl").append(DONE, **failed, parameters=parameters)
    assert consortium.approve("site-b") == 4
    assert not consortium.approval("site-b").exists()


def test_a_release_with_a_channel_that_the_sites_study_does_not_have_is_not_approved(
    consortium: Consortium, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though audit, statement and files agree, as a dishonest packer could have it."""
    another_channel(consortium.release / "cohort")
    signed_as_if_it_belonged(consortium.release, audited=("T1", "T1c", "PDw"))
    capsys.readouterr()
    assert consortium.approve("site-a") == 5
    assert "of other channels than the site's study" in capsys.readouterr().err


def test_a_site_without_its_journal_approves_nothing(consortium: Consortium) -> None:
    for name in ("journal.jsonl", "journal.jsonl.head"):
        (consortium.site("site-a") / name).unlink()
    assert consortium.approve("site-a") == 5
    assert not consortium.approval("site-a").exists()


def test_a_key_that_the_policy_does_not_list_is_exit_5(
    consortium: Consortium, capsys: pytest.CaptureFixture[str]
) -> None:
    assert consortium.approve("site-a", who="stranger") == 5
    assert consortium.approve("site-a", who="site-b") == 5
    assert "unknown key" in capsys.readouterr().err
    assert consortium.approve("site-a", who="site-a-second") == 5, "the policy asks for no second person"


def test_an_expired_key_is_exit_5(consortium: Consortium, capsys: pytest.CaptureFixture[str]) -> None:
    (consortium.root / "site-a.toml").write_text(policy_text("site-a", 'tier = "internal"', expires="2026-01-31"))
    assert consortium.approve("site-a") == 5
    assert "which expired on 2026-01-31" in capsys.readouterr().err


def test_a_policy_whose_keys_have_all_expired_packs_nothing(releasable: Releasable) -> None:
    late = parse_policy(policy_text("site-a", expires="2026-11-21"))
    with pytest.raises(SignatureInvalid, match="expired on 2026-11-21"):
        releasable.pack(policies=[late, parse_policy(policy_text("site-b"))])
    today = parse_policy(policy_text("site-a", expires="2026-11-22"))
    releasable.pack(policies=[today, parse_policy(policy_text("site-b"))])


def test_a_policy_that_changed_since_packing_no_longer_approves(consortium: Consortium) -> None:
    path = consortium.root / "site-a.toml"
    path.write_text(path.read_text() + "# a remark\n")
    assert consortium.approve("site-a") == 5


def test_a_policy_of_thresholds_alone_says_that_it_lists_nobody(
    consortium: Consortium, capsys: pytest.CaptureFixture[str]
) -> None:
    (consortium.root / "site-a.toml").write_text('tier = "internal"\n')
    assert consortium.approve("site-a") == 3
    assert "a policy that lists nobody who may sign" in capsys.readouterr().err


def test_a_name_that_nobody_wrote_into_the_policy_is_told_to_who_approves(
    releasable: Releasable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = consort(tmp_path / "consortium", releasable, {})
    path = made.root / "site-a.toml"
    path.write_text(path.read_text().replace("Anna Berg", "to be filled in"))
    assert made.approve("site-a") == 5, "the policy changed since packing"
    assert "still names its compliance officer 'to be filled in'" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_named(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("no space is left on the disk", expected="a writable disk", remedy="Free some space.")

    with monkeypatch.context() as patched:
        patched.setattr("fedphantom.privacy.release.approve.note", full)
        assert consortium.approve("site-a") == 1
        assert "--site: no space" in capsys.readouterr().err
    monkeypatch.setattr("fedphantom.privacy.release.approve.write_atomic", full)
    assert consortium.approve("site-a") == 1
    assert "RELEASE: no space" in capsys.readouterr().err


def test_a_site_of_another_study_approves_nothing(consortium: Consortium) -> None:
    (consortium.site("site-a") / "study.toml").write_text(STUDY.replace("seed = 1", "seed = 2"))
    assert consortium.approve("site-a") == 5


def test_a_changed_release_is_never_approved(consortium: Consortium) -> None:
    path = consortium.release / "README.md"
    path.write_bytes(path.read_bytes() + b" ")
    assert consortium.approve("site-a") == 5
    assert not consortium.approval("site-a").exists()


def test_the_sites_own_audit_speaks_against_a_release(consortium: Consortium, releasable: Releasable) -> None:
    own = consortium.root / "own.json"
    releasable.write_audit(verdict="FAIL")
    shutil.copy(releasable.audit, own)
    Journal(consortium.site("site-a") / "journal.jsonl").append(
        DONE, sha256=hashlib.sha256(own.read_bytes()).hexdigest()
    )
    assert consortium.approve("site-a", "--audit", str(own)) == 4
    releasable.write_audit(generator_sha256="0" * 64)
    assert consortium.approve("site-a", "--audit", str(releasable.audit)) == 5


def forget_audits(consortium: Consortium, site: str) -> Journal:
    """A journal of a site on whose patients nothing was ever run."""
    journal = Journal(consortium.site(site) / "journal.jsonl")
    for file in consortium.site(site).glob("journal.jsonl*"):
        file.unlink()
    journal.append("roles-drawn", coins="0" * 64)
    return journal


def test_a_site_does_not_approve_by_an_audit_that_was_never_run_on_its_patients(
    consortium: Consortium, releasable: Releasable, capsys: pytest.CaptureFixture[str]
) -> None:
    """An audit.json that somebody wrote, packed and signed, with figures that would please any policy."""
    forget_audits(consortium, "site-a")
    assert consortium.approve("site-a") == 4
    assert "a release whose audit this site's journal does not tell of" in capsys.readouterr().err
    assert consortium.approve("site-a", "--audit", str(releasable.audit)) == 5
    assert not consortium.approval("site-a").exists()


def test_an_audit_of_the_sites_own_stands_for_a_release_and_the_approval_says_so(
    consortium: Consortium, releasable: Releasable, capsys: pytest.CaptureFixture[str]
) -> None:
    journal, own = forget_audits(consortium, "site-a"), consortium.root / "own.json"
    releasable.write_audit(counts={"member": 60, "holdout": 60})
    shutil.copy(releasable.audit, own)
    assert consortium.approve("site-a", "--audit", str(own)) == 5, "a file that its journal does not tell of"
    journal.append(DONE, sha256=hashlib.sha256(own.read_bytes()).hexdigest())
    assert consortium.approve("site-a") == 4, "it is to be named"
    assert consortium.approve("site-a", "--audit", str(own)) == 0
    assert "by an audit of the site's own" in capsys.readouterr().out
    assert consortium.approve("site-b") == 0
    capsys.readouterr()
    line = ["release", "verify", str(consortium.release), *consortium.public("packer", *SITES)]
    assert fedphantom(line) == 0
    told = capsys.readouterr().out
    assert told.count("by an audit of the site's own") == 1
    assert told.count("by this release's audit, which the site's journal tells of") == 1


def test_an_audit_of_the_sites_own_for_less_than_is_released_stands_for_nothing(
    releasable: Releasable, tmp_path: Path
) -> None:
    made = consort(tmp_path / "consortium", releasable, {}, kind="weights", synthetic=None)
    journal, own = forget_audits(made, "site-a"), made.root / "own.json"
    releasable.write_audit(release="volumes")
    shutil.copy(releasable.audit, own)
    journal.append(DONE, sha256=hashlib.sha256(own.read_bytes()).hexdigest())
    assert made.approve("site-a", "--audit", str(own)) == 4


NAMING = "agreed for patient-00417 of st-anna"


@pytest.mark.parametrize(
    ("site", "patient", "what"),
    [("st-anna", "p-1", "a site's name"), ("st-berta", "patient-00417", "a patient's identifier")],
)
def test_a_text_that_names_one_of_the_sites_own_is_not_approved_whoever_packed_it(
    releasable: Releasable,
    tmp_path: Path,
    site: str,
    patient: str,
    what: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The packer has no site's folder: nobody there could tell what a policy's reason says."""
    said = f'reason = "{NAMING}"\nby = "the board"\non = 2026-11-20\n'
    head = f'tier = "internal"\n[override.outlier_auc_upper_max]\nvalue = 0.8\n{said}'
    made = consort(tmp_path / "consortium", releasable, {"site-b": head})
    assert NAMING in (made.release / "README.md").read_text()
    assert made.approve("site-b") == 0, "these are not its own words for anybody"
    home = made.site("site-a")
    (home / "site.toml").write_text((home / "site.toml").read_text().replace("site-a", site))
    record = draw_roles([patient, "p-2", "p-3"], RolesTable(), np.random.default_rng(0))
    (home / "coins.json").write_text(record.to_json())
    capsys.readouterr()
    assert made.approve("site-a") == 4
    told = " ".join(capsys.readouterr().err.split())
    assert f"{what} in a text of the release" in told
    assert not any(secret in told for secret in ("00417", "anna"))
    assert not made.approval("site-a").exists()
    journal = (home / "journal.jsonl").read_text()
    assert "release-refused" in journal
    assert not any(secret in journal for secret in ("00417", "anna"))


def test_a_date_that_somebody_wrote_into_a_reason_is_not_approved(releasable: Releasable, tmp_path: Path) -> None:
    said = 'reason = "agreed since 2024-05-17"\nby = "the board"\non = 2026-11-20\n'
    head = f'tier = "internal"\n[override.outlier_auc_upper_max]\nvalue = 0.8\n{said}'
    with pytest.raises(VerificationFailed, match="a date in a text of the release"):
        consort(tmp_path / "consortium", releasable, {"site-b": head})
