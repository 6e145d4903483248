"""A release that was taken back is refused wherever the notice has come to."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from consortium import EVERYONE, SITES, Consortium, consort
from officers import OFFICERS, STRANGER, a_site
from tiny_release import KEY, STUDY, TRUSTED, Releasable

from fedphantom.cli import run as fedphantom
from fedphantom.common.errors import DataError, PolicyRefused, StorageError, VerificationFailed
from fedphantom.common.journal import Journal, read_journal
from fedphantom.common.signing import sign, verify
from fedphantom.privacy.release.folder import verify_release
from fedphantom.privacy.release.withdrawal_reason import REASONS as REASONS_THAT_NAME_NOBODY

REASON = "a member withdrew consent to research"


@pytest.fixture
def consortium(releasable: Releasable, tmp_path: Path) -> Consortium:
    """An approved release."""
    made = consort(tmp_path / "consortium", releasable, {})
    for site in SITES:
        assert made.approve(site) == 0
    return made


def withdraw(consortium: Consortium, who: str, reason: str = REASON, *more: str) -> int:
    line = ["release", "withdraw", str(consortium.release), "--key", consortium.key(who), "--names-nobody"]
    return fedphantom([*line, "--reason", reason, "--run", str(consortium.site("site-a")), *more])


def notices(consortium: Consortium) -> Path:
    return consortium.root / "notices"


def verified(consortium: Consortium, *more: str) -> int:
    line = ["release", "verify", str(consortium.release), *consortium.public("packer", *SITES)]
    return fedphantom([*line, "--notices", str(notices(consortium)), *more])


@pytest.mark.parametrize("who", ["packer", "site-a", "site-b"])
def test_whoever_packed_or_may_approve_a_release_can_take_it_back(
    consortium: Consortium, who: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert withdraw(consortium, who) == 0
    capsys.readouterr()
    assert verified(consortium) == 5
    told = capsys.readouterr().err
    assert "this release, withdrawn on" in told
    assert REASON in told
    entry = read_journal(consortium.site("site-a") / "journal.jsonl")[-1]
    assert (entry.event, entry.facts["reason"]) == ("release-withdrawn", REASON)


def test_without_the_notices_verification_says_that_nobody_looked(
    consortium: Consortium, capsys: pytest.CaptureFixture[str]
) -> None:
    assert withdraw(consortium, "packer") == 0
    capsys.readouterr()
    line = ["release", "verify", str(consortium.release), *consortium.public("packer", *SITES)]
    assert fedphantom(line) == 0
    assert "Nobody looked whether it was withdrawn" in capsys.readouterr().out


def one_scan_less(releasable: Releasable) -> None:
    """Other volumes, audited."""
    shutil.rmtree(releasable.scans()[1].parents[1])
    table = releasable.synthetic / "participants.tsv"
    table.write_text("\n".join(table.read_text().splitlines()[:2]) + "\n")
    releasable.write_audit()


def test_among_notices_of_other_releases_a_release_stands(
    consortium: Consortium, releasable: Releasable, capsys: pytest.CaptureFixture[str]
) -> None:
    one_scan_less(releasable)
    releasable.pack(out=consortium.root / "other")
    line = ["release", "withdraw", str(consortium.root / "other"), "--key", consortium.key("packer")]
    more = ["--run", str(consortium.site("site-a")), "--notices", str(notices(consortium))]
    assert fedphantom([*line, "--because", "error-found", *more]) == 0
    (notices(consortium) / "readme.txt").write_text("what lies here")
    assert verified(consortium) == 0
    assert "Not among the notices of withdrawal" in capsys.readouterr().out
    with pytest.raises(VerificationFailed, match="withdrawn"):
        verify_release(consortium.root / "other", TRUSTED, notices(consortium))


def test_withdrawn_weights_take_what_they_painted_with_them_and_volumes_only_themselves(
    releasable: Releasable, tmp_path: Path
) -> None:
    weights = consort(tmp_path / "weights", releasable, {}, kind="weights", synthetic=None)
    volumes = consort(tmp_path / "volumes", releasable, {})
    assert withdraw(volumes, "packer") == 0
    verify_release(weights.release, TRUSTED, notices(volumes))
    assert withdraw(weights, "packer") == 0
    with pytest.raises(VerificationFailed, match="the weights behind this release, withdrawn on"):
        verify_release(volumes.release, TRUSTED, notices(weights))


def packed_again(releasable: Releasable, tmp_path: Path, **changes: Any) -> Consortium:
    """The same content under other random names: another statement."""
    return consort(tmp_path / "again", releasable, {}, **changes)


def test_the_same_volumes_packed_again_are_withdrawn_with_the_first(
    consortium: Consortium, releasable: Releasable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = packed_again(releasable, tmp_path)
    assert withdraw(consortium, "packer") == 0
    capsys.readouterr()
    line = ["release", "verify", str(again.release), *again.public("packer"), "--notices", str(notices(consortium))]
    assert fedphantom(line) == 5
    assert "the volumes in this release, withdrawn on" in " ".join(capsys.readouterr().err.split())


def test_a_notice_of_an_earlier_version_takes_back_the_one_release(
    consortium: Consortium, releasable: Releasable, tmp_path: Path
) -> None:
    again = packed_again(releasable, tmp_path)
    assert withdraw(consortium, "packer") == 0
    (path,) = notices(consortium).iterdir()
    said = json.loads(verify(path.read_bytes(), TRUSTED))
    del said["predicate"]["synthetic_sha256"]
    path.write_bytes(sign(json.dumps(said).encode(), KEY))
    verify_release(again.release, TRUSTED, notices(consortium))
    assert verified(consortium) == 5


@pytest.mark.parametrize("kind", ["volumes", "weights"])
def test_a_site_does_not_approve_again_what_it_withdrew(
    releasable: Releasable, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"kind": "weights", "synthetic": None} if kind == "weights" else {}
    first = consort(tmp_path / "first", releasable, {}, **changes)
    again = packed_again(releasable, tmp_path)
    line = ["release", "withdraw", str(first.release), "--key", first.key("site-a"), "--because"]
    assert fedphantom([*line, "patient-recognisable", "--run", str(again.site("site-a"))]) == 0
    capsys.readouterr()
    assert again.approve("site-a") == 4
    assert f"{kind} that were released before and withdrawn" in " ".join(capsys.readouterr().err.split())
    assert again.events("site-a")[-1] == "release-refused"
    assert again.approve("site-b") == 0, "whose journal does not tell of it; the notice would"


@pytest.mark.parametrize("journal", ["run", "run/sites/site-a"])
def test_nor_is_it_packed_again_by_whichever_journal_of_the_run_tells_of_it(
    consortium: Consortium, releasable: Releasable, journal: str
) -> None:
    folder = releasable.root / journal
    a_site(folder, "site-a", STUDY) if "sites" in journal else Journal(folder / "journal.jsonl").begin()
    line = ["release", "withdraw", str(consortium.release), "--key", consortium.key("packer"), "--because"]
    assert fedphantom([*line, "error-found", "--run", str(folder)]) == 0
    with pytest.raises(PolicyRefused, match="volumes that were released before and withdrawn: An error was found"):
        releasable.pack(out=consortium.root / "again")
    assert not (consortium.root / "again").exists()


def test_other_volumes_of_the_same_generator_are_packed_after_a_withdrawal(
    consortium: Consortium, releasable: Releasable
) -> None:
    Journal(releasable.run / "journal.jsonl").begin()
    line = ["release", "withdraw", str(consortium.release), "--key", consortium.key("packer"), "--because"]
    assert fedphantom([*line, "superseded", "--run", str(releasable.run)]) == 0
    one_scan_less(releasable)
    releasable.pack(out=consortium.root / "others")


def test_a_damaged_release_can_still_be_taken_back(consortium: Consortium) -> None:
    (consortium.release / "README.md").unlink()
    assert withdraw(consortium, "site-b") == 0


def test_a_stranger_takes_nothing_back(consortium: Consortium) -> None:
    assert withdraw(consortium, "stranger") == 5
    assert not notices(consortium).exists()


REASONS = {
    "a word": ("mistake", 3),
    "two lines": ("it was a mistake\nof ours", 3),
    "a book": ("it was " + "long " * 120, 3),
    "a site": ("the ethics board of site-a asked for it", 4),
    "a scan and a day": ("patient sub-001 MUSTERMANN withdrew on 2024-05-06", 4),
    "a scan": ("the patient behind sub-001 withdrew", 4),
    "a day in words": ("a member withdrew on 6 May 2024", 4),
    "a record number": ("patient 12345678 withdrew consent", 4),
    "a number's name": ("the patient with MRN 4711 withdrew", 4),
}


@pytest.mark.parametrize("because", REASONS_THAT_NAME_NOBODY)
def test_a_reason_that_names_nobody_is_taken_from_a_list(
    consortium: Consortium, because: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["release", "withdraw", str(consortium.release), "--key", consortium.key("packer"), "--because", because]
    assert fedphantom([*line, "--run", str(consortium.site("site-a"))]) == 0
    capsys.readouterr()
    assert verified(consortium) == 5
    assert REASONS_THAT_NAME_NOBODY[because] in " ".join(capsys.readouterr().err.split())  # type: ignore[index]  # a key


def test_ones_own_words_take_a_word_for_it_that_they_name_nobody_since_no_name_is_recognised(
    consortium: Consortium, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["release", "withdraw", str(consortium.release), "--key", consortium.key("packer")]
    line += ["--run", str(consortium.site("site-a"))]
    assert fedphantom([*line, "--reason", "Anna Schmidt withdrew consent"]) == 3
    told = " ".join(capsys.readouterr().err.split())
    assert "no person's name is recognised" in told
    assert "Schmidt" not in told
    assert not notices(consortium).exists()
    assert fedphantom(line) == 2, "without a reason"
    assert fedphantom([*line, "--reason", REASON, "--names-nobody", "--because", "error-found"]) == 2
    assert fedphantom([*line, "--names-nobody", "--because", "error-found"]) == 2
    assert not notices(consortium).exists()


@pytest.mark.parametrize(("reason", "code"), REASONS.values(), ids=REASONS.keys())
def test_a_reason_is_a_sentence_that_names_nobody(consortium: Consortium, reason: str, code: int) -> None:
    assert withdraw(consortium, "packer", reason) == code
    assert not notices(consortium).exists()
    assert consortium.events("site-a")[-1] == "release-approved"


def test_a_reason_may_speak_of_a_released_volume_and_of_a_year(consortium: Consortium) -> None:
    assert withdraw(consortium, "packer", "volume sub-0123456789abcdef shows a face, by the findings of 2026") == 0


def test_a_notice_that_was_passed_on_is_not_replaced(
    consortium: Consortium, capsys: pytest.CaptureFixture[str]
) -> None:
    assert withdraw(consortium, "packer") == 0
    (path,) = notices(consortium).iterdir()
    first = path.read_bytes()
    assert withdraw(consortium, "packer", "the label maps were under another licence") == 3
    assert "is there already" in capsys.readouterr().err
    assert path.read_bytes() == first
    assert consortium.events("site-a").count("release-withdrawn") == 1
    assert withdraw(consortium, "site-a", "the label maps were under another licence") == 0, "another signer may add"
    assert len(list(notices(consortium).iterdir())) == 2


@pytest.mark.parametrize(("step", "named"), [("approve.note", "--run"), ("withdrawal.write_atomic", "--notices")])
def test_a_place_that_cannot_be_written_is_named(
    consortium: Consortium,
    step: str,
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("no space is left on the disk", expected="a writable disk", remedy="Free some space.")

    monkeypatch.setattr(f"fedphantom.privacy.release.{step}", full)
    assert withdraw(consortium, "packer") == 1
    assert f"{named}: no space" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_bad_input(consortium: Consortium) -> None:
    with pytest.raises(DataError, match="notices") as refused:
        verify_release(consortium.release, [key.public_key() for key in EVERYONE.values()], consortium.root / "nowhere")
    assert refused.value.exit_code == 3


def _signed_by_a_stranger(path: Path) -> None:
    path.write_bytes(sign(verify(path.read_bytes(), TRUSTED), STRANGER))


def _another_reason(path: Path) -> None:
    envelope = json.loads(path.read_bytes())
    said = verify(path.read_bytes(), TRUSTED).replace(b"member", b"person")
    other = json.loads(sign(said, STRANGER))
    path.write_bytes(
        json.dumps(envelope | {"payload": other["payload"]}, separators=(",", ":"), sort_keys=True).encode()
    )


def _something_else(path: Path) -> None:
    path.write_bytes(sign(b'{"_type": "https://in-toto.io/Statement/v1"}', KEY))


def _terabyte(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(1 << 40)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "signed by a stranger": (_signed_by_a_stranger, "unknown key"),
    "with another reason": (_another_reason, "does not hold"),
    "about nothing": (_something_else, "no notice of withdrawal"),
    "not an envelope": (lambda path: path.write_bytes(b"[" * 60_000), "not a DSSE envelope"),
    "a terabyte": (_terabyte, "something else"),
    "a pipe": (_pipe, "something else"),
    "a link": (lambda path: path.symlink_to(path.rename(path.with_suffix(".moved"))), "something else"),
}


@pytest.mark.parametrize(("spoil", "match"), SPOILT.values(), ids=SPOILT.keys())
def test_a_notice_about_this_release_that_cannot_be_believed_is_not_passed_over(
    consortium: Consortium, spoil: Callable[[Path], Any], match: str
) -> None:
    assert withdraw(consortium, "packer") == 0
    spoil(next(notices(consortium).iterdir()))
    trusted = [EVERYONE[who].public_key() for who in ("packer", *SITES)]
    with pytest.raises(VerificationFailed, match=match) as refused:
        verify_release(consortium.release, trusted, notices(consortium))
    assert refused.value.exit_code == 5


def test_a_notice_names_no_person_and_no_site(consortium: Consortium) -> None:
    assert withdraw(consortium, "site-a") == 0
    payload = verify(next(notices(consortium).iterdir()).read_bytes(), [OFFICERS["site-a"].public_key()])
    assert not any(name in payload for name in (b"Anna", b"site-a"))
