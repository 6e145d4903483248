"""A coordinator, made and kept: its folder, and the registry, of which nothing is lost and nothing comes back."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from enrolment import NOW, Study, new_keys
from killed import Killed
from refusals import refused

from fedphantom.common.enrolment.invitation import open_invitation
from fedphantom.common.errors import ConfigError, OutputTaken, PolicyRefused, VerificationFailed
from fedphantom.common.journal import verify_journal
from fedphantom.server.coordinator import registry as registry_file
from fedphantom.server.coordinator.configuration import new_configuration
from fedphantom.server.coordinator.coordinator import Coordinator
from fedphantom.server.coordinator.enrolling import invite
from fedphantom.server.coordinator.folder import CoordinatorFolder
from fedphantom.server.coordinator.renewal import renew
from fedphantom.server.coordinator.setup import make_coordinator

# A new coordinator.


def test_a_coordinators_secrets_are_for_its_owner_alone(enrolling: Study) -> None:
    enrolling.invite("site-a")
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in enrolling.folder.rglob("*") if path.is_file()}
    secret = {p for p in modes if p.suffix == ".key" or p.name == "key.pem" or p.parent.name == "invitations"}
    assert len(secret) == 6
    assert {modes[path] for path in secret | {CoordinatorFolder(enrolling.folder).registry}} == {0o600}
    assert stat.S_IMODE(enrolling.folder.stat().st_mode) == 0o700


def test_a_coordinator_is_made_whole_or_not_at_all(tmp_path: Path, made_coordinator: Path) -> None:
    enrolling, out = made_coordinator / "study.toml", tmp_path / "out"
    refused(3, "HOST:PORT", lambda: make_coordinator(out, enrolling, "fed", (), 365, None, NOW))
    refused(3, "--study", lambda: make_coordinator(out, tmp_path / "none", "fed:443", (), 365, None, NOW))
    assert list(tmp_path.iterdir()) == []
    make_coordinator(out, enrolling, "fed:443", (), 365, None, NOW)
    with pytest.raises(OutputTaken):
        make_coordinator(out, enrolling, "fed:443", (), 365, None, NOW)


def test_another_study_put_in_its_place_is_found(enrolling: Study) -> None:
    folder = CoordinatorFolder(enrolling.folder)
    folder.study.write_text(folder.study.read_text().replace("seed = 5", "seed = 6"))
    refused(5, "another study.toml", lambda: enrolling.invite("site-a"))


@pytest.mark.parametrize("text", ["", "x =", 'address = "a:1"', "unheard = 1"])
def test_settings_that_do_not_hold_name_their_key(enrolling: Study, text: str) -> None:
    CoordinatorFolder(enrolling.folder).configuration.write_text(text)
    refused(3, "DIR: ", lambda: enrolling.invite("site-a"))


def test_settings_are_read_as_they_were_written(enrolling: Study) -> None:
    table = Coordinator.open(enrolling.folder).configuration
    assert table.hosts == ("fed.example.org", "10.0.0.1")
    assert (table.listen, table.link_port, table.valid_days) == (("0.0.0.0:443",), 9200, 365)


# The registry's file.


@pytest.mark.parametrize("spoil", ["edited", "missing", "restored"])
def test_a_registry_other_than_the_journal_names_is_refused(enrolling: Study, spoil: str) -> None:
    enrolling.enrolled("site-a", new_keys())
    path = CoordinatorFolder(enrolling.folder).registry
    before = path.read_bytes()
    enrolling.revoke("site-a")
    match spoil:
        case "edited":
            path.write_bytes(path.read_bytes().replace(b'"revoked"', b'"renewed"'))
        case "missing":
            path.unlink()
        case "restored":  # a backup from before the revocation
            path.write_bytes(before)
    refused(5, "registry.json other than", lambda: enrolling.membership())
    refused(5, "registry.json other than", lambda: enrolling.invite("site-b"))


def test_a_journal_cut_short_is_refused(enrolling: Study) -> None:
    enrolling.enrolled("site-a", new_keys())
    journal = CoordinatorFolder(enrolling.folder).journal
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    refused(5, "journal", lambda: enrolling.membership())


def test_other_events_in_the_journal_do_not_hide_the_registrys_last(enrolling: Study) -> None:
    from fedphantom.common.journal import Journal

    enrolling.enrolled("site-a", new_keys())
    Journal(CoordinatorFolder(enrolling.folder).journal).append("round-finished", round=1)
    assert enrolling.active() == ["site-a"]


@pytest.mark.parametrize(("cut", "there"), [("write_atomic", ["site-a"]), ("append", ["site-a"]), ("replace", [])])
def test_a_kill_anywhere_in_a_revocation_leaves_it_done_or_undone_and_the_registry_readable(
    enrolling: Study, monkeypatch: pytest.MonkeyPatch, cut: str, there: list[str]
) -> None:
    enrolling.enrolled("site-a", new_keys())

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        match cut:
            case "write_atomic":
                patched.setattr(registry_file, "write_atomic", killed)
            case "append":
                patched.setattr("fedphantom.common.journal.HeldJournal.append", killed)
            case "replace":  # journalled: what the journal tells, holds
                patched.setattr(registry_file.Registry, "_put_in_place", killed)
        with pytest.raises(Killed):
            enrolling.revoke("site-a")
    assert enrolling.active() == there
    assert ("site-revoked" in enrolling.events()) == (there == [])
    if there:
        enrolling.revoke("site-a")
    verify_journal(CoordinatorFolder(enrolling.folder).journal)
    renew(enrolling.folder, NOW)
    assert [gone.name for gone in enrolling.roster().revoked] == ["site-a"]


def test_a_refused_change_leaves_everything_as_it_was(enrolling: Study) -> None:
    request = enrolling.request(enrolling.invite("site-a"), new_keys())
    enrolling.enroll(request)
    before = {path: path.read_bytes() for path in enrolling.folder.rglob("*") if path.is_file()}
    with pytest.raises(PolicyRefused):
        enrolling.enroll(request)
    assert {path: path.read_bytes() for path in enrolling.folder.rglob("*") if path.is_file()} == before


def test_the_registry_and_the_journal_hold_no_token(enrolling: Study) -> None:
    invitation = enrolling.invite("site-a")
    enrolling.enroll(enrolling.request(invitation, new_keys()))
    folder, token = CoordinatorFolder(enrolling.folder), open_invitation(invitation).token
    for path in (folder.registry, folder.journal, folder.roster):
        assert token not in path.read_text()


def test_a_damaged_registry_whose_hash_the_journal_names_is_told(enrolling: Study) -> None:
    from fedphantom.server.coordinator.membership import parse_membership

    with pytest.raises(VerificationFailed, match="damaged registry"):
        parse_membership(json.dumps({"serial": 1}).encode())


def test_a_folder_that_is_no_coordinators_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"DIR: no coordinator\.toml"):
        Coordinator.open(tmp_path)


def test_an_invitation_is_not_written_over_another_file(enrolling: Study, tmp_path: Path) -> None:
    out = tmp_path / "taken"
    out.write_text("mine")
    with pytest.raises(OutputTaken, match="--out: 'taken' is there already"):
        invite(enrolling.folder, "site-a", out, 14, NOW)
    assert out.read_text() == "mine"
    assert not os.listdir(enrolling.folder).count("invitations")


@pytest.mark.parametrize(
    ("address", "listen"),
    [
        ("fed.example.org:443", ("0.0.0.0:443",)),
        ("10.0.0.1:9443", ("0.0.0.0:9443",)),
        ("[2001:db8::1]:9443", ("0.0.0.0:9443", "[::]:9443")),
    ],
)
def test_a_coordinator_listens_where_its_address_is_reached(address: str, listen: tuple[str, ...]) -> None:
    assert new_configuration(address, (), 365).listen == listen


@pytest.mark.parametrize(
    ("address", "also", "option"), [("fed.example.org", (), "--address"), ("fed.example.org:443", ("a b",), "--also")]
)
def test_an_address_that_is_none_is_refused_by_the_options_name(
    address: str, also: tuple[str, ...], option: str
) -> None:
    with pytest.raises(ConfigError, match=f"{option}: no such address or host"):
        new_configuration(address, also, 365)
