"""An audit is signed by who had it run, as it ends: without that, whoever writes at a site could make one up."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from consortium import SITES, Consortium, consort
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from officers import OFFICERS, SECONDS, STRANGER, a_key, signed_audit
from tiny_release import STUDY, Releasable

from fedphantom.cli import run as fedphantom
from fedphantom.common.errors import PolicyRefused, SignatureInvalid
from fedphantom.common.journal import Journal
from fedphantom.common.keys import key_id
from fedphantom.common.signing import sign, verify
from fedphantom.privacy.audit.history import DONE
from fedphantom.privacy.audit.signature import ENDING, refuse_unsigned, sealed, signed_by
from fedphantom.privacy.release.label_carriers import LabelCarriers

CONTROLLED = 'tier = "controlled"'


def passing(releasable: Releasable) -> None:
    releasable.write_audit(verdict="PASS", release="volumes", tier="controlled", cohort_digest="0" * 64)


@pytest.fixture
def controlled(releasable: Releasable, tmp_path: Path) -> Consortium:
    """A release for controlled access whose audit every site's journal tells of: who wrote those lines is not known."""
    passing(releasable)
    heads = dict.fromkeys(SITES, CONTROLLED)
    return consort(tmp_path / "consortium", releasable, heads, tier="controlled")


def with_audit(releasable: Releasable) -> tuple[str, str]:
    return "--audit", str(releasable.audit)


def test_a_made_up_pass_with_its_line_in_the_journal_is_no_ground_beyond_the_study(
    controlled: Consortium, releasable: Releasable, capsys: pytest.CaptureFixture[str]
) -> None:
    assert controlled.approve("site-a", *with_audit(releasable)) == 4
    told = " ".join(capsys.readouterr().err.split())
    assert "an audit that nobody signed" in told
    assert "audit run --key" in told
    assert controlled.approve("site-a") == 4, "nor without a look at the result"
    assert "without the audit's result file" in " ".join(capsys.readouterr().err.split())
    assert not controlled.approval("site-a").exists()


def test_an_audit_that_the_sites_officer_signed_is_approved_by_and_the_approval_says_by_whose_key(
    controlled: Consortium, releasable: Releasable, capsys: pytest.CaptureFixture[str]
) -> None:
    signed_audit(releasable.audit, STUDY, *OFFICERS.values())
    for site in SITES:
        capsys.readouterr()
        assert controlled.approve(site, *with_audit(releasable), "--json") == 0
        key = key_id(OFFICERS[site].public_key())
        assert json.loads(capsys.readouterr().out)["audit_signed_by"] == key
    line = ["release", "verify", str(controlled.release), *controlled.public("packer", *SITES)]
    assert fedphantom(line) == 0
    told = capsys.readouterr().out
    assert all(f"signed by {key_id(OFFICERS[site].public_key())[:12]}… as it ended" in told for site in SITES)


@pytest.mark.parametrize("of", ["audit_signed_by", "audit"])
def test_beyond_the_study_every_reader_misses_a_signed_audit_in_an_approval(
    controlled: Consortium, releasable: Releasable, of: str
) -> None:
    """As another program could write one with the officer's key."""
    signed_audit(releasable.audit, STUDY, OFFICERS["site-a"])
    assert controlled.approve("site-a", *with_audit(releasable)) == 0
    assert controlled.verify("site-a") == 4, "it holds, and lacks the other site's"
    path = controlled.approval("site-a")
    said = json.loads(verify(path.read_bytes(), [OFFICERS["site-a"].public_key()]))
    predicate = said["predicate"]
    (predicate["looked_at"] if of == "audit" else predicate)[of] = None
    path.write_bytes(sign(json.dumps(said).encode(), OFFICERS["site-a"]))
    assert controlled.verify("site-a") == 5


@pytest.mark.parametrize("signer", [STRANGER, OFFICERS["site-b"], SECONDS["site-a"]], ids=["stranger", "other", "2nd"])
def test_an_audit_that_somebody_else_signed_is_exit_5(
    controlled: Consortium, releasable: Releasable, signer: Any
) -> None:
    signed_audit(releasable.audit, STUDY, signer)
    assert controlled.approve("site-a", *with_audit(releasable)) == 5
    assert not controlled.approval("site-a").exists()


def test_the_second_person_approves_by_what_the_officer_signed(releasable: Releasable, tmp_path: Path) -> None:
    passing(releasable)
    heads = dict.fromkeys(SITES, f"{CONTROLLED}\nsecond_person = true")
    made = consort(tmp_path / "consortium", releasable, heads, tier="controlled")
    signed_audit(releasable.audit, STUDY, OFFICERS["site-a"])
    assert made.approve("site-a", *with_audit(releasable), who="site-a-second") == 0


