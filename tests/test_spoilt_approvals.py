"""What can be done to an approval that lies in a release: it is refused, and never passed over."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from consortium import EVERYONE, SITES, Consortium, consort
from officers import OFFICERS, STRANGER
from tiny_release import KEY, Releasable, statement_of

from fedphantom.common.errors import VerificationFailed
from fedphantom.common.keys import key_id
from fedphantom.common.signing import sign, verify
from fedphantom.privacy.release.approval import approval_file, check_approvals
from fedphantom.privacy.release.folder import verify_content, verify_release
from fedphantom.privacy.statement import parse_statement

OFFICER = OFFICERS["site-a"]
Change = Callable[[dict[str, Any]], None]


def _signed_by(key: Any, change: Change) -> Callable[[Consortium], None]:
    """The officer's approval with something else in it, signed again."""

    def spoil(consortium: Consortium) -> None:
        path = consortium.approval("site-a")
        said = json.loads(verify(path.read_bytes(), [OFFICERS["site-a"].public_key()]))
        change(said)
        path.unlink()
        other = consortium.release / approval_file(key_id(key.public_key()))
        other.write_bytes(sign(json.dumps(said).encode(), key))

    return spoil


def _said(**changes: Any) -> Change:
    return lambda said: said["predicate"].update(changes)


def _rename(consortium: Consortium) -> None:
    consortium.approval("site-a").rename(consortium.approval("site-b"))


def _flip(consortium: Consortium) -> None:
    path = consortium.approval("site-a")
    path.write_bytes(path.read_bytes().replace(b'"sig":"A', b'"sig":"B').replace(b'"sig":"', b'"sig":"/', 1))


def _link(consortium: Consortium) -> None:
    target = consortium.approval("site-a").rename(consortium.root / "elsewhere")
    consortium.approval("site-a").symlink_to(target)


def _swell(consortium: Consortium) -> None:
    with consortium.approval("site-a").open("r+b") as file:
        file.truncate(1 << 40)


SPOILT: dict[str, tuple[Callable[[Consortium], None], str]] = {
    "of another release": (
        _signed_by(OFFICER, lambda said: said["subject"][0]["digest"].update(sha256="0" * 64)),
        "another release",
    ),
    "in another role": (_signed_by(OFFICER, _said(role="second person")), "another role"),
    "by another policy": (_signed_by(OFFICER, _said(looked_at={"policy": "0" * 64})), "another policy"),
    "a refusal": (_signed_by(OFFICER, _said(decision="refused")), "no approval"),
    "with more in it": (_signed_by(OFFICER, _said(name="Anna")), "no approval"),
    "dated before packing": (_signed_by(OFFICER, _said(time="2026-11-20T00:00:00Z")), "before the release was packed"),
    "dated in the future": (_signed_by(OFFICER, _said(time="2098-01-01T00:00:00Z")), "in the future"),
    "dated after the key's last day": (_signed_by(OFFICER, _said(time="2100-01-01T00:00:00Z")), "expired"),
    "dated on no day": (_signed_by(OFFICER, _said(time="2026-13-41T00:00:00Z")), "no approval"),
    "by a key that the release does not name": (_signed_by(STRANGER, lambda said: None), "does not name"),
    "renamed": (_rename, "named by another key"),
    "with a changed signature": (_flip, "envelope"),
    "a link": (_link, "link or device"),
    "of a terabyte": (_swell, "something else under its name"),
    "not in its folder": (
        lambda c: shutil.move(c.approval("site-a"), c.release / c.approval("site-a").name),
        "that nobody signed",
    ),
    "under no key's name": (
        lambda c: shutil.move(c.approval("site-a"), c.approval("site-a").with_name("ok.dsse.json")),
        "that nobody signed",
    ),
}


@pytest.mark.parametrize(("spoil", "match"), SPOILT.values(), ids=SPOILT.keys())
def test_a_spoilt_approval_is_refused_and_never_passed_over(
    consortium: Consortium, spoil: Callable[[Consortium], None], match: str
) -> None:
    for site in SITES:
        assert consortium.approve(site) == 0
    spoil(consortium)
    with pytest.raises(VerificationFailed, match=match) as refused:
        verify_release(consortium.release, [key.public_key() for key in EVERYONE.values()])
    assert refused.value.exit_code == 5


def test_more_approvals_than_the_release_names_keys_are_refused_unread(consortium: Consortium) -> None:
    assert consortium.approve("site-a") == 0
    for number in range(200):
        with (consortium.release / approval_file(f"{number:064x}")).open("wb") as file:
            file.truncate(1 << 16)  # sparse
    tracemalloc.start()
    try:
        with pytest.raises(VerificationFailed, match="by a key that the release does not name"):
            verify_release(consortium.release, [key.public_key() for key in EVERYONE.values()])
        assert tracemalloc.get_traced_memory()[1] < 200 << 14
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("created", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_release_packed_at_the_end_of_the_calendar_is_none(consortium: Consortium, created: str) -> None:
    """A trusted key may have signed it; no day comes before or after it, with which an approval's could be compared."""
    statement = statement_of(consortium.release)
    parse_statement(json.dumps(statement).encode())
    statement["predicate"]["created"] = created
    with pytest.raises(VerificationFailed):
        parse_statement(json.dumps(statement).encode())


def test_an_approval_by_a_key_that_the_reader_does_not_have_is_exit_5(
    consortium: Consortium, capsys: pytest.CaptureFixture[str]
) -> None:
    assert consortium.approve("site-a") == 0
    assert consortium.verify() == 5
    named = f"the approval {key_id(OFFICER.public_key())[:12]}…"
    told = capsys.readouterr().err
    assert f"{named}: a signature by the unknown key" in told
    assert "Give the approvers' keys too" in told


def test_a_release_does_not_lapse_with_its_officers_keys(releasable: Releasable, tmp_path: Path) -> None:
    """What counts is the day of signing."""
    today = datetime.now(UTC)
    made = consort(tmp_path / "consortium", releasable, {}, expires=today.date().isoformat())
    assert made.approve("site-a") == 0
    found = verify_content(made.release, [KEY.public_key()])
    later = today + timedelta(days=900)
    held = check_approvals(found.approvals, found.statement_sha256, found.predicate, [OFFICER.public_key()], now=later)
    assert [approval.role for approval in held] == ["compliance officer"]