def test_a_signature_of_another_result_signs_nothing(controlled: Consortium, releasable: Releasable) -> None:
    content = releasable.audit.read_bytes()
    releasable.write_audit(verdict="INCONCLUSIVE")
    signed_audit(releasable.audit, STUDY, OFFICERS["site-a"])
    releasable.audit.write_bytes(content)
    assert controlled.approve("site-a", *with_audit(releasable)) == 4


def test_a_part_of_a_signature_changed_is_exit_5(controlled: Consortium, releasable: Releasable) -> None:
    signed_audit(releasable.audit, STUDY, OFFICERS["site-a"])
    (file,) = releasable.audit.parent.glob(f"*{ENDING}")
    signature = json.loads(file.read_bytes())
    sig = signature["signatures"][0]["sig"]
    file.write_bytes(
        file.read_bytes().replace(sig.encode(), (sig[:-4] + ("AAA=" if sig[-4:] != "AAA=" else "BBB=")).encode())
    )
    assert controlled.approve("site-a", *with_audit(releasable)) == 5


def test_inside_the_study_an_unsigned_audit_is_taken_and_said_to_be_unsigned(
    consortium: Consortium, releasable: Releasable, capsys: pytest.CaptureFixture[str]
) -> None:
    assert consortium.approve("site-a", *with_audit(releasable)) == 0
    assert "That audit counts as unsigned" in capsys.readouterr().out
    signed_audit(releasable.audit, STUDY, OFFICERS["site-b"])
    assert consortium.approve("site-b", *with_audit(releasable)) == 0
    assert "That audit is signed by" in capsys.readouterr().out


def test_an_audit_of_the_sites_own_is_signed_too(controlled: Consortium, releasable: Releasable) -> None:
    own = Path(shutil.copytree(releasable.audit.parent, controlled.root / "elsewhere") / "audit.json")
    own.write_text(json.dumps(json.loads(own.read_text()) | {"counts": {"member": 121, "holdout": 120}}))
    site = controlled.site("site-a")
    for file in site.glob("journal.jsonl*"):
        file.unlink()
    journal = Journal(site / "journal.jsonl")
    journal.append("roles-drawn", coins="0" * 64)
    journal.append(DONE, sha256=hashlib.sha256(own.read_bytes()).hexdigest())
    assert controlled.approve("site-a", "--audit", str(own)) == 4
    signed_audit(own, STUDY, OFFICERS["site-a"])
    assert controlled.approve("site-a", "--audit", str(own)) == 0


@pytest.mark.parametrize(("signers", "code"), [((), 4), ((STRANGER,), 5), ((OFFICERS["site-a"], STRANGER), 0)])
def test_no_officer_shares_an_audit_but_one_signed_by_the_same_key(
    controlled: Consortium,
    releasable: Releasable,
    signers: tuple[Ed25519PrivateKey, ...],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fedphantom.privacy.joint.sharing.verify_audit", lambda *_: None)
    monkeypatch.setattr(
        "fedphantom.privacy.joint.sharing.count_label_carriers", lambda *_: LabelCarriers({"tissue": 120})
    )
    signed_audit(releasable.audit, STUDY, *signers)
    out = controlled.root / "extract"
    line = ["audit", "share", str(controlled.site("site-a")), "--generator", str(releasable.generator)]
    line += ["--audit", str(releasable.audit), "--key", controlled.key("site-a"), "--out", str(out)]
    assert fedphantom(line) == code
    assert out.exists() == (code == 0)


def test_a_signature_counts_up_to_its_keys_last_day() -> None:
    refuse_unsigned({"a": "2026-11-20T10:00:00Z"}, {"a": "2026-11-20"})
    with pytest.raises(SignatureInvalid):
        refuse_unsigned({"a": "2026-11-21T10:00:00Z"}, {"a": "2026-11-20"})
    with pytest.raises(PolicyRefused):
        refuse_unsigned({}, {"a": "2026-11-20"})


@pytest.mark.parametrize(
    "spoil",
    [lambda file: file.write_bytes(b"{"), lambda file: file.unlink(), lambda file: file.write_bytes(b"0" * (2 << 20))],
    ids=["damaged", "gone", "huge"],
)
def test_what_is_no_signature_signs_nothing(releasable: Releasable, spoil: Callable[[Path], Any]) -> None:
    signed_audit(releasable.audit, STUDY, STRANGER)
    (file,) = releasable.audit.parent.glob(f"*{ENDING}")
    digest = hashlib.sha256(releasable.audit.read_bytes()).hexdigest()
    assert list(signed_by(digest, file.parent)) == [key_id(STRANGER.public_key())]
    spoil(file)
    assert not signed_by(digest, file.parent)


def test_what_a_broken_off_audit_left_is_gone_on_with_by_the_same_keys_alone() -> None:
    a, b = a_key(1), a_key(2)
    assert sealed("x", ()) == "x"
    names = {sealed("x", ()), sealed("x", [a]), sealed("x", [b]), sealed("y", [a]), sealed("x", [a, b])}
    assert len(names) == 5
    assert sealed("x", [a, b]) == sealed("x", [b, a])
